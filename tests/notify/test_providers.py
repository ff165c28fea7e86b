"""What holds of every provider's API, and what is each one's own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.core.clock import ManualClock
from gateway.core.contracts import Sender
from gateway.core.errors import Undelivered
from gateway.core.message import Message, Receipt
from gateway.notify.api import LARGEST
from tests.rig.providers import (
    ACCOUNT,
    API_KEY,
    API_SECRET,
    NUMBER,
    PROVIDERS,
    Provider,
    Ses,
    Sns,
    Twilio,
    Vonage,
    provider,
)

TEXT = "271828 is your code.\n\n@gate.example #271828"


@pytest.fixture(params=PROVIDERS)
async def rig(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Provider]:
    async with provider(request.param, clock) as made:
        yield made


@pytest.fixture
async def twilio(clock: ManualClock) -> AsyncIterator[Provider]:
    async with provider("twilio", clock) as made:
        yield made


@pytest.fixture
async def vonage(clock: ManualClock) -> AsyncIterator[Provider]:
    async with provider("vonage", clock) as made:
        yield made


@pytest.fixture
async def sns(clock: ManualClock) -> AsyncIterator[Provider]:
    async with provider("sns", clock) as made:
        yield made


@pytest.fixture
async def ses(clock: ManualClock) -> AsyncIterator[Provider]:
    async with provider("ses", clock) as made:
        yield made


def message(useful: float = 600.0) -> Message:
    return Message("t1", "code", NUMBER, "Your code", TEXT, "<p>271828</p>", 1_700_000_000.0, useful)


async def send(sender: Sender, useful: float = 600.0) -> Receipt:
    try:
        return await sender.send(message(useful))
    finally:
        await sender.close()


async def failed(sender: Sender) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        await send(sender)
    assert NUMBER not in caught.value.why
    assert "271828" not in caught.value.why
    return caught.value


def is_(failure: Undelivered) -> tuple[bool, bool]:
    return failure.final, failure.unsure


async def one_of_few(rig: Provider, unsure: bool = True) -> tuple[bool, bool]:
    """How it fails for want of an answer: on a busy machine what comes before the answer may be late instead."""
    for timeout in (0.2, 0.5, 1.0):
        found = is_(await failed(rig.sender(timeout=timeout)))
        if found == (False, unsure):
            break
    return found


# -- all of them -------------------------------------------------------------------------------------------------------


async def test_it_is_taken_over_whole(rig: Provider) -> None:
    receipt = await send(rig.sender())
    (got,) = rig.box
    assert (got.to, got.text) == (NUMBER, TEXT)
    assert receipt.reference == got.reference


async def test_a_message_it_will_never_take(rig: Provider) -> None:
    rig.answers.append(rig.refused())
    assert is_(await failed(rig.sender())) == (True, False)


@pytest.mark.parametrize(
    ("status", "headers", "unsure", "wait"),
    [
        (429, {"Retry-After": "7"}, False, 7.0),
        (429, {"Retry-After": "999999"}, False, 3600.0),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, False, 0.0),
        (500, {}, False, 0.0),
        (503, {"Retry-After": "2"}, False, 2.0),
        (502, {}, True, 0.0),
        (504, {}, True, 0.0),
    ],
)
async def test_not_now(rig: Provider, status: int, headers: dict[str, str], unsure: bool, wait: float) -> None:
    rig.answers.append((status, headers, b"<html>busy</html>"))
    failure = await failed(rig.sender())
    assert (*is_(failure), failure.retry_after) == (False, unsure, wait)


async def test_who_does_not_know_us_says_nothing_about_the_message(rig: Provider) -> None:
    secret = b"x" * 32 if type(rig).__name__ == "Hook" else "wrong"
    wrong = {"token": secret} if isinstance(rig, Twilio) else {"secret": secret}
    failure = await failed(rig.sender(**wrong))
    assert is_(failure) == (type(rig).__name__ == "Hook", False), "another sender may know the password"
    assert rig.box == []


async def test_a_redirect_is_not_followed(rig: Provider) -> None:
    rig.answers.append((307, {"Location": rig.url + "/elsewhere"}, b""))
    await failed(rig.sender())
    assert rig.asked == 1


async def test_taken_over_without_a_word_is_not_known(rig: Provider) -> None:
    rig.cut = True
    assert is_(await failed(rig.sender())) == (False, True)
    assert len(rig.box) == 1
    rig.cut, rig.late = False, 2.0
    assert await one_of_few(rig) == (False, True)


async def test_a_yes_is_a_yes_whatever_comes_after_it(rig: Provider) -> None:
    rig.drip = True
    for timeout in (0.3, 1.0, 3.0):  # on a busy machine the yes itself may be late
        with contextlib.suppress(Undelivered):
            await send(rig.sender(timeout=timeout))
            break
    else:
        pytest.fail("it said yes")
    rig.drip, rig.flood = False, True
    await send(rig.sender(timeout=3.0))
    rig.flood = False
    rig.answers.append((202, {"Content-Type": "application/json"}, b"[" * 100_000))
    await send(rig.sender())
    rig.answers.append((200, {}, b"\xff\xfe not json"))
    assert len((await send(rig.sender())).reference) < LARGEST


async def test_nobody_there_is_certain(rig: Provider) -> None:
    rig.url = "http://127.0.0.1:1"
    assert is_(await failed(rig.sender())) == (False, False)


async def test_a_connection_that_does_not_come_about_took_nothing_over(clock: ManualClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it never answers the TLS handshake
        rig = Twilio(clock, f"https://127.0.0.1:{deaf.getsockname()[1]}")
        assert await one_of_few(rig, unsure=False) == (False, False)


async def test_what_is_sent_twice_is_the_same_twice(rig: Provider) -> None:
    """After a crash, or where nobody knows: the same code to the same number, under one id where there is a place."""
    rig.cut = True
    await failed(rig.sender())
    rig.cut = False
    await send(rig.sender())
    assert {(asked.to, asked.text) for asked in rig.box} == {(NUMBER, TEXT)}
    if type(rig).__name__ == "Hook":
        assert len(rig.box) == 1, "who has seen the id does nothing"
    if isinstance(rig, Vonage):
        assert {asked.fields["client_ref"] for asked in rig.box} == {"t1"}


async def test_no_secret_shows(rig: Provider) -> None:
    sender = rig.sender()
    assert not any(secret in repr(vars(sender)) for secret in ("wJalrXUtn", "AWS4"))
    await sender.close()


# -- each one's own ----------------------------------------------------------------------------------------------------


async def test_twilio(twilio: Provider) -> None:
    await send(twilio.sender(callback="https://gate.example/.sallyport/callbacks/twilio"))
    service = "MG" + "2" * 32
    await send(twilio.sender(sender=service), useful=0.0)
    first, second = (asked.fields for asked in twilio.box)
    assert first == {
        "To": NUMBER, "Body": TEXT, "From": "+15005550006", "ValidityPeriod": "600",
        "StatusCallback": "https://gate.example/.sallyport/callbacks/twilio",
    }  # fmt: skip
    assert second == {"To": NUMBER, "Body": TEXT, "MessagingServiceSid": service}
    assert is_(await failed(twilio.sender(account="AC2"))) == (False, False)
    twilio.answers.append((403, {}, b'{"code": 21610, "message": "Attempt to send to unsubscribed recipient"}'))
    failure = await failed(twilio.sender())
    assert is_(failure) == (True, False), "STOP means stop"
    assert failure.why == "answered 403 21610"
    assert ACCOUNT not in failure.why


async def test_twilio_by_a_key_that_can_be_taken_back(twilio: Provider) -> None:
    """Its own name and secret; the account stays in the path."""
    await send(twilio.sender(key=API_KEY, token=API_SECRET))
    assert len(twilio.box) == 1
    assert is_(await failed(twilio.sender(key=API_KEY))) == (False, False), "the account's token is not its secret"
    assert is_(await failed(twilio.sender(token=API_SECRET))) == (False, False)


async def test_vonage(vonage: Provider) -> None:
    await send(vonage.sender(callback="https://gate.example/cb"))
    (got,) = vonage.box
    assert got.fields == {
        "message_type": "text", "channel": "sms", "to": NUMBER[1:], "from": "447700900001", "text": TEXT,
        "client_ref": "t1", "ttl": 1800, "webhook_url": "https://gate.example/cb", "webhook_version": "v1",
    }  # fmt: skip
    vonage.answers.append((402, {}, b'{"title": "Low balance"}'))
    assert is_(await failed(vonage.sender())) == (False, False), "another sender has credit"


async def test_sns(sns: Provider) -> None:
    await send(sns.sender())
    await send(sns.sender(sender="+15005550006"))
    await send(sns.sender(sender=""))
    name, number, neither = (asked.fields for asked in sns.box)
    assert name["MessageAttributes.entry.1.Name"] == "AWS.SNS.SMS.SMSType"
    assert name["MessageAttributes.entry.1.Value.StringValue"] == "Transactional"
    assert name["MessageAttributes.entry.2.Name"] == "AWS.SNS.SMS.SenderID"
    assert number["MessageAttributes.entry.2.Name"] == "AWS.MM.SMS.OriginationNumber"
    assert "MessageAttributes.entry.2.Name" not in neither
    for code, final in (("Throttling", False), ("InvalidParameter", True)):
        sns.answers.append((400, {}, f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>".encode()))
        failure = await failed(sns.sender())
        assert (failure.final, failure.why) == (final, f"answered 400 {code}")
    assert isinstance(sns, Sns)


async def test_ses(ses: Provider) -> None:
    await send(ses.sender(configuration_set="gate"))
    (got,) = ses.box
    assert got.fields["FromEmailAddress"] == "Gate <gate@good.test>"
    assert got.fields["ConfigurationSetName"] == "gate"
    assert got.fields["Content"]["Simple"]["Subject"]["Data"] == "Your code"
    for kind, final in (("SendingPausedException", False), ("MessageRejected", True), ("x y\r\nz", True)):
        ses.answers.append((400, {"x-amzn-ErrorType": kind.replace("\r\n", " ")}, b"{}"))
        failure = await failed(ses.sender())
        assert failure.final is final
        assert failure.why in (f"answered 400 {kind}", "answered 400")
    assert isinstance(ses, Ses)
    assert isinstance(Vonage(ManualClock()), Provider)
