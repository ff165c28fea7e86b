"""An answer of a key: every step of section 7.2 that says MUST, once broken."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import ManualClock
from gateway.core.errors import UserError
from gateway.core.events import Kind, Severity
from gateway.core.identity import DEFAULT_TENANT, Level, Proof, amr_of, level_of
from gateway.mfa.sealed import place_of
from gateway.mfa.webauthn.ceremony import LIFETIME
from gateway.mfa.webauthn.key import unpacked
from gateway.store.tables import factors
from tests.mfa.webauthn.conftest import AAL3, BOTH, Furnish, KeyRoom
from tests.rig.authenticator import AT, BE, BS, ED, ORIGIN, UP, UV, Authenticator, b64

PWD = Proof("password", 0.0)
OTHER = Authenticator()


def flagged(data: bytes, flags: int) -> bytes:
    """Authenticator data with other flags."""
    return data[:32] + bytes([flags]) + data[33:]


@BOTH
async def test_a_key_beside_the_password_is_two_factors(room: KeyRoom, clock: ManualClock) -> None:
    key = await room.set_up(Authenticator(flags=UP))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    assert options["rpId"] == "app.example.com"
    assert options["userVerification"] == "preferred"
    assert [one["id"] for one in options["allowCredentials"]] == [b64(key.credential)]
    assert options["allowCredentials"][0]["transports"] == ["usb"]
    proof = await room.give(ann, ticket, key.answer(options))
    assert proof == Proof("webauthn", clock.now(), "hwk", False)
    assert (level_of((PWD, proof)), amr_of((PWD, proof))) == (Level.AAL2, ("hwk", "pwd", "mfa"))
    assert ("webauthn", "passed") in room.counted


@pytest.mark.parametrize(
    ("flags", "level", "amr"),
    [
        (UP | UV, Level.AAL3, "hwk"),
        (UP, Level.AAL2, "hwk"),
        (UP | UV | BE, Level.AAL2, "swk"),
        (UP | UV | BE | BS, Level.AAL2, "swk"),
    ],
)
async def test_only_a_device_that_knew_its_user_and_keeps_its_key_reaches_aal3(
    room: KeyRoom, flags: int, level: Level, amr: str
) -> None:
    key = await room.set_up(Authenticator(flags=flags))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    proof = await room.give(ann, ticket, key.answer(options))
    assert level_of((PWD, proof)) is level
    assert amr in amr_of((PWD, proof))
    assert level_of((proof,)) is Level.AAL1  # not without a first factor


async def test_where_aal3_is_asked_the_device_must_know_its_user(room: KeyRoom) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann, AAL3)
    assert options["userVerification"] == "required"
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options, flags=UP))
    options = await room.ask(ann, ticket, AAL3)
    assert level_of((PWD, await room.give(ann, ticket, key.answer(options)))) is Level.AAL3


async def test_what_cannot_reach_aal3_is_not_offered_for_it(room: KeyRoom) -> None:
    synced = await room.set_up(Authenticator(flags=UP | UV | BE))
    await room.bind()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann, AAL3)
    assert (await room.stepups.look(ticket, ann)).offered == ()
    assert options["allowCredentials"] == []
    with pytest.raises(UserError, match="ERR-MFA-METHOD"):
        await room.give(ann, ticket, synced.answer(options))
    await room.set_up()
    assert (await room.stepups.look(ticket, ann)).offered == ("webauthn",)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):  # not the synced one, although there is another
        await room.give(ann, ticket, synced.answer(await room.ask(ann, ticket, AAL3)))


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "type of a registration": ("type", {"client": {"type": "webauthn.create"}}),
    "no type": ("type", {"client": {"type": None}}),
    "another challenge": ("challenge", {"client": {"challenge": b64(b"x" * 32)}}),
    "empty challenge": ("challenge", {"client": {"challenge": ""}}),
    "a challenge that is no text": ("challenge", {"client": {"challenge": 7}}),
    "origin with our name as its beginning": ("origin", {"origin": ORIGIN + ".evil.example"}),
    "origin with our name as its end": ("origin", {"origin": "https://evil-app.example.com"}),
    "origin below ours": ("origin", {"origin": "https://x.app.example.com"}),
    "origin above ours": ("origin", {"origin": "https://example.com"}),
    "origin on another port": ("origin", {"origin": ORIGIN + ":8443"}),
    "origin in clear": ("origin", {"origin": "http://app.example.com"}),
    "origin that looks like ours": ("origin", {"origin": "https://app.exаmple.com"}),
    "origin in capitals": ("origin", {"origin": "https://APP.example.com"}),
    "origin with a slash": ("origin", {"origin": ORIGIN + "/"}),
    "an app's origin": ("origin", {"origin": "android:apk-key-hash:abc"}),
    "in a frame": ("cross_origin", {"client": {"crossOrigin": True}}),
    "in a frame, as text": ("cross_origin", {"client": {"crossOrigin": "true"}}),
    "in a frame of somebody's": ("cross_origin", {"client": {"topOrigin": "https://evil.example"}}),
    "a frame that says it is none": ("cross_origin", {"client": {"topOrigin": ORIGIN}}),
    "another RP ID": ("rp_id", {"rp_id": "example.com"}),
    "nobody was there": ("user_presence", {"flags": 0}),
    "nobody was there, and yet known": ("user_presence", {"flags": UV}),
    "backed up and cannot be": ("backup_state", {"flags": UP | UV | BS}),
    "can be backed up all of a sudden": ("backup_eligible", {"flags": UP | UV | BE}),
    "bytes after the data": ("malformed", {"trailing": b"\x00"}),
    "extensions that are not there": ("malformed", {"flags": UP | UV | ED}),
    "extensions, and bytes after them": ("malformed", {"flags": UP | UV | ED, "trailing": b"\xa0\x00"}),
    "another signature": ("signature", {"signature": b"x" * 70}),
    "no signature": ("signature", {"signature": b""}),
    "the signature of another key": ("signature", {"signature": OTHER.sign(b"x")}),
    "known once it was signed": (
        "signature",
        {"flags": UP, "after": lambda said, data: (said, flagged(data, UP | UV))},
    ),
    "counted on once it was signed": ("signature", {"after": lambda said, data: (said, data[:-1] + b"\xff")}),
    "said otherwise once it was signed": ("signature", {"after": lambda said, data: (said + b" ", data)}),
    "no origin": ("origin", {"client": {"origin": None}}),
    "several origins": ("origin", {"client": {"origin": [ORIGIN]}}),
    "data of a credential in it": ("malformed", {"flags": UP | UV | AT}),
    "half of the data": ("malformed", {"after": lambda said, data: (said, data[:36])}),
    "no data": ("malformed", {"after": lambda said, data: (said, b"")}),
    "a flag that came later is none of these": ("backup_state", {"flags": UP | UV | BS | 2}),
    "no key of anybody": ("credential", {"credential": b"stranger"}),
    "an id of 1024 bytes": ("credential_id", {"credential": b"x" * 1024}),
    "an empty id": ("credential_id", {"credential": b""}),
    "somebody else's handle": ("user_handle", {"user_handle": b"x" * 32}),
    "client data that is no JSON": ("malformed", {"client_data": b"{"}),
    "client data that is a list": ("malformed", {"client_data": b"[]"}),
    "client data that is no UTF-8": ("malformed", {"client_data": b"\xff\xfe"}),
    "deep client data": ("malformed", {"client_data": b"[" * 4000}),
    "long client data": ("malformed", {"client": {"x": "x" * 5000}}),
}


@pytest.mark.parametrize("name", WRONG)
async def test_case_114_what_is_wrong_proves_nothing(room: KeyRoom, name: str) -> None:
    why, wrong = WRONG[name]
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    with pytest.raises(UserError) as refused:
        await room.give(ann, ticket, key.answer(options, **wrong))
    assert (refused.value.code, refused.value.detail) == (
        "ERR-MFA-INVALID",
        "The answer of that key was not accepted. Please try again.",
    )
    (event,) = room.ledger.of(Kind.STEP_UP_FAILED)
    assert event.detail == {"factor": "webauthn", "outcome": "ERR-MFA-INVALID", "why": why}
    again = await room.ask(ann, ticket)  # the challenge goes on, with another question
    assert again["challenge"] != options["challenge"]
    assert (await room.give(ann, ticket, key.answer(again))).factor == "webauthn"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        "[]",
        "null",
        "123456",
        '{"id":"x"}',
        "{" * 100,
        "x" * 60_000,
        '{"type":"public-key","id":"YQ","rawId":"YQ"}',
        '{"type":"public-key","id":"YQ","rawId":"Yg","response":{}}',
        '{"type":"public-key","id":"Y!Q","rawId":"Y!Q","response":{}}',
        '{"type":"public-key","id":"YQ==","rawId":"YQ==","response":{"clientDataJSON":"e30"}}',
        '{"type":"password","id":"YQ","rawId":"YQ","response":{"clientDataJSON":"e30"}}',
    ],
)
async def test_what_is_no_credential_proves_nothing(room: KeyRoom, answer: str) -> None:
    await room.set_up()
    ann = room.fresh("ann")
    ticket, _ = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, answer)


@pytest.mark.parametrize("handle", [7, ["x"], {}, True, "!!", "x", "eHg=", "YR"])
async def test_a_handle_that_cannot_be_read_is_somebody_elses(room: KeyRoom, handle: object) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    answer = key.answer(options)
    answer["response"]["userHandle"] = handle
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, answer)
    assert room.ledger.of(Kind.STEP_UP_FAILED)[0].detail["why"] == "user_handle"


async def test_a_key_that_could_be_copied_cannot_lose_that(room: KeyRoom) -> None:
    """Else one that was made without would pass for what reaches aal3."""
    key = await room.set_up(Authenticator(flags=UP | UV | BE))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options, flags=UP | UV))
    assert room.ledger.of(Kind.STEP_UP_FAILED)[0].detail["why"] == "backup_eligible"


async def test_the_counter_counts_from_when_the_key_was_set_up(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(count=7))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options, count=7))
    assert len(room.ledger.of(Kind.FACTOR_COPIED)) == 1


async def test_a_new_key_is_no_answer(room: KeyRoom) -> None:
    """Of the same credential, to the question that it was asked."""
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    asked = {"challenge": options["challenge"], "rp": {"id": options["rpId"]}, "user": {"id": b64(key.user_handle)}}
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.register(asked))


async def test_members_that_come_twice_are_not_chosen_between(room: KeyRoom) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    twice = key.client_data("webauthn.get", options, ORIGIN, {})[:-1] + b', "origin": "' + ORIGIN.encode() + b'"}'
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options, client_data=twice))
    ticket, options = await room.question(ann)
    answer = orjson.dumps(key.answer(options)).decode()
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, '{"type": "public-key", ' + answer[1:])
    assert [event.detail["why"] for event in room.ledger.of(Kind.STEP_UP_FAILED)] == ["malformed"] * 2


async def test_user_verification_is_demanded_where_the_operator_says(furnish: Furnish) -> None:
    room = furnish(user_verification="required")
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    assert options["userVerification"] == "required"
    with pytest.raises(UserError):
        await room.give(ann, ticket, key.answer(options, flags=UP))
    assert room.ledger.of(Kind.STEP_UP_FAILED)[0].detail["why"] == "user_verification"


async def test_a_key_without_a_handle_answers_too(room: KeyRoom) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    for handle in (None, b""):
        ticket, options = await room.question(ann)
        assert (await room.give(ann, ticket, key.answer(options, user_handle=handle))).factor == "webauthn"


@BOTH
async def test_an_answer_counts_once(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(count=None))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    answer = key.answer(options)
    await room.give(ann, ticket, answer)
    with pytest.raises(UserError, match="ERR-MFA-CHALLENGE"):
        await room.give(ann, ticket, answer)
    another, _ = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, another, answer)


async def test_a_wrong_answer_uses_the_question_up(room: KeyRoom) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    with pytest.raises(UserError):
        await room.give(ann, ticket, key.answer(options, flags=0))
    with pytest.raises(UserError):
        await room.give(ann, ticket, key.answer(options))
    assert [event.detail["why"] for event in room.ledger.of(Kind.STEP_UP_FAILED)] == ["user_presence", "challenge"]


@BOTH
async def test_of_many_answers_at_once_one_counts(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(count=None))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    answer = key.answer(options)
    done = await asyncio.gather(*(room.give(ann, ticket, answer) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, Proof) for one in done) == 1
    assert all(isinstance(one, Proof | UserError) for one in done)


async def test_a_question_is_for_one_session_one_challenge_and_five_minutes(room: KeyRoom, clock: ManualClock) -> None:
    key = await room.set_up(Authenticator(count=None))
    here, there = room.fresh("ann"), room.fresh("ann", session="session-2")
    ticket, options = await room.question(here)
    other, _ = await room.question(there)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):  # a question there, but not this one
        await room.give(there, other, key.answer(options))
    second, _ = await room.question(here)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(here, second, key.answer(options))
    clock.advance(LIFETIME - 1)
    assert (await room.give(here, ticket, key.answer(options))).factor == "webauthn"
    ticket, options = await room.question(here)
    clock.advance(LIFETIME)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(here, ticket, key.answer(options))


async def test_a_key_that_is_removed_while_it_answers_proves_nothing(
    room: KeyRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    used = room.webauthn._used

    async def removed(connection: AsyncConnection, *what: Any) -> bool:
        await connection.execute(delete(factors).where(factors.c.kind == "webauthn"))
        return await used(connection, *what)

    monkeypatch.setattr(room.webauthn, "_used", removed)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options))
    assert room.ledger.of(Kind.STEP_UP_PASSED) == []


async def test_nobody_answers_with_the_key_of_somebody_else(room: KeyRoom) -> None:
    await room.set_up()
    bobs = await room.set_up(who=room.fresh("bob"))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, bobs.answer(options))
    assert room.ledger.of(Kind.STEP_UP_FAILED)[0].detail["why"] == "credential"


async def test_without_a_question_there_is_no_answer(room: KeyRoom, clock: ManualClock) -> None:
    await room.set_up()
    assert await room.judge(room.webauthn, DEFAULT_TENANT, "s-ann", "{}") is None
    assert await room.webauthn.hint(DEFAULT_TENANT, "s-ann", "{}", clock.now()) == ""
    assert not await room.webauthn.offer(DEFAULT_TENANT, "s-bob")


@BOTH
@pytest.mark.parametrize("count", [5, 4, 0])
async def test_a_counter_that_does_not_go_up_is_refused_and_alarms(room: KeyRoom, count: int) -> None:
    key = await room.set_up(Authenticator(count=4))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    await room.give(ann, ticket, key.answer(options))  # 5
    ticket, options = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options, count=count))
    (alarm,) = room.ledger.of(Kind.FACTOR_COPIED)
    assert (alarm.severity, alarm.user) == (Severity.ALARM, "ann")
    (one,) = [one for one in await room.factors.of(DEFAULT_TENANT, "s-ann") if one.kind == "webauthn"]
    assert alarm.detail == {"factor": "webauthn", "id": one.id}
    options = await room.ask(ann, ticket)
    assert (await room.give(ann, ticket, key.answer(options))).factor == "webauthn"  # 6: it is not locked out


async def test_a_key_without_a_counter_raises_no_alarm(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(count=None))
    ann = room.fresh("ann")
    for _ in range(2):
        ticket, options = await room.question(ann)
        await room.give(ann, ticket, key.answer(options))
    assert room.ledger.of(Kind.FACTOR_COPIED) == []


@BOTH
async def test_a_hundred_wrong_answers_and_the_key_is_out_of_use(room: KeyRoom, clock: ManualClock) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    async with room.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.kind == "webauthn").values(failures=99))
    ticket, options = await room.question(ann)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(options, flags=0))
    assert [event.severity for event in room.ledger.of(Kind.FACTOR_DISABLED)] == [Severity.ALARM]
    with pytest.raises(UserError, match="ERR-MFA-DISABLED"):
        await room.give(ann, ticket, key.answer(options))


async def test_five_wrong_answers_and_one_has_to_wait(room: KeyRoom) -> None:
    key = await room.set_up()
    ann = room.fresh("ann")
    ticket, _ = await room.question(ann)
    for _ in range(5):
        with pytest.raises(UserError, match="ERR-MFA-INVALID"):
            await room.give(ann, ticket, "{}")
    options = await room.ask(ann, ticket)
    with pytest.raises(UserError, match="ERR-MFA-THROTTLED"):
        await room.give(ann, ticket, key.answer(options))


async def test_what_the_operator_no_longer_takes_no_longer_counts(room: KeyRoom, furnish: Furnish) -> None:
    await room.set_up(Authenticator(flags=UP | UV | BE))
    assert await room.webauthn.offer(DEFAULT_TENANT, "s-ann")
    strict = furnish(backup_eligible=False)
    assert not await strict.webauthn.offer(DEFAULT_TENANT, "s-ann")
    assert not await furnish(aaguids=frozenset({"x"})).webauthn.offer(DEFAULT_TENANT, "s-ann")


@BOTH
async def test_what_is_kept_is_sealed_and_follows_the_key(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(flags=UP | UV | BE, count=7))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    await room.give(ann, ticket, key.answer(options, flags=UP | UV | BE | BS, count=9))
    async with room.records.read() as connection:
        row = (await connection.execute(select(factors).where(factors.c.kind == "webauthn"))).one()
    assert key.credential not in row.secret
    kept = unpacked(room.sealer.unseal(row.secret, **place_of(DEFAULT_TENANT, row.id)))
    assert (kept.count, kept.backup_eligible, kept.backed_up, kept.credential) == (9, True, True, key.credential)
    assert row.last_used_at == room.clock.now()
