"""What happens to an account is told to its owner, once, wherever it was caused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.audit.notices import BRIEF, NOT_YOU, ONLY_BY_MAIL, STOLEN, WORDS, Notices
from gateway.audit.recorder import Recorder
from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind
from gateway.core.languages import spoken
from gateway.crypto.sealing import Sealer
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.mfa.attempts import LIFE
from gateway.mfa.codes.bound import bound_to
from gateway.mfa.sealed import place_of
from gateway.notify import short
from gateway.notify.letter import write
from gateway.notify.numbers import Numbers
from gateway.store.event_table import EventTable
from gateway.store.sql import Records
from gateway.store.suppressed_table import Suppressed, suppress
from gateway.store.tables import factors, outbox, users
from tests.rig.gateway import running
from tests.rig.ledger import Remembered
from tests.rig.mail import mail_server

PASSWORD = "correct horse battery staple 42"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
async def recorder(records: Records, clock: ManualClock) -> Recorder:
    passwords = Passwords()
    people = LocalUsers(records, passwords, clock, Remembered())
    await people.add("ann", PASSWORD, email="ann@example.com", display_name="Ann <b>&amp;")
    await people.add("bob", PASSWORD)
    passwords.close()
    return Recorder(EventTable(records, Notices(issuer="gate", account="https://gate.example/account")), clock)


SEALER = Sealer([b"k" * 32])


def by_phone(issuer: str = "gate", *, mail: bool = True) -> Notices:
    """Notices that know numbers; those of one prefix may not be written to."""
    spelled = Numbers(deny=["+90559"]).canonical
    bound = partial(bound_to, SEALER, {"sms": spelled, **({"email": str} if mail else {})})
    return Notices(issuer=issuer, account="https://gate.example/account", mail=mail, bound=bound)


async def bind(records: Records, user: str, *numbers: str, failures: int = 0) -> None:
    """Numbers as factors of somebody; an empty one is what does not open."""
    async with records.begin() as connection:
        subject = await connection.scalar(select(users.c.subject).where(users.c.name == user))
        for at, number in enumerate(numbers):
            sealed = SEALER.seal(number.encode(), **place_of("default", f"n{at}")) if number else b"nonsense"
            await connection.execute(
                factors.insert().values(
                    tenant="default", id=f"n{at}", subject=subject, label="", secret=sealed, last_step=-1,
                    kind="email" if "@" in number else "sms", refused_step=-1, failures=failures, created_at=1.0,
                )
            )  # fmt: skip


async def rows(records: Records) -> list[Any]:
    async with records.read() as connection:
        return list((await connection.execute(select(outbox).order_by(outbox.c.id))).all())


@pytest.mark.parametrize("kind", sorted(WORDS))
async def test_each_is_told(kind: Kind, recorder: Recorder, records: Records) -> None:
    detail = (
        {"by": "root"}
        if "session" in kind or "revoked" in kind
        else {"new_browser": True}
        if kind == Kind.SIGN_IN
        else {}
    )
    await recorder.record(Event(kind, user="ann", address="192.0.2.7", agent=FIREFOX, detail=detail))
    (row,) = await rows(records)
    assert (row.target, row.kind, row.state) == ("ann@example.com", kind, "waiting")
    letter = write(row.content)
    assert letter.subject == WORDS[kind][0]
    assert "https://gate.example/account" in letter.text
    assert "192.0.2.7" in letter.text or detail.get("by")
    assert "Ann &lt;b&gt;&amp;amp;" in letter.html, "escaped"
    assert "Ann <b>&amp;" in letter.text, "text is text"
    assert "{" not in letter.text


@pytest.mark.parametrize(("language", "said"), [("en", "from 14 November 2026, 12:00 UTC on"), ("tr", "14 Kasım 2026")])
async def test_what_is_due_says_when(language: str, said: str, recorder: Recorder, records: Records) -> None:
    async with records.begin() as connection:
        await connection.execute(users.update().values(language=language))
    until = int(datetime(2026, 11, 14, 12, tzinfo=UTC).timestamp())
    await recorder.record(Event(Kind.MFA_DUE, user="ann", detail={"until": until}))
    (row,) = await rows(records)
    assert said in write(row.content).text


async def test_it_is_written_in_the_language_of_whoever_gets_it(recorder: Recorder, records: Records) -> None:
    passwords = Passwords()
    people = LocalUsers(records, passwords, ManualClock(), Remembered())
    ann = await people.find("ann")
    assert ann is not None
    await people.speak(ann.tenant, ann.subject, "tr")
    await recorder.record(Event(Kind.FACTOR_ENROLLED, user="ann", agent=FIREFOX, detail={"factor": "totp"}))
    passwords.close()
    (row,) = await rows(records)
    letter = write(row.content)
    assert letter.subject == "İkinci doğrulama yöntemi eklendi"
    assert "Hesabınıza eklendi: Doğrulama uygulaması." in letter.text
    assert "Tarayıcı: Firefox, Linux" in letter.text
    assert '<html lang="tr">' in letter.html
    assert "added" not in letter.text


@pytest.mark.parametrize(
    ("language", "subject", "said"),
    [
        (
            "en",
            "Wrong answers to your second factor",
            ["gave 15 wrong answers in a row", "Second factor: Authenticator app", "Browser: Firefox on Linux"],
        ),
        (
            "tr",
            "İkinci doğrulama adımınıza yanlış yanıt verildi",
            ["art arda 15 yanlış yanıt", "İkinci doğrulama adımı: Doğrulama uygulaması", "Tarayıcı: Firefox, Linux"],
        ),
    ],
)
async def test_who_is_guessed_at_hears_how_often_at_what_from_where_and_what_to_do(
    language: str, subject: str, said: list[str], recorder: Recorder, records: Records
) -> None:
    """Also who does without what can be done without."""
    async with records.begin() as connection:
        await connection.execute(users.update().values(language=language, quiet=True))
    detail = {"factor": "totp", "wrong": 15, "outcome": "ERR-MFA-INVALID"}
    await recorder.record(
        Event(Kind.STEP_UP_GUESSED, user="ann", session="s3cret", address="192.0.2.7", agent=FIREFOX, detail=detail)
    )
    (row,) = await rows(records)
    letter = write(row.content)
    assert letter.subject == subject
    for text in (letter.text, letter.html):
        assert "192.0.2.7" in text
        assert said[0] in text
        assert spoken(STOLEN, language) in text
        assert "https://gate.example/account" in text
        assert "s3cret" not in text
        assert "ERR-" not in text
    assert [each for each in said if each not in letter.text] == []


@pytest.mark.parametrize(
    "event",
    [
        Event(Kind.SIGN_IN, user="ann"),
        Event(Kind.SIGN_IN_FAILED, user="ann"),
        Event(Kind.SIGN_IN_THROTTLED, user="ann"),
        Event(Kind.STEP_UP_FAILED, user="ann"),
        Event(Kind.STEP_UP_THROTTLED, user="ann"),
        Event(Kind.SESSION_ENDED, user="ann"),
        Event(Kind.SESSIONS_ENDED, user="ann"),
        Event(Kind.TRUSTED_DEVICE_REVOKED, user="ann"),
        Event(Kind.PASSWORD_CHANGED, user="bob"),
        Event(Kind.PASSWORD_CHANGED, user="nobody"),
        Event(Kind.PASSWORD_CHANGED),
        Event(Kind.PASSWORD_CHANGED, tenant="other", user="ann"),
    ],
)
async def test_nobody_is_told_of(event: Event, recorder: Recorder, records: Records) -> None:
    await recorder.record(event)
    assert await rows(records) == []


async def test_nothing_a_client_made_up_is_repeated(recorder: Recorder, records: Records) -> None:
    agent = "Firefox/1 https://evil.example/ call 555-1234"
    await recorder.record(Event(Kind.BACKUP_CODE_USED, user="ann", agent=agent))
    await recorder.record(Event(Kind.BACKUP_CODE_USED, user="ann", agent="evil.example"))
    for row in await rows(records):
        assert "evil" not in "".join(write(row.content))


@pytest.mark.parametrize(
    ("user", "kind", "factor", "to"),
    [
        ("ann", Kind.FACTOR_ENROLLED, "totp", ["ann@example.com"]),
        ("ann", Kind.FACTOR_REMOVED, "sms", ["ann@example.com"]),
        ("ann", Kind.FACTOR_ENROLLED, "email", ["ann@example.com", "+4915112345678"]),
        ("ann", Kind.FACTOR_REMOVED, "email", ["ann@example.com", "+4915112345678"]),
        ("ann", Kind.PASSWORD_CHANGED, "", ["ann@example.com"]),
        ("ann", Kind.STEP_UP_GUESSED, "sms", ["ann@example.com"]),
        ("ann", Kind.STEP_UP_GUESSED, "email", ["ann@example.com", "+4915112345678"]),
        ("bob", Kind.FACTOR_REMOVED, "webauthn", ["+4915112345678"]),
        ("bob", Kind.PASSWORD_CHANGED, "", ["+4915112345678"]),
        ("bob", Kind.BACKUP_CODES_FEW, "", []),
        ("ann", Kind.RECOVERY_ENDED, "", ["ann@example.com", "+4915112345678"]),
        ("ann", Kind.RECOVERED, "", ["ann@example.com"]),
        ("bob", Kind.RECOVERED, "", []),
    ],
)
async def test_what_changed_is_not_the_only_way_by_which_it_is_told(
    user: str, kind: Kind, factor: str, to: list[str], recorder: Recorder, records: Records, clock: ManualClock
) -> None:
    """One that does not open, or that may not be written to any more, is left out, and stops nothing."""
    await bind(records, user, "+4915112345678", "+4915112345678", "+905591112233", "")
    await Recorder(EventTable(records, by_phone()), clock).record(Event(kind, user=user, detail={"factor": factor}))
    found = await rows(records)
    assert [row.target for row in found] == to
    assert {row.channel for row in found} == {"email" if "@" in each else "sms" for each in to}


async def test_another_mailbox_that_codes_go_to_is_told_too(
    recorder: Recorder, records: Records, clock: ManualClock
) -> None:
    """Whoever reads one reads not the other; and that of the account is not written to twice."""
    await bind(records, "ann", "Ann@Example.com", "spare@example.org")
    told = Recorder(EventTable(records, by_phone()), clock)
    await told.record(Event(Kind.FACTOR_ENROLLED, user="ann", detail={"factor": "email"}))
    await told.record(Event(Kind.USER_ENABLED, user="ann"))
    assert [row.target for row in await rows(records)] == ["ann@example.com", "spare@example.org", "ann@example.com"]


@pytest.mark.parametrize(
    "kind",
    [
        *(Kind.FACTOR_ENROLLED, Kind.FACTOR_REMOVED, Kind.FACTOR_DISABLED, Kind.BACKUP_CODES_MADE),
        *(Kind.BACKUP_CODE_USED, Kind.TRUSTED_DEVICE_ADDED, Kind.PASSWORD_CHANGED, Kind.SIGN_IN),
        Kind.STEP_UP_GUESSED,
    ],
)
async def test_where_mail_gets_somebody_in_changes_are_told_elsewhere_too(
    kind: Kind, recorder: Recorder, records: Records, clock: ManualClock
) -> None:
    """Who has stolen the mailbox and the password binds a factor of their own, and deletes the letter about it."""
    told = Recorder(EventTable(records, by_phone()), clock)
    event = Event(kind, user="ann", detail={"factor": "totp", "new_browser": True})
    await bind(records, "ann", "+4915112345678")
    await told.record(event)
    assert [row.target for row in await rows(records)] == ["ann@example.com"]
    async with records.begin() as connection:
        await connection.execute(factors.delete())
    await bind(records, "ann", "+4915112345678", "ann@example.com")
    await told.record(event)
    also = [] if kind == Kind.SIGN_IN else ["+4915112345678"]
    assert [row.target for row in await rows(records)][1:] == ["ann@example.com", *also]


async def test_a_number_is_not_told_that_it_was_added(recorder: Recorder, records: Records, clock: ManualClock) -> None:
    """The others are, where mail gets somebody in."""
    await bind(records, "ann", "+4915112345678", "+4915112345679", "ann@example.com")
    added = Event(Kind.FACTOR_ENROLLED, user="ann", detail={"factor": "sms", "id": "n1"})
    await Recorder(EventTable(records, by_phone()), clock).record(added)
    assert [row.target for row in await rows(records)] == ["ann@example.com", "+4915112345678"]
    burnt = Event(Kind.FACTOR_DISABLED, user="ann", detail={"factor": "sms", "id": "n1"})
    await Recorder(EventTable(records, by_phone()), clock).record(burnt)
    assert "+4915112345679" in [row.target for row in await rows(records)], "that it is out of use it is"


async def test_a_number_out_of_use_is_told_too(recorder: Recorder, records: Records, clock: ManualClock) -> None:
    """Whoever wants nothing to be heard would use it up first, by wrong answers."""
    await bind(records, "ann", "+4915112345678", failures=LIFE)
    await Recorder(EventTable(records, by_phone()), clock).record(Event(Kind.RECOVERY_ENDED, user="ann"))
    assert [row.channel for row in await rows(records)] == ["email", "sms"]


async def test_where_an_address_is_not_written_to_any_more_the_telephone_is(
    recorder: Recorder, records: Records, clock: ManualClock
) -> None:
    await bind(records, "ann", "+4915112345678")
    async with records.begin() as connection:
        await suppress(connection, "default", Suppressed("email", "ann@example.com", "bounced", 1.0))
    told = Recorder(EventTable(records, by_phone()), clock)
    await told.record(Event(Kind.FACTOR_REMOVED, user="ann", detail={"factor": "totp"}))
    await told.record(Event(Kind.SIGN_IN, user="ann", detail={"new_browser": True}))
    assert [(row.target, row.kind) for row in await rows(records)] == [("+4915112345678", "factor_removed")]


async def test_without_anybody_who_carries_mail_the_telephone_is_told(
    recorder: Recorder, records: Records, clock: ManualClock
) -> None:
    await bind(records, "ann", "+4915112345678")
    told = Recorder(EventTable(records, by_phone(mail=False)), clock)
    await told.record(Event(Kind.PASSWORD_CHANGED, user="ann"))
    assert [row.target for row in await rows(records)] == ["+4915112345678"]


@pytest.mark.parametrize("language", ["en", "tr"])
async def test_by_phone_it_is_one_message_that_says_what_to_do(
    language: str, recorder: Recorder, records: Records, clock: ManualClock
) -> None:
    """In the alphabet of telephones, with no link in it."""
    await bind(records, "bob", "+4915112345678")
    async with records.begin() as connection:
        await connection.execute(users.update().values(language=language))
    told, kinds = Recorder(EventTable(records, by_phone("gate.example.com")), clock), sorted(set(WORDS) - ONLY_BY_MAIL)
    for kind in kinds:
        await told.record(Event(kind, user="bob", detail={"by": "root"}))
    for kind, row in zip(kinds, await rows(records), strict=True):
        text = short.told(row.content)
        assert short.septets(text) <= short.ROOM
        assert short.gsm(text) == text
        said = short.gsm(spoken(WORDS[kind][0], language))
        assert text.startswith(f"gate.example.com: {said} (bob). ")
        assert text.endswith(short.gsm(spoken(BRIEF.get(WORDS[kind][2], BRIEF[NOT_YOU]), language)))
        assert "http" not in text


def test_a_notice_fits_into_one_short_message() -> None:
    content = {"from_whom": "gate", "user": "ann", "title": "x", "brief": "Not you?"}
    assert short.told(content) == "gate: x (ann). Not you?"
    assert short.told({**content, "brief": "b" * 160}) == "gate: x (ann)."
    assert short.told({**content, "user": "€" * 160}) == "x"
    assert short.septets(short.told({**content, "title": "€" * 160})) <= short.ROOM
    del content["brief"]
    assert short.told({**content, "link": "https://gate"}) == "gate: x (ann).", "a row of an older version"


async def test_an_event_and_its_notice_are_kept_together_or_not_at_all(
    recorder: Recorder, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> bool:
        raise StoreAway("the disk is full")

    recorder.note(Event(Kind.PASSWORD_CHANGED, user="ann"))
    with monkeypatch.context() as broken:
        broken.setattr("gateway.audit.notices.put", fails)
        with pytest.raises(StoreAway):
            await recorder.flush()
    assert await recorder.events("default") == []
    await recorder.flush()
    assert len(await recorder.events("default")) == len(await rows(records)) == 1


async def test_from_the_command_line_to_a_mailbox(tmp_path: Path) -> None:
    """`sallyport user passwd` writes it, a gateway that runs sends it: a real mail server has it, once."""
    async with mail_server() as mail:
        smtp = {"host": "127.0.0.1", "port": mail.port, "tls": "none"}
        notify = {"from": "Gate <gate@good.test>", "email": [{"smtp": smtp}]}
        async with running(tmp_path, config={"notify": notify}) as gateway:
            await gateway.app.users.add("ann", PASSWORD, email="ann@example.com")

            def change() -> None:
                command = [sys.executable, "-m", "gateway", "user", "passwd", "ann", "--password-stdin"]
                subprocess.run(
                    [*command, "--config", str(tmp_path / "config.yaml")],
                    input="another " + PASSWORD + "\n", text=True, check=True, capture_output=True,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                )  # fmt: skip

            await asyncio.to_thread(change)
            outbox_ = gateway.app._outbox
            assert outbox_ is not None
            gateway.clock.advance(5.0)
            async with asyncio.timeout(10):
                while not mail.box:
                    await outbox_.turn()
            await outbox_.turn()
            rendered = gateway.app.metrics.render()[0].decode()
    (got,) = mail.box
    assert (got["To"], got["Subject"]) == ("ann@example.com", "Your password was changed")
    assert "http://good.test/.sallyport/account" in str(got.get_body(("plain",)))
    assert 'sallyport_notifications_total{channel="email",outcome="sent"} 1.0' in rendered
    assert "sallyport_notifications_waiting 0.0" in rendered
    assert 'sallyport_delivery_duration_seconds_count{sender="smtp"} 1.0' in rendered
