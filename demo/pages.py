"""The demo's three pages. Everything that came with a request is escaped; nothing is fetched from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from html import escape

Headers = Iterable[tuple[bytes, bytes]]

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.quiet { opacity: .7; margin: 0; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 500; white-space: nowrap; width: 1%; padding-right: 1.5rem; }
td { overflow-wrap: anywhere; } code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { border: 1px solid var(--line); border-radius: 6px; padding: .75rem; overflow-x: auto; }
label { display: block; margin: .75rem 0; } input, textarea { display: block; width: 100%; box-sizing: border-box;
font: inherit; padding: .5rem; margin-top: .25rem; border: 1px solid var(--line); border-radius: 6px; }
button { font: inherit; padding: .5rem 1rem; border-radius: 6px; border: 1px solid var(--line); cursor: pointer; }
@media (max-width: 34rem) { body { margin: 1.5rem auto; } tr { display: block; border-bottom: 1px solid var(--line);
padding: .4rem 0; } th, td { display: block; width: auto; padding: 0; border: 0; } }
.badge { border: 1px solid var(--line); border-radius: 99px; padding: .1rem .6rem; font-size: .85rem; }
"""

_IDENTITY = (
    "X-Forwarded-User",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Request-Id",
)

_TRY = (
    ("/", "this page; needs a sign-in"),
    ("/admin/", "the same; needs the group admins and a second factor"),
    ("/public/", "the same; needs nothing"),
    ("/public/form", "a form that is interrupted: fill it in signed out and send it behind the gate"),
    ("/public/app", "a single-page application that is interrupted"),
    ("/echo", "the request as this service received it"),
    ("/admin/echo", "the same with what a second factor adds"),
    ("/sse", "an event each second"),
    ("/bytes/1000000", "a million bytes"),
    ("/slow/2", "an answer after two seconds"),
    ("/status/503", "an error of the service, passed on as it is"),
    ("/.sallyport/whoami", "you, as the gate sees you"),
    ("/.sallyport/account", "your second factors and sessions"),
    ("/.sallyport/jwks.json", "keys that verify the assertion"),
    ("/.sallyport/logout", "sign out"),
)


_CALLS = ("POST", "PUT", "PATCH", "DELETE", "Upload")
_BUTTONS = (*_CALLS, *(f"Admin {call}" for call in _CALLS), "WebSocket")
_APP = """
const result = document.getElementById("result"), text = 'Zo\u00eb & "Ann"\\n';
const files = () => {
  const form = new FormData();
  form.append("name", text);
  form.append("file", new Blob([new Uint8Array(300000).map((_, at) => at * 7 % 251)]), "a file.bin");
  return form;
};
const call = async (name) => {
  const admin = name.startsWith("Admin ") ? "/admin" : "", method = name.replace("Admin ", "");
  if (method === "WebSocket") {
    const socket = await sallyport.open("/ws");
    return new Promise((told) => {
      socket.onopen = () => socket.send(text);
      socket.onmessage = (one) => told(one.data);
    });
  }
  const answer = method === "Upload"
    ? await fetch(admin + "/upload", {method: "POST", body: files()})
    : await fetch(admin + "/echo", {
      method, headers: {"Content-Type": "application/json"}, body: JSON.stringify({text}),
    });
  return `${answer.status} ${answer.ok ? "done" : (await answer.json()).code}`;
};
for (const one of document.querySelectorAll("button")) one.onclick = async () => {
  result.textContent = "…";
  result.textContent = `${one.textContent}: ${await call(one.textContent).catch((error) => error.message)}`;
};
"""


def index(path: str, headers: Headers) -> str:
    """Who you are, as the gateway said, and everything to try."""
    values = _values(headers)
    identity = [(name, values[name.lower()]) for name in _IDENTITY if name.lower() in values]
    claims = _claims(values.get("sallyport-assertion", ""))
    proof = (
        "<h2>Assertion <span class='quiet'>(claims as received; a service verifies the signature first)</span></h2>"
        f"<pre id='claims'>{escape(json.dumps(claims, indent=2, ensure_ascii=False))}</pre>"
        if claims is not None
        else ""
    )
    links = _table((f"<a href='{link}'><code>{link}</code></a>", what) for link, what in _TRY)
    told = _rows(identity) if identity else "<p>No identity came with this request.</p>"
    return _page(
        "A service behind Sallyport",
        f"<p>{_who(values)} <span class='badge'>{escape(path)}</span></p>"
        f"<h2>What the gateway said about you</h2>{told}{proof}<h2>Try</h2>{links}",
    )


def form(path: str) -> str:
    """A form whose buttons send it to each of the three rules."""
    return _page(
        "A form that is interrupted",
        "<p>Send it somewhere you may not go yet. The gateway keeps it sealed, asks you to sign in or for a second"
        " factor, and then it arrives here once, byte for byte.</p>"
        f"<form method='post' action='{escape(path)}'>"
        f"<input type='hidden' name='submission' value='{secrets.token_urlsafe(12)}'>"
        "<label>Name<input name='name' value='Zoë &amp; Ann'></label>"
        "<label>Message<textarea name='message' rows='4'>100% = all + more\nsecond line</textarea></label>"
        "<button id='send-public' formaction='/public/form'>Send to /public/form</button> "
        "<button id='send' formaction='/form'>Send to /form</button> "
        "<button id='send-admin' formaction='/admin/form'>Send to /admin/form</button>"
        "</form>",
    )


def app() -> str:
    """A page whose script sends what forms cannot, through the gateway's script."""
    return _page(
        "A single-page application",
        "<p>Each button sends something with <code>fetch</code>. When the gateway asks for a sign-in or a second"
        " factor, its script shows that in a window of its own, and then sends the same once more.</p>"
        f"<p>{''.join(f'<button>{label}</button> ' for label in _BUTTONS)}</p>"
        "<pre id='result' role='status'></pre>"
        f"<script src='/.sallyport/client.js'></script><script>{_APP}</script>",
    )


def received(path: str, fields: Sequence[tuple[str, str]], body: bytes, arrived: int, headers: Headers) -> str:
    """What a form sent, and how many times this submission arrived."""
    times = "once" if arrived == 1 else f"{arrived} times"
    about = _rows(
        [
            ("Sent to", path),
            ("Bytes", str(len(body))),
            ("SHA-256", hashlib.sha256(body).hexdigest()),
        ]
    )
    return _page(
        f"Received {times}",
        f"<p>{_who(_values(headers))}</p>"
        f"<p>This submission arrived <strong id='arrived' data-count='{arrived}'>{times}</strong>.</p>"
        f"<h2>Fields</h2><div id='fields'>{_rows(fields)}</div>"
        f"<h2>Body</h2>{about}<pre id='body'>{escape(body.decode(errors='replace'))}</pre>",
    )


def _who(values: dict[str, str]) -> str:
    user = values.get("x-forwarded-preferred-username") or values.get("x-forwarded-user")
    if not user:
        return "<span id='who'>Nobody is signed in.</span>"
    return f"<span id='who'>You are <strong>{escape(user)}</strong>.</span>"


def _values(headers: Headers) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("utf-8", "replace") for name, value in headers}


def _claims(assertion: str) -> object:
    parts = assertion.split(".")
    if len(parts) != 3:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    except ValueError:
        return None


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return _table((escape(name), f"<code>{escape(value)}</code>") for name, value in pairs)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{left}</th><td>{right}</td></tr>" for left, right in rows) + "</table>"


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>"
    )
