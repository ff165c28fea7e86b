"""One suite over every `Sender`: taken over, or `Undelivered`, and which of its three kinds.

A sender comes in with a `Trial`: itself, before a real server that does what it is told. What a server says in its own
protocol for "yes", "not now" and "never" is the trial's to know; what comes of it is the same for all of them.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest

import gateway.notify
from gateway.core.clock import ManualClock
from gateway.core.contracts import Sender
from gateway.core.errors import Undelivered
from gateway.core.message import Message, Receipt
from gateway.notify.console import ConsoleSender
from gateway.notify.smtp import SmtpSender, SmtpServer
from tests.rig.mail import mail_server
from tests.rig.providers import AWS_SECRET, HOOK_SECRET, PROVIDERS, SECRET, TOKEN, provider

SAID = "what only ann may read: 49 12 33"
TO = {"email": "ann@example.com", "sms": "+4915112345678"}
PATIENCE = 10.0
"""Seconds that a sender waits for an answer here, which nobody does who is not busy."""
HASTE = 0.3
"""Seconds that it waits for one that is late."""
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
    once: bool = False
    """Whether they see that a message is the one they took over before."""
    ids: Callable[[], list[str]] | None = None
    """What each message that arrived was known by; None where the protocol has no place for it."""


@asynccontextmanager
async def smtp() -> AsyncIterator[Trial]:
    async with mail_server() as rig:
        server = SmtpServer("localhost", rig.port, "none", timeout=PATIENCE)
        sender = SmtpSender(server, sender="gate@example.com", our_name="gate.example")

        def late() -> None:
            rig.late = 3 * HASTE
            sender._server = SmtpServer("localhost", rig.port, "none", timeout=HASTE)

        parts: dict[str, Callable[[], None]] = {
            "never": lambda: rig.rcpt.append("550 5.1.1 ann@example.com is nobody"),
            "not now": lambda: rig.rcpt.append("450 4.2.1 ann@example.com: later"),
            "nothing": lambda: rig.data.append("cut"),
            "late": late,
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
            ids=lambda: [one["Message-ID"].strip("<>").partition("@")[0] for one in rig.box],
        )


def over_http(name: str) -> Callable[[], AbstractAsyncContextManager[Trial]]:
    """A provider that is reached over HTTP."""

    @asynccontextmanager
    async def made() -> AsyncIterator[Trial]:
        async with provider(name, CLOCK) as rig:
            sender = rig.sender(timeout=PATIENCE)

            def late() -> None:
                rig.late = 3 * HASTE
                sender.__dict__.update(rig.sender(timeout=HASTE).__dict__)

            parts: dict[str, Callable[[], None]] = {
                "never": lambda: rig.answers.append(rig.refused()),
                "not now": lambda: rig.answers.append((503, {"Retry-After": "7"}, TO["sms"].encode())),
                "nothing": lambda: setattr(rig, "cut", True),
                "late": late,
            }

            def nobody() -> None:
                rig.url = "http://127.0.0.1:1"
                sender.__dict__.update(rig.sender(timeout=PATIENCE).__dict__)

            yield Trial(
                sender,
                "email" if name in ("ses", "webhook") else "sms",
                lambda: [(one.to, one.text) for one in rig.box],
                lambda how: parts[how](),
                nobody,
                (TOKEN, SECRET, AWS_SECRET, HOOK_SECRET.decode()),
                once=name == "webhook",
            )

    return made


SENDERS: dict[str, Callable[[], AbstractAsyncContextManager[Trial]]] = {
    "smtp": smtp,
    **{name: over_http(name) for name in PROVIDERS},
}
"""Those that hand over to somebody else. The console has nobody to hand over to, and a test of its own."""


def test_every_sender_there_is_is_tried() -> None:
    folder = Path(gateway.notify.__file__).parent
    names = [
        name.removesuffix("Sender").lower()
        for file in folder.glob("*.py")
        for name in re.findall(r"^class (\w+Sender)\b", file.read_text(), re.MULTILINE)
    ]
    assert sorted(names) == sorted([*SENDERS, "console"])


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
    assert len(trial.took()) == (2 if trial.once else 3)
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
    for _ in range(3):  # on a busy machine it may already be late when the message is not there yet
        failed = await fails(trial)
        if failed.unsure:
            break
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
