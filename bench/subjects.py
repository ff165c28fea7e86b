"""What is measured. Each subject is a context manager that is up when it is entered, before the origin it is given.

All of them carry the same request to the same origin. What they do beside carrying stands in `does`.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import secrets
import subprocess
import urllib.parse
from abc import ABC, abstractmethod
from contextlib import ExitStack
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Self

from bench.machine import BUILD, ROOT, Process, find, free_port, python, said

BODY = "x" * 149 + "\n"
PASSWORD = secrets.token_urlsafe(16)


class LeftOutError(Exception):
    """This subject cannot be measured here; the message says why."""


class Subject(ABC):
    """A proxy under test."""

    name: str
    does: str
    process: Process

    def __init__(self, core: set[int]) -> None:
        self.core = core
        self.port = free_port()
        self.headers: dict[str, str] = {}
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @abstractmethod
    def version(self) -> str:
        """Name and version, as the program says them."""

    @abstractmethod
    def program(self, origin: str) -> Process:
        """The program to run before `origin`; LeftOutError when it is not here."""

    def sign_in(self) -> None:  # noqa: B027 - what only carries knows nobody
        """Get what a signed-in client sends, into `headers`."""

    def up(self, origin: str) -> Self:
        """Start, wait, sign in, and see that an answer is the origin's."""
        self.process = self._stack.enter_context(self.program(origin))
        try:
            self.process.wait_for(self.url)
            self.sign_in()
            self.check()
        except BaseException:
            self.down()
            raise
        return self

    def down(self) -> None:
        self._stack.close()

    def check(self) -> None:
        """RuntimeError unless the origin's own answer comes through: wrk itself takes a redirect for an answer."""
        status, _, body = fetch("GET", self.url, self.headers)
        if status != 200 or body != BODY.encode():
            raise RuntimeError(f"{self.name} answered {status} {body[:200]!r} instead of what the origin says")


class Nginx(Subject):
    """The limit to strive for."""

    name = "nginx proxy_pass"
    does = "carries"

    def version(self) -> str:
        return "nginx " + said(_needed("nginx"), "-v").rpartition("/")[2]

    def program(self, origin: str) -> Process:
        return nginx(
            "nginx",
            self.core,
            f"""
            upstream origin {{ server {urllib.parse.urlsplit(origin).netloc}; keepalive 64; }}
            server {{
                listen 127.0.0.1:{self.port};
                location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}""",
        )


class Caddy(Subject):
    """A friendly server."""

    name = "Caddy reverse_proxy"
    does = "carries"

    def version(self) -> str:
        return "Caddy " + said(_needed("caddy"), "version").split(" ")[0]

    def program(self, origin: str) -> Process:
        caddy = _needed("caddy")
        config = _written(
            "Caddyfile",
            f"{{\n admin off\n auto_https off\n}}\nhttp://:{self.port} {{\n reverse_proxy {origin}\n}}\n",
        )
        command = [caddy, "run", "--adapter", "caddyfile", "--config", str(config)]
        home = {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(BUILD), "XDG_CONFIG_HOME": str(BUILD)}
        return Process("caddy", command, cores=self.core, environment=home)


class GoProxy(Subject):
    """The bar: what everybody writes first, checking nothing."""

    name = "Go httputil.ReverseProxy"
    does = "carries"

    def version(self) -> str:
        return said(_needed("go"), "version").split(" ")[2].replace("go", "Go ", 1)

    def program(self, origin: str) -> Process:
        binary = BUILD / "goproxy"
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run([_needed("go"), "build", "-o", str(binary), "."], cwd=ROOT / "bench" / "goproxy", check=True)
        command = [str(binary), f"127.0.0.1:{self.port}", origin]
        return Process("goproxy", command, cores=self.core, environment={"GOMAXPROCS": "1"})


