from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.core.clock import ManualClock
from gateway.core.errors import Undelivered
from gateway.core.message import Message
from gateway.notify.webhook import WebhookSender, signed
from tests.notify.conftest import letter

SECRET = b"s" * 32


@dataclass
class Hook:
    """A real HTTP server that keeps what it gets once, and answers what it was told to."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    late: float = 0.0
    cut: bool = False
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        if self.late:
            await asyncio.sleep(self.late)
        if self.cut and request.transport is not None:
            request.transport.abort()
        status, headers = self.answers.pop(0) if self.answers else (202, {})
        return web.Response(status=status, headers=headers)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    rig = Hook()
    app = web.Application()
    app.router.add_post("/hook", rig.take)
    server = TestServer(app)
    await server.start_server()
    rig.url = str(server.make_url("/hook"))
    yield rig
    await server.close()


async def send(hook: Hook, clock: ManualClock, message: Message | None = None, timeout: float = 3.0) -> None:
    sender = WebhookSender(hook.url, SECRET, clock, channel="email", timeout=timeout)
    try:
        await sender.send(message or letter())
    finally:
        await sender.close()


async def test_signed_as_the_standard_says(hook: Hook, clock: ManualClock) -> None:
    await send(hook, clock)
    (headers, body), at = hook.got[0], str(int(clock.now()))
    mac = hmac.new(SECRET, b"t1." + at.encode() + b"." + body, "sha256").digest()
    assert headers["webhook-id"] == "t1"
    assert headers["webhook-timestamp"] == at
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    assert orjson.loads(body) == {
        "id": "t1", "channel": "email", "kind": "password_changed", "to": "ann@example.com", "subject": "Hello",
        "text": "said in text\n", "html": "<p>said in HTML</p>\n",
    }  # fmt: skip


def test_the_vector_of_the_standard() -> None:
    """From the reference implementations of Standard Webhooks."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, b'{"test": 2432232314}')
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "headers", "final", "wait"),
    [
        (500, {}, False, 0.0),
        (503, {"Retry-After": "7"}, False, 7.0),
        (429, {"Retry-After": "999999"}, False, 3600.0),
        (429, {"Retry-After": "soon"}, False, 0.0),
        (408, {}, False, 0.0),
        (400, {}, True, 0.0),
        (401, {}, True, 0.0),
        (302, {"Location": "/elsewhere"}, True, 0.0),
    ],
)
async def test_what_answers_mean(
    hook: Hook, clock: ManualClock, status: int, headers: dict[str, str], final: bool, wait: float
) -> None:
    hook.answers.append((status, headers))
    with pytest.raises(Undelivered) as caught:
        await send(hook, clock)
    failure = caught.value
    assert (failure.final, failure.unsure, failure.retry_after) == (final, False, wait)
    assert len(hook.got) == 1, "redirects are not followed"


async def test_a_late_answer_and_none_are_no_answer(hook: Hook, clock: ManualClock) -> None:
    hook.late = 2.0
    unsure = []
    for timeout in (0.2, 0.5):  # on a busy machine it may already be late when the message is not there yet
        with pytest.raises(Undelivered) as caught:
            await send(hook, clock, timeout=timeout)
        unsure.append(caught.value.unsure)
    assert any(unsure)
    hook.late, hook.cut = 0.0, True
    with pytest.raises(Undelivered) as caught:
        await send(hook, clock)
    assert caught.value.unsure


async def test_nobody_there_is_certain(clock: ManualClock) -> None:
    with pytest.raises(Undelivered) as caught:
        await send(Hook(url="http://127.0.0.1:1/hook"), clock)
    assert (caught.value.unsure, caught.value.final) == (False, False)
