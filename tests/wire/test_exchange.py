"""What a service gets is what was judged: nothing of the client's stands beside or behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.core.cookies import Cookies
from gateway.core.identity import Proof
from gateway.mfa.interrupted import Interrupted
from tests.rig.client import PATIENCE
from tests.rig.gateway import AGENT, PASSWORD, Gateway, request, running
from tests.rig.messages import Request
from tests.rig.upstream import Line, ok

FORM = b"application/x-www-form-urlencoded"
SMUGGLED = b"POST /admin/x HTTP/1.1\r\nHost: good.test\r\nX-Forwarded-User: ann\r\nContent-Length: 0\r\n\r\n"


async def _interrupted(gateway: Gateway, *more: tuple[bytes, bytes]) -> bytes:
    """The cookies of a browser that comes back to `/x`, where it was sending a form."""
    bob = await gateway.app.users.add("bob", PASSWORD)
    proof = Proof("password", gateway.clock.now())
    token, identity = await gateway.app.sessions.open(bob, proof, address="127.0.0.1", agent=AGENT)
    assert identity.session is not None
    head = ((b"Host", b"good.test"), (b"Content-Type", FORM), (b"Content-Length", b"3"), *more)
    kept = Interrupted("POST", "good.test", b"/x", head, b"a=1")
    ticket = await gateway.app.people.interrupted.keep(f"session:{identity.session.id}", kept)
    cookies = Cookies.over("http")
    return f"{cookies.session}={token}; {cookies.resume}={ticket}".encode()


async def test_an_interrupted_request_goes_on_with_its_own_body(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        cookie = await _interrupted(gateway)
        assert (await gateway.ask(request(target=b"/x", cookie=cookie))).body == b"POST /x 3"


async def test_an_interrupted_request_comes_from_where_its_browser_is_now(tmp_path: Path) -> None:
    async with running(tmp_path, config={"trusted_proxies": ["127.0.0.1/32"]}) as gateway:
        cookie = await _interrupted(gateway, (b"X-Forwarded-For", b"192.0.2.1"))
        head = b"X-Forwarded-For: 203.0.113.9\r\n"
        assert (await gateway.ask(request(target=b"/x", head=head, cookie=cookie))).status == 200
        (seen,) = gateway.upstream.requests
    assert [value for name, value in seen.headers if name == b"X-Forwarded-For"] == [b"203.0.113.9, 127.0.0.1"]


async def test_what_was_said_of_its_way_before_is_not_believed_later(tmp_path: Path) -> None:
    """Kept when nobody believed it, it must not count because the browser now comes by a trusted proxy."""
    config = {"trusted_proxies": ["127.0.0.1/32"], "forwarded_header": "forwarded"}
    async with running(tmp_path, config=config) as gateway:
        cookie = await _interrupted(gateway, (b"Forwarded", b"for=10.0.0.1"))
        for said in (b"", b"Forwarded: for=203.0.113.9\r\n"):
            assert (await gateway.ask(request(target=b"/x", head=said, cookie=cookie))).status == 200
            sent = gateway.upstream.requests[-1]
            told = [b"203.0.113.9, 127.0.0.1"] if said else [b"127.0.0.1"]
            assert [value for name, value in sent.headers if name == b"X-Forwarded-For"] == told
            assert sent.method == (b"GET" if said else b"POST")


async def test_case_22_nothing_follows_an_interrupted_request_to_its_service(tmp_path: Path) -> None:
    """The GET that continues it may have a body, which must not become a request of its own behind the kept one."""
    for framing, body in (
        (b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
        (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    ):
        (folder := tmp_path / framing[:7].decode()).mkdir()
        async with running(folder) as gateway:
            cookie = await _interrupted(gateway)
            reached, sent = asyncio.Event(), asyncio.Event()

            async def heard(_: Request, line: Line, reached: asyncio.Event = reached) -> None:
                reached.set()

            async def late(_: Request, line: Line, sent: asyncio.Event = sent) -> None:
                await sent.wait()
                await line.send(ok())

            gateway.upstream.on_head, gateway.upstream.script = heard, late
            async with await gateway.connect() as client:
                await client.send(request(target=b"/x", head=framing, cookie=cookie))
                await asyncio.wait_for(reached.wait(), PATIENCE)
                await client.send(body)
                await gateway.heard(client)
                sent.set()
                await client.response()
            assert [(one.method, one.target) for one in gateway.upstream.requests] == [(b"GET", b"/x")]
            assert gateway.upstream.violations == []


async def test_case_52_a_header_of_the_rule_stands_alone(tmp_path: Path) -> None:
    policy = """
rules:
  - name: fixed
    access: public
    upstream: app
    headers: {X-Role: guest, Authorization: Basic Z3Vlc3Q6}
"""
    spoofed = b"X-Role: admin\r\nx_role: admin\r\nX.ROLE: admin\r\nAuthorization: Basic YWRtaW46\r\nX-Other: stays\r\n"
    async with running(tmp_path, policy=policy) as gateway:
        assert (await gateway.ask(request(head=spoofed))).status == 200
        (seen,) = gateway.upstream.requests
    said = [header for header in seen.headers if header[0].lower().replace(b"_", b"-").startswith((b"x-", b"auth"))]
    assert (b"X-Role", b"guest") in said
    assert (b"Authorization", b"Basic Z3Vlc3Q6") in said
    assert (b"X-Other", b"stays") in said
    assert not any(b"admin" in value or b"YWRtaW46" in value for _, value in seen.headers)


async def test_case_54_a_rule_is_chosen_by_headers_that_its_service_sees(tmp_path: Path) -> None:
    """Named away in `Connection`, or spelled so that the service does not know it, a header opens nothing."""
    policy = """
rules:
  - {name: open, match: {headers: {X-View: public}}, access: public, upstream: app}
  - {name: rest, access: authenticated, upstream: app}
"""
    async with running(tmp_path, policy=policy) as gateway:
        for head, status in (
            (b"", 401),
            (b"X-View: public\r\n", 200),
            (b"X-View: public\r\nConnection: close, X-View\r\n", 401),
            (b"X-View: public\r\nConnection: keep-alive\r\nConnection: x-view\r\n", 401),
            (b"X_View: public\r\n", 403),
        ):
            assert (await gateway.ask(request(head=head))).status == status, head
        assert len(gateway.upstream.requests) == 1
