"""The peers. Each subject is up when `up` returns, before the origin it is given, and down after `down`.

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
from pathlib import Path
from typing import Self

from bench.machine import BUILD, ROOT, Process, find, free_port, said
from bench.provider import provider

_APACHE_MODULES = Path("/usr/lib/apache2/modules")
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
        return "nginx " + said(needed("nginx"), "-v").rpartition("/")[2]

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
        return "Caddy " + said(needed("caddy"), "version").split(" ")[0]

    def program(self, origin: str) -> Process:
        caddy = needed("caddy")
        config = written(
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
        return said(needed("go"), "version").split(" ")[2].replace("go", "Go ", 1)

    def program(self, origin: str) -> Process:
        command = [built("goproxy"), f"127.0.0.1:{self.port}", origin]
        return Process("goproxy", command, cores=self.core, environment={"GOMAXPROCS": "1"})


class OAuth2Proxy(Subject):
    """The peer most people would put there: a cookie session and nothing else, its logs off."""

    name = "oauth2-proxy"
    does = "cookie session"

    def version(self) -> str:
        return said(needed("oauth2-proxy"), "--version").split(" (")[0]

    def program(self, origin: str) -> Process:
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
        users = written("htpasswd", f"bench:{{SHA}}{digest}\n")
        command = [
            needed("oauth2-proxy"),
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
        status, answered, _ = fetch("POST", f"{self.url}oauth2/sign_in", FORM, form.encode())
        self.headers = {"Cookie": cookies_of(answered)}
        if status != 302 or not self.headers["Cookie"]:
            raise RuntimeError(f"oauth2-proxy answered {status} to the sign-in")


class Apache(Subject):
    """A peer with the same task as oauth2-proxy, for machines that cannot have it: OpenID Connect, then a sealed
    session in a cookie that is opened again with every request. One process, as many threads as connections."""

    name = "Apache mod_auth_openidc"
    does = "cookie session"

    def version(self) -> str:
        found = said("dpkg-query", "--show", "--showformat", "${Version}", "libapache2-mod-auth-openidc")
        apache = said(needed("apache2"), "-v").partition("Apache/")[2].split(" ")[0]
        return f"Apache {apache}, module {found.split('-')[0]}"

    def program(self, origin: str) -> Process:
        program, folder = needed("apache2"), BUILD / "apache"
        modules = ("mpm_event", "authn_core", "authz_core", "authz_user", "proxy", "proxy_http", "auth_openidc")
        if not (_APACHE_MODULES / "mod_auth_openidc.so").exists():
            raise LeftOutError("mod_auth_openidc is not here")
        self._provider, self._secret = free_port(), secrets.token_urlsafe(48)
        config = written(
            "apache/httpd.conf",
            "\n".join(f"LoadModule {name}_module {_APACHE_MODULES}/mod_{name}.so" for name in modules)
            + f"""
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog /dev/stderr
User www-data
Group www-data
ServerName 127.0.0.1
Listen 127.0.0.1:{self.port}
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
KeepAlive On
MaxKeepAliveRequests 0
ProxyPass / {origin}/ keepalive=On
OIDCProviderMetadataURL http://127.0.0.1:{self._provider}/
OIDCProviderTokenEndpointAuth client_secret_post
OIDCIDTokenSignedResponseAlg HS256
OIDCClientID bench
OIDCClientSecret {self._secret}
OIDCRedirectURI {self.url}signed-in
OIDCCryptoPassphrase {secrets.token_urlsafe(32)}
OIDCSessionType client-cookie
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
""",
        )
        return Process("apache", [program, "-X", "-f", str(config)], cores=self.core)

    def sign_in(self) -> None:
        """As a browser goes: here, to the provider, back with a code."""
        with provider(self._provider, "bench", self._secret):
            _, answered, _ = fetch("GET", self.url, {"Accept": "text/html"})
            state = {"Cookie": cookies_of(answered)}
            _, answered, _ = fetch("GET", _location(answered), {})
            status, answered, _ = fetch("GET", _location(answered), state)
        session = [
            cookie for cookie in cookies_of(answered).split("; ") if cookie.startswith("mod_auth_openidc_session")
        ]
        if status != 302 or not session:
            raise RuntimeError(f"mod_auth_openidc answered {status} to the sign-in")
        self.headers = {"Cookie": "; ".join(session)}


PEERS: tuple[type[Subject], ...] = (Nginx, GoProxy, Caddy, OAuth2Proxy, Apache)
IDENTITY_PEERS = (OAuth2Proxy.name, Apache.name)
"""Which peer the gateway is compared with where identity is the work: the first of these that is here."""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def nginx(name: str, core: set[int], http: str) -> Process:
    """One nginx process in the foreground, nothing logged; `http` goes into its http block."""
    program = needed("nginx")
    folder = BUILD / f"{name}-temp"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = written(
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


def _location(headers: list[tuple[str, str]]) -> str:
    return next((value for name, value in headers if name.lower() == "location"), "")


def cookies_of(headers: list[tuple[str, str]]) -> str:
    return "; ".join(value.split(";")[0] for name, value in headers if name.lower() == "set-cookie")


def built(name: str) -> str:
    """The program of `bench/name`, compiled; LeftOutError without Go."""
    go, binary = needed("go"), BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    subprocess.run([go, "build", "-o", str(binary), "."], cwd=ROOT / "bench" / name, check=True)
    return str(binary)


def needed(program: str) -> str:
    found = find(program)
    if found is None:
        raise LeftOutError(f"{program} is not here")
    return found


def written(name: str, text: str) -> Path:
    path = BUILD / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
