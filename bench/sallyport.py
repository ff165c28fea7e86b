"""The gateway as it is measured: everything on, unless a measurement says otherwise."""

from __future__ import annotations

import subprocess
import urllib.parse
from html.parser import HTMLParser

from bench.machine import BUILD, ROOT, Process, free_port, said
from bench.options import Gateway
from bench.subjects import FORM, PASSWORD, Subject, cookies_of, fetch, written

RULES = """\
rules:
  - name: public
    match: {paths: [/public/**]}
    access: public
    upstream: app
  - name: everything-else
    access: authenticated
    limits:
      - {name: per-address, key: address, algorithm: sliding_window, rate: 1000000/s}
      - {name: per-user, key: user, algorithm: token_bucket, rate: 1000000/s, burst: 1000000}
    risk: {step_up_at: 0.9, refuse_at: 0.95}
    upstream: app
    audience: app
"""
_BROWSER = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


class Sallyport(Subject):
    """Everything on: session, rule, two limits, risk, policy, assertion, metrics, access log in a file."""

    name = "Sallyport"
    does = "session, 2 limits, risk, policy, assertion, metrics, access log"

    def __init__(self, core: set[int], gateway: Gateway | None = None, *, rules: str = RULES) -> None:
        super().__init__(core)
        self.gateway = gateway or Gateway()
        self.name = self.gateway.name
        self.admin = f"http://127.0.0.1:{free_port()}"
        self.folder = BUILD / self.name.lower().replace(" ", "-")
        self.rules = rules

    def version(self) -> str:
        return "Sallyport " + said(*self._python("-c", "import gateway; print(gateway.__version__)"))

    def program(self, origin: str) -> Process:
        self.configure(origin)
        self._add_user()
        return Process(self.folder.name, self._run("run"), cores=self.core)

    def sign_in(self) -> None:
        """Through the form a browser uses."""
        login = f"{self.url}.sallyport/login"
        _, answered, page = fetch("GET", login, _BROWSER)
        fields = _Fields.of(page.decode()) | {"username": "bench", "password": PASSWORD}
        headers = {**_BROWSER, **FORM, "Cookie": cookies_of(answered), "Origin": self.url.rstrip("/")}
        status, answered, _ = fetch("POST", login, headers, urllib.parse.urlencode(fields).encode())
        session = [cookie for cookie in cookies_of(answered).split("; ") if cookie.startswith("sallyport=")]
        if status != 303 or not session:
            raise RuntimeError(f"the sign-in was answered with {status}")
        self.headers = {"Cookie": session[0]}

    def configure(self, origin: str) -> None:
        """A folder with everything on, and no database yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.db*"):
            old.unlink()
        written(f"{self.folder.name}/policies.yaml", self.rules)
        written(f"{self.folder.name}/config.yaml", self._settings(origin))

    def _settings(self, origin: str) -> str:
        return f"""\
listen: 127.0.0.1:{self.port}
admin_listen: {self.admin.removeprefix("http://")}
public_url: http://127.0.0.1:{self.port}
upstreams:
  app: {{url: {origin}}}
policies: {self.folder}/policies.yaml
store: {{records: "sqlite:{self.folder}/sallyport.db", shared: memory}}
keys: {self.folder}/keys
identity: {{local: {{}}}}
mfa: {{totp: {{issuer: Bench}}, backup_codes: {{}}}}
risk: {{}}
log: {{access: {self.folder}/access.log}}
"""

    def _add_user(self) -> None:
        add = self._run("user", "add", "bench", "--password-stdin")
        made = subprocess.run(add, cwd=ROOT, input=PASSWORD + "\n", capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"no user could be added: {made.stdout}{made.stderr}")

    def _run(self, *command: str) -> list[str]:
        return self._python("-m", "gateway", *command, "--config", str(self.folder / "config.yaml"))

    def _python(self, *arguments: str) -> list[str]:
        # -P: what is installed there, not what lies in the folder this is called from.
        return [self.gateway.interpreter, "-P", *arguments]


class Asked(Sallyport):
    """The same, believing what a proxy on this machine says of the request it asks about."""

    def _settings(self, origin: str) -> str:
        return super()._settings(origin) + "trusted_proxies: [127.0.0.1/32]\n"


class DataPlane(Sallyport):
    """Nothing but carrying by rule: no sessions, no pages, no database."""

    def program(self, origin: str) -> Process:
        self.configure(origin)
        return Process(f"{self.folder.name}-data-plane", self._run("run"), cores=self.core)

    def _settings(self, origin: str) -> str:
        return f"""\
listen: 127.0.0.1:{self.port}
admin_listen: {self.admin.removeprefix("http://")}
public_url: http://127.0.0.1:{self.port}
upstreams:
  app: {{url: {origin}}}
policies: {self.folder}/policies.yaml
store: {{records: none, shared: none}}
keys: {self.folder}/keys
log: {{access: {self.folder}/access.log}}
"""


class _Fields(HTMLParser):
    """The hidden fields of a page's forms."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "input" and values.get("type") == "hidden":
            self.hidden[values.get("name") or ""] = values.get("value") or ""

    @classmethod
    def of(cls, page: str) -> dict[str, str]:
        parser = cls()
        parser.feed(page)
        return parser.hidden
