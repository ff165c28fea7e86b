// See docs/single-page-apps.md.
(() => {
  const script = document.currentScript, say = script.dataset, base = new URL(".", script.src).href;
  const send = window.fetch.bind(window), channel = new BroadcastChannel("sallyport");
  if (new URL(base).origin !== location.origin) throw Error("sallyport: not this origin");
  const make = (name) => document.createElement(name);
  let asking;
  // nobody else goes on with it
  let user = send(base + "whoami").then((answer) => answer.json())
    .then((me) => me.authenticated ? `${me.tenant}/${me.sub}` : "", () => null);

  const button = (text, act) => {
    const one = make("button");
    one.type = "button";
    one.textContent = text;
    one.onclick = act;
    return one;
  };

  const ask = (challenge) => asking ??= new Promise((resolve) => {
    const box = make("dialog"), text = make("p");
    const end = (subject) => {
      asking = channel.onmessage = null;
      box.remove();
      resolve(subject);
    };
    text.textContent = say.text || "Please confirm that it is you. A window opens for it.";
    box.className = "sallyport";
    box.setAttribute("aria-label", text.textContent);
    box.append(text,
      button(say.continue || "Continue", () => window.open(challenge, "sallyport", "popup,width=480,height=720")),
      button(say.cancel || "Cancel", () => end("")));
    box.oncancel = () => end("");
    channel.onmessage = (told) => end(told.data);
    document.body.append(box);
    box.showModal();
  });

  const confirm = async (challenge) => {
    const before = await user, now = await ask(challenge);
    if (!now || before === null || (before && before !== now)) return false;
    user = now;
    return true;
  };

  const challengeOf = async (answer) => {
    if (answer.status !== 401 || !/problem\+json/.test(answer.headers.get("Content-Type"))) return "";
    const told = await answer.clone().json().catch(() => ({}));
    const url = new URL(told.challenge || "/", location).href;
    return url.startsWith(base + "dialog") ? url : "";
  };

  const fetch = async (input, init) => {
    let request = new Request(input, init);
    const once = init?.body instanceof ReadableStream;
    for (let round = 0; ; round++) {
      const again = once ? null : request.clone(), answer = await send(request);
      const challenge = round < 3 && await challengeOf(answer);
      if (challenge && once) console.warn("sallyport: a stream cannot be sent again");
      if (!challenge || once || !await confirm(challenge)) return answer;
      request = again;
    }
  };

  const open = async (url, protocols) => {
    const at = new URL(url, location.href.replace(/^http/, "ws"));
    const answer = await fetch(at.href.replace(/^ws/, "http"));
    answer.body?.cancel();
    if (answer.status === 401 || answer.status === 403) throw Error(`sallyport: ${answer.status}`);
    return new WebSocket(at, protocols);
  };

  window.fetch = fetch;
  window.sallyport = { fetch, confirm, open };
})();
