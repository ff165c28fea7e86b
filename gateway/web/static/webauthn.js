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

  const WORDS = {
    NotAllowedError: "Nothing came from a key: it was cancelled, or it took too long. Try again, or use another way.",
    InvalidStateError: "This key is set up already. Use another one.",
    NotSupportedError: "This key cannot be used here. Try another one.",
    ConstraintError: "This key has no PIN and cannot tell who you are. Try another one.",
    SecurityError: "This browser does not ask for keys at this address.",
    AbortError: "It was cancelled. Try again, or use another way.",
  };

  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const keys = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const say = (words, wait) => {
    problem.textContent = wait ? "" : words;
    problem.hidden = Boolean(wait) || !words;
    waiting.textContent = wait ? words : "";
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
    const response = { clientDataJSON: text(from.clientDataJSON) };
    if (registering) {
      response.attestationObject = text(from.attestationObject);
      response.transports = from.getTransports ? from.getTransports() : [];
    } else {
      response.authenticatorData = text(from.authenticatorData);
      response.signature = text(from.signature);
      if (from.userHandle && from.userHandle.byteLength) response.userHandle = text(from.userHandle);
    }
    return JSON.stringify({ id: key.id, rawId: text(key.rawId), type: key.type, response });
  };

  if (!window.PublicKeyCredential || !navigator.credentials) {
    say("This browser cannot use security keys. Use another way, or another browser.");
    return;
  }
  button.hidden = false;
  if (!registering) button.focus();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    say("Follow what your browser says now.", true);
    try {
      answer.value = written(await ask(await begin()));
      form.submit();
    } catch (error) {
      say(WORDS[error.name] || (error.name === "Error" && error.message) || "That did not work. Try again, or use another way.");
      button.disabled = false;
      button.focus();
    }
  });
})();
