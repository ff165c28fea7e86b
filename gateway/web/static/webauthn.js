// Asks the browser for a security key and sends its answer as the form it stands in. Nothing else.
"use strict";
(() => {
  const button = document.getElementById("key");
  if (!button) return;
  const form = button.form;
  const problem = document.getElementById("key-problem");
  const waiting = document.getElementById("key-waiting");
  const registering = button.dataset.ceremony === "register";
  const answer = form.elements[registering ? "credential" : "code"];

  const words = JSON.parse(problem.dataset.words); // in the language of the page

  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
  const base64 = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const keys = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const say = (text, wait) => {
    problem.textContent = wait ? "" : text;
    problem.hidden = Boolean(wait) || !text;
    waiting.textContent = wait ? text : "";
  };

  const begin = async () => {
    const body = registering ? {} : { challenge: button.dataset.challenge };
    const said = await fetch(`${button.dataset.api}${button.dataset.ceremony}/begin`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(body),
    });
    const value = await said.json();
    if (said.ok) return value.public_key;
    if (said.status === 401) location.reload(); // it has become too late: the page asks for what is needed first
    throw new Error(value.detail);
  };

  const ask = async (options) => {
    options.challenge = bytes(options.challenge);
    if (registering) {
      options.user.id = bytes(options.user.id);
      options.excludeCredentials = keys(options.excludeCredentials);
      return navigator.credentials.create({ publicKey: options });
    }
    options.allowCredentials = keys(options.allowCredentials);
    return navigator.credentials.get({ publicKey: options });
  };

  const written = (key) => {
    const from = key.response;
    const response = { clientDataJSON: base64(from.clientDataJSON) };
    if (registering) {
      response.attestationObject = base64(from.attestationObject);
      response.transports = from.getTransports ? from.getTransports() : [];
    } else {
      response.authenticatorData = base64(from.authenticatorData);
      response.signature = base64(from.signature);
      if (from.userHandle && from.userHandle.byteLength) response.userHandle = base64(from.userHandle);
    }
    return JSON.stringify({ id: key.id, rawId: base64(key.rawId), type: key.type, response });
  };

  if (!window.PublicKeyCredential || !navigator.credentials) {
    say(words.none);
    return;
  }
  for (const one of [button, ...form.querySelectorAll("[data-with-key]")]) one.hidden = false;
  if (!registering) button.focus();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    say(words.follow, true);
    try {
      answer.value = written(await ask(await begin()));
      form.submit();
    } catch (error) {
      say(words[error.name] || (error.name === "Error" && error.message) || words.other);
      button.disabled = false;
      button.focus();
    }
  });
})();
