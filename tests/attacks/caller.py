"""Somebody who sends strange requests, and what must become of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tests.rig.gateway import Gateway, answers_until_close, request
from tests.rig.messages import Request, Response

PROBE = b"GET /public/probe HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n\r\n"
"""A harmless request sent after a strange one: its answer must be its own."""

NESTED = b"GET /admin/smuggled HTTP/1.1\r\nHost: good.test\r\n\r\n"
"""What an attacker hides in a body."""

IDENTITY_HEADERS = (
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "sallyport-assertion",
)


@dataclass(frozen=True)
class Caller:
    """One client, the target it may ask for, and its session cookie."""

    gateway: Gateway
    target: bytes
    user: str = ""
    cookie: bytes = b""

    def request(
        self,
        method: bytes = b"GET",
        head: bytes = b"",
        body: bytes = b"",
        *,
        target: bytes | None = None,
        host: bytes = b"Host: good.test\r\n",
        version: bytes = b"HTTP/1.1",
    ) -> bytes:
        """A request of ours, exactly as spelled."""
        if target is None:
            target = self.target
        return request(method, target, head, body, host=host, version=version, cookie=self.cookie)

    async def is_rejected(self, *segments: bytes, status: Collection[int] = (400,), started: bool = False) -> Response:
        """Refused with `status`, closed, one event. `started`: the fault is in the body, so a head may have gone on,
        but never a whole request.
        """
        answers = await self.gateway.say(*segments)
        assert [answer.status in status for answer in answers] == [True], [answer.raw for answer in answers]
        self.reached_nobody(started=started)
        assert await self.gateway.rejections() == 1
        return answers[0]

    def reached_nobody(self, *, started: bool = False) -> None:
        """No service was asked."""
        came = self.gateway.upstream.requests + self.gateway.other.requests
        assert [request.raw for request in came if request.complete or not started] == []

    async def is_denied(self, raw: bytes, method: str = "GET") -> Response:
        """Answered like somebody who may not, and nothing reached a service."""
        answer = await self.gateway.ask(raw, method)
        assert answer.status == (403 if self.user else 401), answer.raw
        self.reached_nobody()
        return answer

    async def is_clean(self, raw: bytes, method: str = "GET") -> Request:
        """Answered 200; the service received exactly one request, with our identity headers or none."""
        answer = await self.gateway.ask(raw, method)
        assert answer.status == 200, (answer.raw, answer.body)
        received = self.gateway.upstream.only
        assert received.complete
        self.says_who_we_are(received)
        return received

    def says_who_we_are(self, received: Request) -> None:
        """The identity headers are ours, once each, or absent for a stranger."""
        users = received.all("X-Forwarded-User")
        if self.user and received.target.startswith(b"/app/"):
            assert users == [self.user.encode("ascii")]
            assert len(received.all("Sallyport-Assertion")) == 1
        elif not self.user:
            assert not received.names & set(IDENTITY_HEADERS), received.raw
        for name in IDENTITY_HEADERS:
            assert len(received.all(name)) <= 1
        assert received.all("X-Forwarded-For") == [b"127.0.0.1"]
        assert received.all("Host") == [b"good.test"]

    async def never_desyncs(self, *segments: bytes, method: str = "GET") -> list[Response]:
        """Send, then a harmless probe on the same connection. Refused, or answered; each answer belongs to its request.

        Returns the answers.
        """
        async with await self.gateway.connect() as client:
            await client.send(*segments, PROBE)
            first = await client.response(method)
            answers = [first, *await answers_until_close(client)]
        came = [received.target for received in self.gateway.upstream.requests if received.complete]
        assert not [target for target in came if b"smuggled" in target]
        if first.status >= 400:
            assert came in ([], [b"/public/probe"]), came
            assert len(answers) <= 2
        else:
            assert came[:1] == [self.target]
            assert came in ([self.target], [self.target, b"/public/probe"])
            assert len(answers) == len(came)
        if len(answers) == 2:
            assert answers[1].body == b"GET /public/probe 0"
        return answers