class OAuth2Proxy(Subject):
    """The peer most people would put there: a cookie session and nothing else, its logs off."""

    name = "oauth2-proxy"
    does = "cookie session"

    def version(self) -> str:
        return said(_needed("oauth2-proxy"), "--version").split(" (")[0]

    def program(self, origin: str) -> Process:
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
        users = _written("htpasswd", f"bench:{{SHA}}{digest}\n")
        command = [
            _needed("oauth2-proxy"),
            f"--http-address=127.0.0.1:{self.port}",
            f"--upstream={origin}/",
            f"--htpasswd-file={users}",
            f"--cookie-secret={secrets.token_hex(16)}",
            "--cookie-secure=false",
            "--email-domain=*",
            "--provider=github",
            "--client-id=unused",
            "--client-secret=unused",
            "--request-logging=false",
            "--auth-logging=false",
        ]
        return Process("oauth2-proxy", command, cores=self.core, environment={"GOMAXPROCS": "1"})

    def sign_in(self) -> None:
        form = urllib.parse.urlencode({"username": "bench", "password": PASSWORD, "rd": "/"})
        status, answered, _ = fetch("POST", f"{self.url}oauth2/sign_in", _FORM, form.encode())
        self.headers = {"Cookie": _cookies(answered)}
        if status != 302 or not self.headers["Cookie"]:
            raise RuntimeError(f"oauth2-proxy answered {status} to the sign-in")


class Sallyport(Subject):
    """Everything on: session, rule, two limits, risk, policy, assertion, metrics, access log in a file."""

    name = "Sallyport"
    does = "session, 2 limits, risk, policy, assertion, metrics, access log"

    def __init__(self, core: set[int]) -> None:
        super().__init__(core)
        self.admin = f"http://127.0.0.1:{free_port()}"
        self.folder = BUILD / "sallyport"

    def version(self) -> str:
        return f"Sallyport {version('sallyport')}"

    def program(self, origin: str) -> Process:
        self.configure(origin)
        self._add_user()
        return Process("sallyport", python("-m", "gateway", "run", *self._config()), cores=self.core)

    def sign_in(self) -> None:
        """Through the form a browser uses."""
        login = f"{self.url}.sallyport/login"
        _, answered, page = fetch("GET", login, _BROWSER)
        fields = _Fields.of(page.decode()) | {"username": "bench", "password": PASSWORD}
        headers = {**_BROWSER, **_FORM, "Cookie": _cookies(answered), "Origin": self.url.rstrip("/")}
        status, answered, _ = fetch("POST", login, headers, urllib.parse.urlencode(fields).encode())
        session = [cookie for cookie in _cookies(answered).split("; ") if cookie.startswith("sallyport=")]
        if status != 303 or not session:
            raise RuntimeError(f"the sign-in was answered with {status}")
        self.headers = {"Cookie": session[0]}

    def _config(self) -> list[str]:
        return ["--config", str(self.folder / "config.yaml")]

    def configure(self, origin: str) -> None:
        """A folder with everything on, and no database yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.db*"):
            old.unlink()
        admin = self.admin.removeprefix("http://")
        _written("sallyport/policies.yaml", _RULES)
        _written(
            "sallyport/config.yaml",
            f"""\
listen: 127.0.0.1:{self.port}
admin_listen: {admin}
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
""",
        )

    def _add_user(self) -> None:
        add = python("-m", "gateway", "user", "add", "bench", "--password-stdin", *self._config())
        made = subprocess.run(add, cwd=ROOT, input=PASSWORD + "\n", capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"no user could be added: {made.stdout}{made.stderr}")


_RULES = """\
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

SUBJECTS: tuple[type[Subject], ...] = (Nginx, GoProxy, Caddy, OAuth2Proxy, Sallyport)
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_BROWSER = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def nginx(name: str, core: set[int], http: str) -> Process:
    """One nginx process in the foreground, nothing logged; `http` goes into its http block."""
    program = _needed("nginx")
    folder = BUILD / f"{name}-temp"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = _written(
        f"{name}.conf",
        f"""\
daemon off; master_process off; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; {temporary} {http} }}
""",
    )
    return Process(name, [program, "-c", str(config), "-e", "stderr"], cores=core)


def origin(core: set[int]) -> tuple[Process, str]:
    """150 bytes, faster than anything that is measured."""
    port = free_port()
    answer = f'server {{ listen 127.0.0.1:{port}; default_type text/plain; return 200 "{BODY}"; }}'
    return nginx("origin", core, answer), f"http://127.0.0.1:{port}"


def fetch(
    method: str, url: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, list[tuple[str, str]], bytes]:
    """One request; redirects are answers like any other."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


def _cookies(headers: list[tuple[str, str]]) -> str:
    return "; ".join(value.split(";")[0] for name, value in headers if name.lower() == "set-cookie")


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


def _needed(program: str) -> str:
    found = find(program)
    if found is None:
        raise LeftOutError(f"{program} is not here")
    return found


def _written(name: str, text: str) -> Path:
    path = BUILD / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
