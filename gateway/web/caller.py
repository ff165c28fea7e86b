"""One request as the front desk sees it.

The wire tells who is at the other end in `Sallyport-*` headers, which it takes away from clients. Only the wire can
reach our socket, so they are believed. Cookies come untouched; a cookie of ours that comes twice counts as none,
for one of the two was planted (a cookie named `__Host-…` cannot be).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.core.cookies import Cookies
from gateway.core.errors import Broken, SallyportError
from gateway.core.events import Place
from gateway.core.facts import Facts
from gateway.core.languages import ENGLISH, chosen, wanted
from gateway.crypto.tokens import new_token
from gateway.identity.cookie import SessionCookie
from gateway.web.desk import DESK

if TYPE_CHECKING:
    from gateway.core.identity import Identity
    from gateway.core.rule import StepUpDemand

CREDENTIALS = web.AppKey("credentials", dict[str, SessionCookie])
"""How the session cookie is read, by scheme."""

_VALUE = re.compile(r"[A-Za-z0-9._~-]{16,512}", re.ASCII)


class NotTheWire(SallyportError):  # noqa: N818 - the state is the name
    """Somebody other than the wire speaks on our socket."""


class NobodyHere(SallyportError):  # noqa: N818
    """This needs somebody who is signed in."""


class ProofTooOld(SallyportError):  # noqa: N818
    """This needs a fresh proof: the password again (`demand.level` aal1), or a second factor (aal2)."""

    def __init__(self, demand: StepUpDemand) -> None:
        super().__init__("a fresh proof is needed")
        self.demand = demand


class Caller:
    """Who asks, from where, with which of our cookies."""

    __slots__ = (
        "_credential",
        "_identity",
        "_known",
        "browser",
        "chosen",
        "cookies",
        "crumbs",
        "facts",
        "language",
        "new_browser",
    )

    def __init__(
        self, facts: Facts, credential: SessionCookie, accept_language: str = "", default: str = ENGLISH
    ) -> None:
        """`default`: the language for somebody who asks for none of ours."""
        self.facts = facts
        self.cookies = Cookies.over(facts.scheme)
        self.crumbs = read_cookies(facts.cookie)
        browser = self.crumbs.get(self.cookies.browser)
        self.new_browser = browser is None
        """Whether `browser` still has to be told to the browser."""
        self.browser = browser or new_token()
        """A random name of this browser; forms and interrupted requests are bound to it."""
        self.chosen = chosen(facts.cookie, self.cookies.language)
        """The language they chose here; empty: none."""
        self.language = wanted(self.chosen, accept_language, default)
        """What they are spoken to in."""
        self._credential = credential
        self._identity: Identity | None = None
        self._known = False

    @property
    def origin(self) -> str:
        """As browsers write it in `Origin`."""
        port = f":{self.facts.port}" if self.facts.port else ""
        return f"{self.facts.scheme}://{self.facts.host}{port}"

    @property
    def place(self) -> Place:
        """Where this comes from, as the ledger wants to know it."""
        return Place(self.facts.address, self.facts.agent, self.facts.request_id)

    @property
    def token(self) -> str:
        """The session's secret, as the cookie holds it; empty without one."""
        try:
            return self._credential.token(self.facts.cookie)
        except Broken:
            return ""

    async def identity(self) -> Identity | None:
        """Who is signed in, if anybody. A damaged or doubled cookie is nobody's, as at the gate."""
        if not self._known:
            try:
                self._identity = await self._credential.identify(self.facts)
            except Broken:
                self._identity = None
            self._known = True
        return self._identity

    async def signed_in(self) -> Identity:
        """Who is signed in. Raises `NobodyHere`."""
        identity = await self.identity()
        if identity is None or identity.session is None:
            raise NobodyHere("nobody is signed in")
        return identity


CALLER = web.RequestKey("caller", Caller)


def introduce(request: web.Request) -> Caller:
    """The caller of `request`, from what the wire says. Raises `NotTheWire`."""
    headers = request.headers
    scheme = headers.get("Sallyport-Scheme", "")
    authority = headers.get("Sallyport-Host", "")
    address = headers.get("Sallyport-Client-Address", "")
    credential = request.app[CREDENTIALS].get(scheme)
    if credential is None or not authority or not address:
        raise NotTheWire("the wire's headers are missing")
    host, port = _split(authority)
    return Caller(
        Facts(
            method=request.method,
            host=host,
            port=port,
            path=request.path,
            query=request.query_string,
            scheme=scheme,
            target=request.raw_path.encode("latin-1", "replace"),
            address=address,
            network=headers.get("Sallyport-Client-Network", address),
            agent=headers.get("User-Agent", "")[:512],
            cookie="; ".join(headers.getall("Cookie", ())).encode("latin-1", "surrogateescape"),
            request_id=headers.get("Sallyport-Request-Id", ""),
        ),
        credential,
        ",".join(headers.getall("Accept-Language", ())),
        request.app[DESK].language,
    )


def read_cookies(cookie: bytes) -> Mapping[str, str]:
    """Name → value of every well-formed cookie that came exactly once."""
    found: dict[str, list[str]] = {}
    for crumb in cookie.decode("latin-1").split(";"):
        name, _, value = crumb.strip().partition("=")
        found.setdefault(name, []).append(value)
    return {name: values[0] for name, values in found.items() if len(values) == 1 and _VALUE.fullmatch(values[0])}


def _split(authority: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if colon and port.isdigit():
        return host, int(port)
    return authority, 0
