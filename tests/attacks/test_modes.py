"""Case 79: what is wrong with a credential is wrong in the same way however a request comes in.

The ways: carried by us, as a WebSocket handshake, and asked about by nginx, Traefik, Caddy and Envoy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.rig.frames import HANDSHAKE
from tests.rig.gateway import Gateway, request, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that believes the proxies of this machine."""
    folder = Path(tmp_path_factory.mktemp("modes"))
    async with running(folder, config={"trusted_proxies": ["127.0.0.1/32"]}) as gateway:
        yield gateway


CLIENT = b"X-Forwarded-For: 192.0.2.7\r\n"


def _auth(dialect: bytes, *head: bytes) -> bytes:
    return request(b"GET", b"/.sallyport/auth" + dialect, b"".join(head) + CLIENT)


def _forwarded(dialect: bytes, target: bytes) -> bytes:
    uri = b"X-Forwarded-Uri: " + target + b"\r\n"
    return _auth(dialect, b"X-Forwarded-Method: GET\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: good.test\r\n", uri)


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "carried": lambda target: request(b"GET", target, CLIENT),
    "websocket": lambda target: request(b"GET", target, CLIENT + HANDSHAKE),
    "traefik": lambda target: _forwarded(b"/traefik", target),
    "caddy": lambda target: _forwarded(b"/caddy", target),
    "nginx": lambda target: _auth(
        b"/nginx", b"X-Original-Method: GET\r\n", b"X-Original-URL: http://good.test" + target + b"\r\n"
    ),
    "envoy": lambda target: _auth(b"/envoy" + target, b"X-Forwarded-Proto: http\r\n"),
}

BROKEN = {
    "none": b"",
    "malformed": b"Cookie: sallyport=x\r\n",
    "empty": b"Cookie: sallyport=\r\n",
    "without a value": b"Cookie: sallyport\r\n",
    "unknown": b"Cookie: sallyport=" + b"a" * 43 + b"\r\n",
    "truncated": b"Cookie: %SESSION-8%\r\n",
    "altered": b"Cookie: %SESSION-1%a\r\n",
    "8 KiB": b"Cookie: sallyport=" + b"a" * 8192 + b"\r\n",
    "not ASCII": b"Cookie: sallyport=\xff\xfe\r\n",
    "twice": b"Cookie: %SESSION%; %SESSION%\r\n",
    "in two lines": b"Cookie: %SESSION%\r\nCookie: sallyport=x\r\n",
    "other case": b"Cookie: S%SESSION+1%\r\n",
    "other prefix": b"Cookie: __Host-%SESSION%\r\n",
    "as a bearer": b"Authorization: Bearer %SESSION+10%\r\n",
}


def _filled(line: bytes, session: bytes) -> bytes:
    for mark, value in {
        b"%SESSION-8%": session[:-8],
        b"%SESSION-1%a": session[:-1] + (b"a" if session[-1:] != b"a" else b"b"),
        b"%SESSION+10%": session[10:],
        b"%SESSION+1%": session[1:],
        b"%SESSION%": session,
    }.items():
        line = line.replace(mark, value)
    return line


@pytest.mark.parametrize("way", WAYS)
async def test_case_79_a_broken_session_is_nobody(asked: Gateway, way: str) -> None:
    session = await asked.cookie("bob")
    for name, line in BROKEN.items():
        asked.upstream.clear()
        for target, status in ((b"/app/x", 401), (b"/admin/x", 401)):
            raw = WAYS[way](target).removesuffix(b"\r\n") + _filled(line, session) + b"\r\n"
            answer = await asked.ask(raw)
            assert answer.status == status, (name, answer.raw)
            said = answer.raw + answer.body
            assert b"bob" not in said
            assert session.partition(b"=")[2] not in said
            assert not answer.names & {"x-forwarded-user", "remote-user", "sallyport-assertion"}
        assert asked.upstream.requests == [], name
        public = await asked.ask(WAYS[way](b"/public/x").removesuffix(b"\r\n") + _filled(line, session) + b"\r\n")
        assert public.status in ((200, 502) if way == "websocket" else (200,)), (name, public.raw)
        assert not public.all("X-Forwarded-User"), name
        assert not any(received.all("X-Forwarded-User") for received in asked.upstream.requests), name


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_ways_let_somebody_in(asked: Gateway, way: str) -> None:
    """Without this, the test above would hold for a gateway that lets nobody in."""
    asked.upstream.clear()
    line = b"Cookie: " + await asked.cookie("bob") + b"\r\n"
    answer = await asked.ask(WAYS[way](b"/app/x").removesuffix(b"\r\n") + line + b"\r\n")
    assert answer.status in ((200, 502) if way == "websocket" else (200,)), answer.raw
    if way in ("carried", "websocket"):
        assert asked.upstream.only.all("X-Forwarded-User") == [b"bob"]
    else:
        assert answer.all("X-Forwarded-User") == [b"bob"]
    forbidden = await asked.ask(WAYS[way](b"/foo/secret").removesuffix(b"\r\n") + line + b"\r\n")
    assert forbidden.status == 403
