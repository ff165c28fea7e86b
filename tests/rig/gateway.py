"""The real application, in this process, between a raw client and a recording service."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from gateway.core.clock import ManualClock, SystemClock
from gateway.core.cookies import Cookies
from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT, Proof
from gateway.mfa.otp import new_secret
from tests.rig.client import PATIENCE, RawClient
from tests.rig.messages import Response, Truncated
from tests.rig.upstream import RecordingUpstream

if TYPE_CHECKING:
    from gateway.app import App
    from gateway.wire.client import ClientConnection

PASSWORD = "correct horse battery staple 42"
AGENT = "raw-client/1"
HOST = b"good.test"

POLICY = """
rules:
  - name: other-service
    match: {hosts: [good.test], paths: [/other/**]}
    access: public
    upstream: other
  - name: public
    match: {hosts: [good.test], paths: [/public/**]}
    access: public
    upstream: app
  - name: plain-path
    match: {hosts: [good.test], paths: [/healthz, /x/health, /foo/public]}
    access: public
    upstream: app
  - name: read-only
    match: {hosts: [good.test], paths: [/read/**], methods: [GET]}
    access: public
    upstream: app
  - name: post-only
    match: {hosts: [good.test], paths: [/post/**], methods: [POST]}
    access: public
    upstream: app
  - name: delete-is-for-admins
    match: {hosts: [good.test], paths: [/post/**], methods: [DELETE]}
    access: {groups: [admins]}
    upstream: app
  - name: roles
    match: {hosts: [good.test], paths: [/role/**], headers: {X-Role: admin}}
    access: {groups: [admins]}
    upstream: app
  - name: admin
    match: {hosts: [good.test], paths: [/admin/**]}
    access: {groups: [admins]}
    step_up: {level: aal2, factors: [totp]}
    upstream: app
    audience: app-admin
  - name: secret
    match: {hosts: [good.test], paths: [/foo/secret/**]}
    access: {groups: [admins]}
    upstream: app
  - name: admin-host
    match: {hosts: [admin.example.com]}
    access: {groups: [admins]}
    upstream: app
  - name: everything-else
    match: {hosts: [good.test]}
    access: authenticated
    upstream: app
"""


class Gateway:
    """A running gateway with its two services, `upstream` and `other`."""

    def __init__(self, app: App, clock: ManualClock, upstream: RecordingUpstream, other: RecordingUpstream) -> None:
        self.app = app
        self.clock = clock
        self.upstream = upstream
        self.other = other
        self.port, self.admin_port = app.ports
        self._cookies: dict[str, bytes] = {}
        self._rejected_before = 0

    async def restart(self, grace: float = 2.0) -> None:
        """Stop, and start anew on the same files, on other ports."""
        from gateway.app import App

        await self.app.stop(grace=grace)
        self.app = App(self.app.settings, clock=self.clock)
        await self.app.start()
        by_hand(self.app)
        self.port, self.admin_port = self.app.ports

    async def connect(self, *, buffers: int = 0) -> RawClient:
        """A new client connection."""
        return await RawClient.connect(self.port, buffers=buffers)

    def connection(self, client: RawClient) -> ClientConnection | None:
        """`client` as the gateway sees it; None while it does not."""
        for each in self.app.wire.clients:
            name = each._transport.get_extra_info("peername")
            if name and name[1] == client.port:
                return each
        return None

    async def heard(self, client: RawClient) -> None:
        """Wait until the gateway has read whatever `client` has sent."""

        def all_read() -> bool:
            there = self.connection(client)
            if there is None or client.on_the_way:
                return False
            return not struct.unpack("i", fcntl.ioctl(there.fileno(), termios.FIONREAD, bytes(4)))[0]

        async with asyncio.timeout(PATIENCE):
            while not all_read():
                await asyncio.sleep(0.001)

    async def cookie(self, user: str = "bob", *factors: str) -> bytes:
        """A `name=value` cookie of somebody who is signed in with their password and `factors`; remembered."""
        key = "/".join((user, *factors))
        if key not in self._cookies:
            self._cookies[key] = await self.sign_in(user, *factors)
        return self._cookies[key]

    async def sign_in(self, user: str, *factors: str) -> bytes:
        """A fresh session, without any page; `ann` is an admin, with a second factor, `bob` is not."""
        known = await self.app.users.find(user)
        if known is None:
            groups = ("admins",) if user == "ann" else ()
            known = await self.app.users.add(user, PASSWORD, email=f"{user}@good.test", groups=groups)
            if groups:
                await self.bind(known.tenant, known.subject)
        now = self.clock.now()
        token, _ = await self.app.sessions.open(known, Proof("password", now), address="127.0.0.1", agent=AGENT)
        for factor in factors:
            token, _ = await self.app.sessions.prove(token, Proof(factor, now))
        return f"{Cookies.over('http').session}={token}".encode("ascii")

    async def bind(self, tenant: str, subject: str) -> bytes:
        """Give somebody an authenticator app, without any page; its secret."""
        from gateway.mfa.totp import Totp

        records, secret, now = self.app.records, new_secret(), self.clock.now()
        async with records.begin(tenant, subject) as connection:
            totp = Totp(records, self.app.keys.sealer, self.clock)
            await totp.bind(connection, tenant, subject, secret=secret, label="", step=0, now=now)
            await records.bump(connection, tenant, subject)
        return secret

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, and have the data plane look at its deadlines."""
        self.clock.advance(seconds)
        self.app.wire.sweep(self.clock.monotonic())

    async def say(self, *segments: bytes) -> list[Response]:
        """Send on a connection of its own, hear every answer until the gateway closes; our half stays open."""
        async with await self.connect() as client:
            await client.send(*segments)
            return await answers_until_close(client)

    async def ask(self, raw: bytes, method: str = "GET") -> Response:
        """Send on a connection of its own, hear one answer."""
        async with await self.connect() as client:
            await client.send(raw)
            return await client.response(method)

    async def rejections(self) -> int:
        """How many requests were rejected, as the security events of the store say, since the last `mark`."""
        await self.app.recorder.flush()
        events = await self.app.recorder.events(DEFAULT_TENANT, limit=100_000, kind=Kind.REQUEST_REJECTED)
        return sum(int(event.detail.get("count", 1)) for event in events) - self._rejected_before

    async def mark(self) -> None:
        """Begin anew: forget what the services saw, count rejections from here."""
        self.upstream.clear()
        self.other.clear()
        self._rejected_before = 0
        self._rejected_before = await self.rejections()


def by_hand(app: App) -> None:
    """Nothing is swept but by `pass_time`, whose clock it is; and that the machine stands still is no news."""
    app.wire._timer.cancel()
    app.wire.admission.stop()


async def still(progress: Callable[[], object]) -> None:
    """Wait until nothing moves any more: `progress()` says the same for many turns of the loop, not only for long."""
    async with asyncio.timeout(PATIENCE):
        before, turns = progress(), 0
        while turns < 50:
            await asyncio.sleep(0.005)
            now = progress()
            before, turns = now, turns + 1 if now == before else 0


async def answers_until_close(client: RawClient) -> list[Response]:
    """Every answer until the other side closes."""
    answers: list[Response] = []
    while True:
        try:
            answers.append(await client.response())
        except Truncated as end:
            if "inside a head: b''" in str(end):
                return answers
            raise


def request(
    method: bytes = b"GET",
    target: bytes = b"/public/x",
    head: bytes = b"",
    body: bytes = b"",
    *,
    host: bytes = b"Host: good.test\r\n",
    version: bytes = b"HTTP/1.1",
    cookie: bytes = b"",
) -> bytes:
    """A request, exactly as spelled. `head`: further header lines, each with its own line end."""
    line = b"Cookie: " + cookie + b"\r\n" if cookie else b""
    agent = b"User-Agent: " + AGENT.encode("ascii") + b"\r\n"
    return b"%s %s %s\r\n%s%s%s%s\r\n%s" % (method, target, version, host, agent, line, head, body)


@asynccontextmanager
async def running(
    folder: Path, *, policy: str = POLICY, config: Mapping[str, object] | None = None, hurries: bool = False
) -> AsyncIterator[Gateway]:
    """Start a gateway whose every file is under `folder`; `config` overrides top-level entries of config.yaml.

    `hurries`: on the machine's clock, for what replicas do together in their own time.
    """
    from gateway import settings
    from gateway.app import App

    async with AsyncExitStack() as ending:
        upstream, other = RecordingUpstream(), RecordingUpstream()
        for service in (upstream, other):
            await service.start()
            ending.push_async_callback(service.stop)
        (folder / "policies").mkdir()
        (folder / "policies" / "rig.yaml").write_text(policy)
        document: dict[str, object] = {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "public_url": "http://good.test",
            "upstreams": {
                "app": {"url": f"http://127.0.0.1:{upstream.port}"},
                "other": {"url": f"http://127.0.0.1:{other.port}"},
            },
            "policies": str(folder / "policies"),
            "store": {"records": f"sqlite:{folder / 'data' / 'rig.db'}"},
            "keys": str(folder / "data" / "keys"),
            "log": {"access": str(folder / "access.log")},
            "connections": {"wait": "1m"},  # where a busy machine stands still, nobody is to be turned away
            **(config or {}),
        }
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(document))
        clock = ManualClock(float(int(time.time())))
        app = App(settings.load(path, {}), clock=SystemClock() if hurries else clock)
        await app.start()
        if not hurries:
            by_hand(app)
        gateway = Gateway(app, clock, upstream, other)
        ending.push_async_callback(lambda: gateway.app.stop(grace=2.0))
        yield gateway
