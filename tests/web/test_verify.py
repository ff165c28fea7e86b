"""The challenge page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from gateway.core.clock import ManualClock
from gateway.core.decision import Score
from gateway.core.errors import StoreAway
from gateway.core.events import Kind
from gateway.core.identity import Level, Proof
from gateway.core.rule import StepUpDemand
from gateway.mfa.attempts import LIFE
from gateway.mfa.interrupted import Interrupted
from gateway.store.tables import factors
from tests.web.conftest import Answer, Browser, House, P

AAL2 = StepUpDemand(Level.AAL2, max_age=600)


async def ask(
    house: House, browser: Browser, to: str = "/admin/", resume: str = "", demand: StepUpDemand = AAL2
) -> str:
    """What the wire does when the gate answers `StepUp`."""
    return await house.desk.stepups.begin(await house.identity(browser), demand, return_to=to, resume=resume)


async def answer(browser: Browser, ticket: str, code: str, method: str = "") -> Answer:
    page = await browser.get(f"verify/{ticket}" + (f"?method={method}" if method else ""))
    return await browser.fill(page, f"verify/{ticket}", code=code)


async def test_a_new_administrator_enrols_right_after_signing_in_and_lands(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    signed_in = await browser.sign_in("ann", query="?next=/admin/")
    assert signed_in.location == f"{P}enrol-first?next=%2Fadmin%2F"
    _, codes, done = await enrol(browser, "/admin/")
    assert len(codes) == 10
    assert 'href="/admin/"' in done.text
    identity = await house.identity(browser)
    assert (identity.level, "otp" in identity.amr) == (Level.AAL2, True)


async def test_a_right_code_proves_it_and_leads_on(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    """Cases 78 and 112: a new token, the level raised, the old token dead."""
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    await browser.sign_in("ann", query="?reauth=1&next=/admin/")
    before, token = await house.identity(browser), browser.cookies["sallyport"]
    assert before.level is Level.AAL1
    ticket = await ask(house, browser, "/admin/users?x=1")
    done = await answer(browser, ticket, phone.code())
    assert (done.status, done.location) == (303, "/admin/users?x=1")
    after = await house.identity(browser)
    assert browser.cookies["sallyport"] != token
    assert await house.desk.sessions.find(token) is None
    assert after.level is Level.AAL2
    assert after.session is not None
    assert before.session is not None
    assert (after.session.id, after.session.version) == (before.session.id, before.session.version + 1)
    assert [identity.level for _, identity in house.learnt][-1] is Level.AAL2
    assert len(await house.told(Kind.STEP_UP_PASSED)) == 1


async def test_an_interrupted_post_goes_on(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    owner = f"session:{(await house.identity(browser)).session.id}"  # type: ignore[union-attr]
    kept = Interrupted("POST", "app.example.com", b"/admin/orders", (), b"a=1")
    ticket = await house.desk.interrupted.keep(owner, kept)
    done = await answer(browser, await ask(house, browser, "/admin/orders", ticket), phone.code())
    assert (done.status, done.location) == (303, "/admin/orders")
    assert browser.cookies["sallyport-resume"] == ticket
    assert await house.desk.interrupted.claim(ticket, owner) == kept


async def interrupted(house: House, browser: Browser) -> tuple[str, str]:
    """The ticket of a challenge that came in between of something, and what waits for it."""
    owner = f"session:{(await house.identity(browser)).session.id}"  # type: ignore[union-attr]
    waiting = await house.desk.interrupted.keep(owner, Interrupted("POST", "app.example.com", b"/pay", (), b"a=1"))
    return await ask(house, browser, "/pay", waiting), waiting


async def test_what_was_interrupted_waits_while_the_proof_cannot_be_kept(
    house: House, browser: Browser, enrol: Callable[..., Any], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    ticket, waiting = await interrupted(house, browser)

    async def away(*_: object) -> None:
        raise StoreAway("sessions are away")

    spent = phone.code()
    with monkeypatch.context() as broken:
        broken.setattr(house.desk.sessions, "prove", away)
        assert (await answer(browser, ticket, spent)).status == 503
    assert (await answer(browser, ticket, spent)).status == 400, "it was claimed"
    clock.advance(30)
    done = await answer(browser, ticket, phone.code())
    assert (done.status, done.location) == (303, "/pay")
    assert browser.cookies["sallyport-resume"] == waiting


async def test_what_was_interrupted_goes_on_after_signing_in_where_the_session_ended_meanwhile(
    house: House, browser: Browser, enrol: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    ticket, _ = await interrupted(house, browser)
    prove = house.desk.sessions.prove

    async def too_late(token: str, proof: Proof) -> object:
        await house.desk.sessions.end_all("default", (await house.identity(browser)).subject)
        return await prove(token, proof)

    with monkeypatch.context() as racing:
        racing.setattr(house.desk.sessions, "prove", too_late)
        done = await answer(browser, ticket, phone.code())
    assert (done.status, done.location.partition("&resume=")[0]) == (303, f"{P}login?reauth=1&next=%2Fpay")
    moved = done.location.partition("&resume=")[2]
    assert await house.desk.interrupted.peek(moved, f"browser:{browser.cookies['sallyport-browser']}") is not None


async def test_a_proof_counts_also_where_nothing_else_can_be_remembered_of_it(
    house: House, browser: Browser, enrol: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old token is exchanged already: whoever is not given the new one is out."""
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    await browser.sign_in("ann", query="?reauth=1&next=/admin/")
    ticket = await ask(house, browser)

    async def away(*_: object) -> None:
        raise StoreAway("records are away")

    with monkeypatch.context() as broken:
        broken.setattr(house.desk.recoveries, "proven", away)
        house.forgetful = True
        done = await answer(browser, ticket, phone.code())
    assert (done.status, done.location) == (303, "/admin/")
    assert (await house.identity(browser)).level is Level.AAL2


