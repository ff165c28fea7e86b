// See docs/single-page-apps.md.
(() => {
  const script = document.currentScript, said = script.dataset, base = new URL(".", script.src).href;
  const send = window.fetch.bind(window), channel = new BroadcastChannel("sallyport");
  if (new URL(base).origin !== location.origin) throw Error("sallyport: not this origin");
  let asking, user = send(base + "whoami").then((answer) => answer.json())
    .then((me) => me.authenticated ? `${me.tenant}/${me.sub}` : "", () => null);

  const make = (name, as) => Object.assign(document.createElement(name), as);
  const button = (textContent, onclick) => make("button", { textContent, onclick });

  const words = async () => {
    const answer = await send(base + "dialog/words");
    if (!answer.ok) throw answer;
    return { ...await answer.json(), ...said };
  };

  const ask = (challenge) => asking ??= words().then((say) => new Promise((resolve) => {
    const box = make("dialog", { className: "sallyport", lang: say.language, ariaLabel: say.text });
    const end = (subject) => (box.remove(), resolve(subject));
    box.append(make("p", { textContent: say.text }),
      button(say.continue, () => window.open(challenge, "sallyport", "popup,width=480,height=720")),
      button(say.cancel, () => end()));
    box.oncancel = () => end();
    channel.onmessage = (told) => end(told.data);
    document.body.append(box);
    box.showModal();
  })).catch(() => {}).finally(() => asking = channel.onmessage = null);

  const confirm = async (challenge) => {
    const before = await user, now = await ask(challenge);
    if (!now || before === null || (before && before !== now)) return false;
    user = now;
    return true;
  };

  const refused = (answer) => /40[13]/.test(answer.status);
  const challengeOf = async (answer) => {
    if (!refused(answer) || !/problem\+json/.test(answer.headers.get("Content-Type"))) return "";
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
    if (refused(answer)) throw Error(`sallyport: ${answer.status}`);
    return new WebSocket(at, protocols);
  };

  window.fetch = fetch;
  window.sallyport = { fetch, confirm, open };
})();
