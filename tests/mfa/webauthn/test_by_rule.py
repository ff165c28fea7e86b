"""User verification where a rule asks for it, whatever the operator says of keys in general."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.core.errors import UserError
from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT, Identity, Level, Proof, level_of
from gateway.core.rule import StepUpDemand
from gateway.mfa.stepup import _place as place_of_challenge
from tests.mfa.webauthn.conftest import AAL2, VERIFIED, Furnish, KeyRoom
from tests.rig.authenticator import BE, BS, UP, UV, Authenticator

PWD = Proof("password", 0.0)
BARE = StepUpDemand(Level.AAL2, verified=True)


@pytest.mark.parametrize("generally", ["preferred", "discouraged", "required"])
@pytest.mark.parametrize("flags", [UP | UV, UP | UV | BE | BS])
async def test_the_device_has_to_know_its_user(furnish: Furnish, generally: str, flags: int) -> None:
    room = furnish(user_verification=generally)
    key = await room.set_up(Authenticator(flags=flags))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann, VERIFIED)
    assert options["userVerification"] == "required"
    with pytest.raises(UserError) as refused:
        await room.give(ann, ticket, key.answer(options, flags=flags & ~UV))
    assert (refused.value.code, refused.value.status, refused.value.detail) == (
        "ERR-MFA-INVALID",
        400,
        "The answer of that key was not accepted. Please try again.",
    )
    (event,) = room.ledger.of(Kind.STEP_UP_FAILED)
    assert event.detail == {"factor": "webauthn", "outcome": "ERR-MFA-INVALID", "why": "user_verification"}
    proof = await room.give(ann, ticket, key.answer(await room.ask(ann, ticket, VERIFIED)))
    assert (proof.verified, level_of((PWD, proof))) == (True, Level.AAL2 if flags & BE else Level.AAL3)


async def test_only_keys_are_offered(room: KeyRoom) -> None:
    await room.set_up()
    secret = await room.bind()
    ann = room.fresh("ann")
    assert set((await room.stepups.look(await room.stepups.begin(ann, AAL2, return_to="/"), ann)).offered) > {"totp"}
    for demand in (VERIFIED, BARE):
        ticket = await room.stepups.begin(ann, demand, return_to="/")
        assert (await room.stepups.look(ticket, ann)).offered == ("webauthn",)
        for factor, code in (("totp", room.code(secret)), ("backup_code", "x"), ("sms", "1"), ("email", "1")):
            with pytest.raises(UserError, match="ERR-MFA-METHOD"):
                await room.stepups.answer(ticket, ann, factor, code)
    contradiction = StepUpDemand(Level.AAL2, frozenset({"totp"}), verified=True)
    ticket = await room.stepups.begin(ann, contradiction, return_to="/")
    assert (await room.stepups.look(ticket, ann)).offered == ()


async def test_what_was_asked_is_told_with_it(room: KeyRoom) -> None:
    ann = room.fresh("ann")
    await room.question(ann, VERIFIED)
    await room.question(ann, AAL2)
    assert [event.detail for event in room.ledger.of(Kind.STEP_UP_ASKED)] == [
        {"level": "aal2", "factors": ["webauthn"], "user_verification": "required"},
        {"level": "aal2", "factors": []},
    ]


async def test_a_challenge_keeps_what_it_asks_also_when_it_is_put_again(room: KeyRoom) -> None:
    await room.set_up()
    ann = room.fresh("ann")
    ticket = await room.stepups.begin(ann, VERIFIED, return_to="/")
    challenge = await room.stepups.look(ticket, ann)
    assert challenge.demand == VERIFIED
    assert challenge.asked("session-1").verified
    await room.stepups.reopen(challenge, ann)
    assert (await room.stepups.look(ticket, ann)).demand == VERIFIED


async def test_an_answer_to_an_easier_question_does_not_answer_this_one(room: KeyRoom) -> None:
    """A touch for one challenge, sent to the other: there is no question open there that it fits."""
    key = await room.set_up(Authenticator(flags=UP))
    ann = room.fresh("ann")
    _, easy = await room.question(ann, AAL2)
    ticket, _ = await room.question(ann, VERIFIED)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(easy))
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.give(ann, ticket, key.answer(easy, flags=UP | UV))
    assert [event.detail["why"] for event in room.ledger.of(Kind.STEP_UP_FAILED)] == ["challenge", "challenge"]


# -- replicas of two versions -----------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


async def rewrite(room: KeyRoom, who: Identity, ticket: str, change: Change) -> dict[str, Any]:
    """What is kept of a challenge, changed; as it was."""
    assert who.session is not None
    place = place_of_challenge(who.session, DEFAULT_TENANT, ticket)
    value = await room.kv.get(place)
    assert value is not None
    kept: dict[str, Any] = orjson.loads(value)
    before = dict(kept)
    change(kept)
    await room.kv.put(place, orjson.dumps(kept), 600.0)
    return before


async def test_an_older_replica_reads_in_it_that_a_key_is_asked_for(room: KeyRoom) -> None:
    """It does not know the word, and knows `factors`; the touch it might take is judged by the rule as every proof."""
    ann = room.fresh("ann")
    ticket = await room.stepups.begin(ann, VERIFIED, return_to="/")
    kept = await rewrite(room, ann, ticket, lambda kept: None)
    assert (kept["factors"], kept["level"], kept["verified"]) == (["webauthn"], 2, True)


async def test_what_an_older_replica_has_kept_asks_for_no_more_than_it_did(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(flags=UP))
    ann = room.fresh("ann")
    ticket = await room.stepups.begin(ann, AAL2, return_to="/")
    await rewrite(room, ann, ticket, lambda kept: kept.pop("verified"))
    assert (await room.stepups.look(ticket, ann)).demand == AAL2
    proof = await room.give(ann, ticket, key.answer(await room.ask(ann, ticket, AAL2)))
    assert not proof.verified


@pytest.mark.parametrize("odd", [True, None, 1, "required", "false", 0, []])
async def test_whatever_else_stands_there_asks_for_more(room: KeyRoom, odd: object) -> None:
    await room.set_up()
    ann = room.fresh("ann")
    ticket = await room.stepups.begin(ann, AAL2, return_to="/")
    await rewrite(room, ann, ticket, lambda kept: kept.update(verified=odd))
    challenge = await room.stepups.look(ticket, ann)
    assert (challenge.demand.verified, challenge.offered) == (True, ("webauthn",))