async def test_a_wrong_code_asks_again_and_says_so(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    ticket = await ask(house, browser)
    wrong = await answer(browser, ticket, "000000" if phone.code() != "000000" else "111111")
    assert wrong.status == 400
    assert 'role="alert"' in wrong.text
    assert 'aria-invalid="true"' in wrong.text
    assert 'aria-describedby="problem code-hint"' in wrong.text
    assert (await browser.fill(wrong, f"verify/{ticket}", code=phone.code())).location == "/admin/"


async def test_guessing_codes_is_throttled(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("ann")
    await enrol(browser)
    ticket = await ask(house, browser)
    statuses = [(await answer(browser, ticket, f"00000{number}")).status for number in range(6)]
    assert statuses[0] == 400
    assert statuses[-1] == 429
    last = await answer(browser, ticket, "000009")
    assert int(last.headers["Retry-After"]) > 1
    assert re.search(r"Too many tries\. Please wait 15 minutes, until \d\d:\d\d UTC\.", last.text)
    (told,) = await house.told(Kind.STEP_UP_GUESSED)
    assert (told.user, told.detail) == ("ann", {"factor": "totp", "wrong": 5})
    assert (told.address, told.agent) == ("192.0.2.7", browser.agent)


async def test_a_backup_code_is_a_way_too_and_works_once(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("ann")
    _, codes, _ = await enrol(browser)
    ticket = await ask(house, browser)
    page = await browser.get(f"verify/{ticket}")
    assert f'href="{P}verify/{ticket}?method=backup_code"' in page.text
    assert (await answer(browser, ticket, codes[0], "backup_code")).location == "/admin/"
    again = await answer(browser, await ask(house, browser), codes[0], "backup_code")
    assert again.status == 400


async def test_one_code_in_two_posts_at_once_counts_once(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    """Case 106."""
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    pages = [await browser.get(f"verify/{await ask(house, browser)}") for _ in range(2)]
    answers = await asyncio.gather(
        *(browser.fill(page, page.text.split(f'action="{P}')[1].split('"')[0], code=phone.code()) for page in pages)
    )
    assert sorted(answer.status for answer in answers)[0] == 303
    assert len([answer for answer in answers if answer.status == 303 and answer.location == "/admin/"]) == 1


async def test_nothing_but_the_answer_proves_it(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any]
) -> None:
    """Case 111: no empty post, no other's ticket, no ticket that is over, no other form's token."""
    await browser.sign_in("ann")
    phone, _, _ = await enrol(browser)
    await browser.sign_in("ann", query="?reauth=1&next=/admin/")
    ticket = await ask(house, browser)
    page = await browser.get(f"verify/{ticket}")
    token = page.form(f"verify/{ticket}").fields["csrf"]

    assert (await browser.post(f"verify/{ticket}", {})).status == 403
    assert (await browser.post(f"verify/{ticket}", {"csrf": token})).status == 400
    assert (await browser.post(f"verify/{ticket}", {"csrf": token, "factor": "totp"})).status == 400
    assert (await browser.post(f"verify/{ticket}", {"csrf": token, "factor": "password", "code": "x"})).status == 400
    logout = (await browser.get("logout")).form("logout").fields["csrf"]
    assert (
        await browser.post(f"verify/{ticket}", {"csrf": logout, "factor": "totp", "code": phone.code()})
    ).status == 403

    other = visit()
    await other.sign_in("ann", query="?next=/admin/")
    stolen = await other.get(f"verify/{ticket}")
    assert (stolen.status, "ERR-MFA-CHALLENGE" in stolen.text) == (410, True)
    assert (await house.identity(browser)).level is Level.AAL1
    assert (await house.identity(other)).level is Level.AAL1

    assert (await answer(browser, ticket, phone.code())).status == 303
    assert (await browser.get(f"verify/{ticket}")).status == 410


async def test_nobody_has_to_sign_in_first(browser: Browser) -> None:
    answer = await browser.get("verify/1.abc")
    assert (answer.status, answer.location) == (303, f"{P}login?next=%2F.sallyport%2Fverify%2F1.abc")


@pytest.mark.parametrize("resume", [False, True])
async def test_a_fresh_sign_in_without_a_factor_is_shown_where_to_set_one_up(
    house: House, browser: Browser, resume: bool, enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("bob")
    owner = f"session:{(await house.identity(browser)).session.id}"  # type: ignore[union-attr]
    kept = Interrupted("POST", "app.example.com", b"/pay", (), b"a=1")
    waiting = await house.desk.interrupted.keep(owner, kept) if resume else ""
    page = await browser.get(f"verify/{await ask(house, browser, '/pay', waiting)}")
    after = f"%2F.sallyport%2Fresume%2F{waiting}%3Fnext%3D%252Fpay" if resume else "%2Fpay"
    assert f'href="{P}enrol?next={after}"' in page.text
    _, _, done = await enrol(browser, after)
    if not resume:
        assert 'href="/pay"' in done.text
        return
    onward = f"{P}resume/{waiting}?next=%2Fpay"
    assert f'href="{onward}"' in done.text
    sent = await browser.fill(await browser.get(onward), f"resume/{waiting}")
    assert (sent.status, sent.location) == (303, "/pay")


async def test_an_old_sign_in_without_a_factor_signs_in_again_and_keeps_what_was_interrupted(
    house: House, browser: Browser, clock: ManualClock
) -> None:
    """Case 113: a challenge never enrols by itself, and enrolment wants a fresh sign-in."""
    await browser.sign_in("bob")
    clock.advance(1200)
    owner = f"session:{(await house.identity(browser)).session.id}"  # type: ignore[union-attr]
    kept = Interrupted("POST", "app.example.com", b"/pay", (), b"a=1")
    ticket = await ask(house, browser, "/pay", await house.desk.interrupted.keep(owner, kept))
    page = await browser.get(f"verify/{ticket}")
    assert "/enrol" not in page.text
    direct = await browser.get("enrol")
    assert direct.location == f"{P}login?reauth=1&next=%2F.sallyport%2Fenrol"
    again = await browser.fill(page, f"verify/{ticket}")
    assert again.location.startswith(f"{P}login?reauth=1&next=%2Fpay&resume=")
    moved = again.location.partition("&resume=")[2]
    assert await house.desk.interrupted.peek(moved, f"browser:{browser.cookies['sallyport-browser']}") == replace(
        kept, whose="user:bob"
    )
    signed_in = await browser.sign_in("bob", query="?" + again.location.partition("?")[2])
    assert signed_in.location == f"{P}resume/{moved}?next=%2Fpay"


async def test_the_challenge_of_somebody_with_a_factor_never_speaks_of_setting_one_up(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    """Case 113."""
    await browser.sign_in("ann")
    await enrol(browser)
    for demand in (AAL2, StepUpDemand(Level.AAL2, frozenset({"webauthn"}))):
        page = await browser.get(f"verify/{await ask(house, browser, demand=demand)}")
        assert "enrol" not in page.text


async def test_a_first_factor_is_not_bound_from_a_place_that_looks_like_somebody_elses(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    """A stolen password must not turn into a second factor of the thief's."""
    house.risk = Score(0.64)
    await browser.sign_in("bob")
    page = await browser.get(f"verify/{await ask(house, browser)}")
    assert "looks unusual" in page.text
    assert "/enrol" not in page.text
    for answer_ in (await browser.get("enrol"), await browser.api("POST", "mfa/setup/totp")):
        assert (answer_.status, "ERR-MFA-UNUSUAL" in answer_.text) == (403, True)
    house.risk = Score(0.45)
    await enrol(browser)
    house.risk = Score(0.64)
    assert (await browser.get("enrol")).status == 200


async def test_a_factor_that_does_not_count_is_proven_before_one_that_does_is_added(
    house: House, browser: Browser, enrol: Callable[..., Any], clock: ManualClock
) -> None:
    """No dead end for who has one already: the page that sets another one up asks for that one first."""
    house.desk.factors.names = (*house.desk.factors.names, "webauthn")
    await browser.sign_in("bob")
    await enrol(browser)
    clock.advance(301)
    demand = StepUpDemand(Level.AAL3)
    ticket = await house.desk.stepups.begin(await house.identity(browser), demand, return_to="/vault")
    page = await browser.get(f"verify/{ticket}")
    assert f'href="{P}enrol-key?next=%2Fvault"' in page.text
    assert f'href="{P}enrol?' not in page.text
    async with house.records.begin() as connection:
        await connection.execute(update(factors).values(failures=LIFE))
    page = await browser.get(f"verify/{ticket}")
    assert f"{P}enrol" not in page.text
    assert "ask whoever looks after your account" in page.text
