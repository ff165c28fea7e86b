"""One suite over every `Sender`: taken over, or `Undelivered`, and which of its three kinds.

A sender comes in with a `Trial`: itself, before a real server that does what it is told. What a server says in its own
protocol for "yes", "not now" and "never" is the trial's to know; what comes of it is the same for all of them.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.core.clock import ManualClock
from gateway.core.contracts import Sender
from gateway.core.errors import Undelivered
from gateway.core.message import Message, Receipt
from gateway.notify.console import ConsoleSender
from gateway.notify.smtp import SmtpSender, SmtpServer
from gateway.notify.webhook import WebhookSender
from tests.rig.mail import mail_server

SAID = "what only ann may read: 49 12 33"
TO = {"email": "ann@example.com", "sms": "+4915112345678"}
PATIENCE = 0.3
"""Seconds that a sender waits for an answer here."""
CLOCK = ManualClock()
SERVERS = {"mail.log", "aiohttp.access", "aiohttp.server"}
"""Logs of the servers of this suite."""


@dataclass
class Trial:
    """One sender and whoever it hands messages to."""

    sender: Sender
    channel: str
    took: Callable[[], list[tuple[str, str]]]
    """What has arrived: `(to, everything that was said)`."""
    next: Callable[[str], None]
    """What the next message is answered with: `never`, `not now`, `nothing` (taken, and no word), `late`."""
    leave: Callable[[], None]
    """Have nobody there any more."""
    secrets: tuple[str, ...] = ()
    """What we prove ourselves with."""
    ids: Callable[[], list[str]] | None = None
    """What each message that arrived was known by; None where the protocol has no place for it."""


@asynccontextmanager
async def smtp() -> AsyncIterator[Trial]:
    async with mail_server() as rig:
        server = SmtpServer("localhost", rig.port, "none", timeout=PATIENCE)
        sender = SmtpSender(server, sender="gate@example.com", our_name="gate.example")
        parts: dict[str, Callable[[], None]] = {
            "never": lambda: rig.rcpt.append("550 5.1.1 ann@example.com is nobody"),
            "not now": lambda: rig.rcpt.append("450 4.2.1 ann@example.com: later"),
            "nothing": lambda: rig.data.append("cut"),
            "late": lambda: setattr(rig, "late", 3 * PATIENCE),
        }

        def text(message: EmailMessage) -> str:
            return "\n".join(part.get_content() for part in message.walk() if not part.is_multipart())

        def nobody() -> None:
            sender._server = SmtpServer("localhost", 1, "none", timeout=PATIENCE)

        yield Trial(
            sender,
            "email",
            lambda: [(to, f"{one['Subject']}\n{text(one)}") for to, one in zip(rig.to, rig.box, strict=True)],
            lambda how: parts[how](),
            nobody,
            (),
            lambda: [one["Message-ID"].strip("<>").partition("@")[0] for one in rig.box],
        )


@dataclass
class Http:
    """A server for those that speak HTTP: it takes what comes, or answers what it was told to."""

    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    yes: tuple[int, dict[str, str], bytes] = (200, {}, b"")
    cut: bool = False
    late: float = 0.0
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        status, headers, said = self.answers.pop(0) if self.answers else self.yes
        if status < 300:
            self.got.append((dict(request.headers), body))
        if self.late:
            await asyncio.sleep(self.late)
        if self.cut and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status, headers=headers, body=said)

    def next(self, how: str, *, never: int = 400, words: bytes = b"") -> None:
        """As `Trial.next`."""
        if how == "never":
            self.answers.append((never, {}, words or b"ann@example.com is nobody"))
        elif how == "not now":
            self.answers.append((503, {"Retry-After": "7"}, words))
        elif how == "nothing":
            self.cut = True
        else:
            self.late = 3 * PATIENCE


@asynccontextmanager
async def http() -> AsyncIterator[Http]:
    rig = Http()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", rig.take)
    server = TestServer(app)
    await server.start_server()
    rig.url = str(server.make_url("/"))
    try:
        yield rig
    finally:
        await server.close()


@asynccontextmanager
async def webhook() -> AsyncIterator[Trial]:
    async with http() as rig:
        sender = WebhookSender(rig.url + "hook", b"secret-of-ours" * 3, CLOCK, channel="email", timeout=PATIENCE)

        def took() -> list[tuple[str, str]]:
            bodies = [orjson.loads(body) for _, body in rig.got]
            return [(one["to"], f"{one['subject']}\n{one['text']}\n{one['html']}") for one in bodies]

        def nobody() -> None:
            sender._api.url = "http://127.0.0.1:1/hook"

        yield Trial(
            sender,
            "email",
            took,
            rig.next,
            nobody,
            ("secret-of-ours",),
            lambda: [headers["webhook-id"] for headers, _ in rig.got],
        )


SENDERS: dict[str, Callable[[], AbstractAsyncContextManager[Trial]]] = {"smtp": smtp, "webhook": webhook}
"""Those that hand over to somebody else. The console has nobody to hand over to, and a test of its own."""


@pytest.fixture(params=sorted(SENDERS))
async def trial(request: pytest.FixtureRequest) -> AsyncIterator[Trial]:
    async with SENDERS[request.param]() as made:
        yield made
        await made.sender.close()


def message(trial: Trial, *, to: str = "", token: str = "t-1", subject: str = "Hello") -> Message:
    return Message(
        token, "password_changed", to or TO[trial.channel], subject, f"{SAID}\n", f"<p>{SAID}</p>\n", 1_700_000_000.0
    )


async def fails(trial: Trial, one: Message | None = None) -> Undelivered:
    """How it fails; whoever reads that reads nothing of the message, of the address, of our secrets."""
    with pytest.raises(Undelivered) as caught:
        await trial.sender.send(one or message(trial))
    failed = caught.value
    told = f"{failed} {failed!r} {failed.why} {failed.__cause__!r} {trial.sender!r}"
    for hidden in (SAID, "49 12 33", TO[trial.channel], "ann@", *trial.secrets):
        assert hidden not in told
    assert failed.why
    assert not (failed.final and failed.unsure), "who does not know whether it went cannot know that it never will"
    return failed


async def test_a_message_is_taken_over_once_and_whole(trial: Trial) -> None:
    receipt = await trial.sender.send(message(trial))
    assert isinstance(receipt, Receipt)
    ((to, said),) = trial.took()
    assert to == TO[trial.channel]
    assert SAID in said


async def test_it_is_the_same_one_at_each_try(trial: Trial) -> None:
    await trial.sender.send(message(trial))
    await trial.sender.send(message(trial))
    await trial.sender.send(message(trial, token="t-2"))
    assert len(trial.took()) == 3
    if trial.ids is not None:
        assert trial.ids() == ["t-1", "t-1", "t-2"]


async def test_many_at_once_each_arrive_once(trial: Trial) -> None:
    await asyncio.gather(*(trial.sender.send(message(trial, token=f"t-{number}")) for number in range(8)))
    assert len(trial.took()) == 8
    if trial.ids is not None:
        assert sorted(trial.ids()) == [f"t-{number}" for number in range(8)]


async def test_letters_of_every_kind(trial: Trial) -> None:
    words = "Größe — 数字 · şifre 🔑"
    await trial.sender.send(Message("t", "k", TO[trial.channel], "Hello", words, f"<p>{words}</p>"))
    assert words in trial.took()[0][1]


async def test_never_is_final(trial: Trial) -> None:
    trial.next("never")
    failed = await fails(trial)
    assert (failed.final, failed.unsure) == (True, False)
    assert trial.took() == []
    await trial.sender.send(message(trial))
    assert len(trial.took()) == 1, "the next one goes through"


async def test_not_now_may_be_tried_again(trial: Trial) -> None:
    trial.next("not now")
    failed = await fails(trial)
    assert (failed.final, failed.unsure) == (False, False)
    assert failed.retry_after >= 0.0
    assert trial.took() == []
    await trial.sender.send(message(trial))
    assert len(trial.took()) == 1


@pytest.mark.parametrize("how", ["nothing", "late"])
async def test_no_answer_to_a_whole_message_is_not_known(trial: Trial, how: str) -> None:
    trial.next(how)
    failed = await fails(trial)
    assert (failed.final, failed.unsure) == (False, True)


async def test_nobody_there_is_known_for_certain(trial: Trial) -> None:
    trial.leave()
    failed = await fails(trial)
    assert (failed.final, failed.unsure) == (False, False)


@pytest.mark.parametrize("tail", ["\r\nBcc: eve@example.com", "\nTo: +4915100000000", ", eve@example.com", "\0"])
async def test_an_address_is_one_address(trial: Trial, tail: str) -> None:
    """Whatever it becomes, nobody else gets it: refused, or handed over as the one value that it is."""
    sending = trial.sender.send(message(trial, to=TO[trial.channel] + tail))
    (got,) = await asyncio.gather(sending, return_exceptions=True)
    assert isinstance(got, Receipt) or (isinstance(got, Undelivered) and got.final)
    assert [to for to, _ in trial.took() if to != TO[trial.channel] + tail] == []


async def test_whoever_is_told_to_stop_stops(trial: Trial) -> None:
    trial.next("late")
    sending = asyncio.create_task(trial.sender.send(message(trial)))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_nothing_of_it_is_in_the_log(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sallyport")
    caplog.set_level(logging.DEBUG, "gateway")
    caplog.set_level(logging.INFO)
    await trial.sender.send(message(trial))
    trial.next("never")
    await fails(trial)
    written = " ".join(record.getMessage() for record in caplog.records if record.name not in SERVERS)
    for hidden in (SAID, TO[trial.channel], *trial.secrets):
        assert hidden not in written


async def test_it_can_be_closed_again_and_again(trial: Trial) -> None:
    await trial.sender.close()
    await trial.sender.send(message(trial))
    await trial.sender.close()
    await trial.sender.close()
    assert len(trial.took()) == 1


async def test_the_console_shows_what_it_is_given() -> None:
    out = io.StringIO()
    sender: Sender = ConsoleSender(out)
    assert sender.name == "console"
    assert await sender.send(Message("t", "k", "ann@example.com", "Hello", SAID, "")) == Receipt()
    await sender.close()
    assert SAID in out.getvalue()
    assert out.getvalue().count("ann@example.com") == 1
    assert SAID not in repr(sender)
