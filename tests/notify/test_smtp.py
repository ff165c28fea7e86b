from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError, Undelivered
from gateway.core.message import Message
from gateway.notify.smtp import SmtpSender, SmtpServer, compose, one_address
from tests.notify.conftest import letter
from tests.rig.mail import MailServer, mail_server

FROM = "Sallyport <noreply@example.com>"


def sender(rig: MailServer, **more: object) -> SmtpSender:
    values: dict[str, object] = {"host": "localhost", "port": rig.port, "tls": "none", "timeout": 3.0, **more}
    return SmtpSender(SmtpServer(**values), sender=FROM, our_name="gate.example")  # type: ignore[arg-type]


async def failed(carrier: SmtpSender, message: Message | None = None) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        await carrier.send(message or letter())
    assert "ann@" not in str(caught.value)
    return caught.value


async def test_a_message_arrives_whole() -> None:
    async with mail_server() as rig:
        receipt = await sender(rig).send(letter(subject="Größe — und mehr"))
    (got,) = rig.box
    assert rig.to == ["ann@example.com"]
    assert (got["From"], got["To"], got["Subject"]) == (FROM, "ann@example.com", "Größe — und mehr")
    assert got["Message-ID"] == "<t1@gate.example>"
    assert got["Auto-Submitted"] == "auto-generated"
    text, html = got.get_body(("plain",)), got.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (text.get_content().strip(), html.get_content().strip()) == ("said in text", "<p>said in HTML</p>")
    assert receipt.reference == "250 2.0.0"


async def test_over_tls_with_a_password(server_tls: ssl.SSLContext, ca: Path) -> None:
    async with mail_server(starttls=server_tls, user="gate", password="right") as rig:
        await sender(rig, tls="starttls", ca=ca, username="gate", password="right").send(letter())
        assert len(rig.box) == 1
        wrong = await failed(sender(rig, tls="starttls", ca=ca, username="gate", password="wrong"))
    assert wrong.why == "the server answered 535 5.7.8"
    assert (wrong.final, wrong.unsure) == (False, False), "another sender may know the password"
    assert len(rig.box) == 1
    assert "right" not in repr(SmtpServer("h", password="right"))


async def test_implicit_tls(server_tls: ssl.SSLContext, ca: Path) -> None:
    async with mail_server(tls=server_tls) as rig:
        await sender(rig, tls="tls", ca=ca).send(letter())
    assert len(rig.box) == 1


async def test_a_server_without_tls_gets_nothing() -> None:
    """Whoever strips STARTTLS on the way reads no message and no password."""
    async with mail_server() as rig:
        failure = await failed(sender(rig, tls="starttls", username="gate", password="secret"))
    assert rig.box == []
    assert (failure.final, failure.unsure) == (False, False)


async def test_a_certificate_of_somebody_else_gets_nothing(server_tls: ssl.SSLContext) -> None:
    async with mail_server(starttls=server_tls) as rig:
        assert not (await failed(sender(rig, tls="starttls"))).final
    assert rig.box == []


@pytest.mark.parametrize(
    ("where", "answer", "final"),
    [
        ("rcpt", "550 5.1.1 ann@example.com is nobody", True),
        ("rcpt", "450 4.2.1 later", False),
        ("data", "554 5.7.1 no", True),
        ("data", "451 4.3.0 later", False),
    ],
)
async def test_what_servers_say(where: str, answer: str, final: bool) -> None:
    async with mail_server() as rig:
        getattr(rig, where).append(answer)
        failure = await failed(sender(rig))
    assert (failure.final, failure.unsure) == (final, False)
    assert failure.why == f"the server answered {' '.join(answer.split()[:2])}"
    assert rig.box == []


async def test_no_answer_to_a_whole_message_is_no_answer() -> None:
    async with mail_server() as rig:
        rig.data.append("cut")
        assert (await failed(sender(rig))).unsure
        assert len(rig.box) == 1
        rig.late = 2.0
        # On a busy machine it may already be late when the message is not there yet.
        assert any([(await failed(sender(rig, timeout=timeout))).unsure for timeout in (0.2, 0.5)])


async def test_nobody_there() -> None:
    async with mail_server() as rig:
        pass
    await asyncio.sleep(0)
    failure = await failed(sender(rig))
    assert (failure.final, failure.unsure) == (False, False)


INJECTED = (
    "ann@example.com\r\nBcc: eve@example.com",
    "ann@example.com\nRCPT TO:<eve@example.com>",
    "ann@example.com, eve@example.com",
    "ann@example.com> SIZE=1",
    "<ann@example.com>, <eve@example.com>",
    "ann@example.com\u0085x",
    "ann@exam\u2028ple.com",
    "ann",
    "",
)


@pytest.mark.parametrize("to", INJECTED)
async def test_an_address_is_one_address(to: str) -> None:
    async with mail_server() as rig:
        assert (await failed(sender(rig), letter(to=to))).final
        assert rig.connections == 0
    with pytest.raises(ValueError, match="one e-mail address"):
        one_address(to)


@pytest.mark.parametrize("subject", ["Hi\r\nBcc: eve@example.com", "Hi\nX: y", "Hi\rX", "Hi\u2028X"])
def test_a_subject_is_one_line(subject: str) -> None:
    with pytest.raises(ValueError, match="line"):
        compose(letter(subject=subject), one_address(FROM), "gate.example")


async def test_addresses_beyond_ascii() -> None:
    async with mail_server() as rig:
        await sender(rig).send(letter(to="jürgen@example.com"))
    assert rig.to == ["jürgen@example.com"]


def test_authorities_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no authorities"):
        SmtpSender(SmtpServer("h", ca=tmp_path / "none.pem"), sender=FROM, our_name="h")
