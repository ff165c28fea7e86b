"""Getting back in, through the pages: asking, the two links, and two administrators; with the real rooms behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.core.events import Kind
from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.identity.session_rows import revoke
from gateway.mfa.recovery import DAY, Recoveries
from gateway.store.tables import users
from gateway.web.proof import FRESH
from tests.rig.letters import Letters
from tests.web.conftest import PASSWORD, Browser, House, P, Phone

AAL2 = StepUpDemand(Level.AAL2)
Visit = Callable[..., Browser]


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
async def house(house: House, letters: Letters) -> House:
    """As ever, and the operator allows it by e-mail; carl looks after accounts beside ann."""
    desk = house.desk
    recoveries = Recoveries(
        house.records,
        desk.clock,
        desk.ledger,
        desk.mac,
        unbind=desk.enrolment.unbind,
        revoke=revoke,
        letters=letters,
        by_email=True,
    )
    house.desk = replace(desk, recoveries=recoveries)
    await desk.users.add("carl", PASSWORD, email="carl@example.com", groups=["admins"])
    async with house.records.begin() as connection:
        await connection.execute(users.update().values(email_confirmed=users.c.email, email_confirmed_at=1.0))
    return house


@pytest.fixture
async def lost(visit: Visit, enrol: Callable[..., Any], clock: ManualClock) -> Phone:
    """Bob's telephone, which is lost."""
    browser = visit()
    await browser.sign_in("bob")
    phone: Phone
    phone, _, _ = await enrol(browser)
    clock.advance(DAY)
    return phone


async def mailed(house: House, browser: Browser, letters: Letters, clock: ManualClock) -> str:
    """Bob asks, nobody objects: the link."""
    await browser.sign_in("bob")
    assert (await browser.fill(await browser.get("recover"), "recover")).status == 303
    clock.advance(DAY)
    await house.desk.recoveries.turn()
    return f"recover/link?token={letters.ready_[-1][1]}"


async def again(browser: Browser, link: str) -> Any:
    """Sign in afresh on the way to `link`."""
    sent = await browser.get(link)
    assert sent.status == 303
    assert sent.location.startswith(f"{P}login?")
    done = await browser.sign_in("bob", query="?" + sent.location.partition("?")[2])
    assert (done.status, done.location) == (303, P + link)
    return await browser.get(link)


async def test_from_the_question_nobody_can_answer_to_a_new_factor(
    house: House, browser: Browser, visit: Visit, letters: Letters, lost: Phone, enrol: Any, clock: ManualClock
) -> None:
    elsewhere = visit(address="203.0.113.9")
    await browser.sign_in("bob")
    ticket = await house.desk.stepups.begin(await house.identity(browser), AAL2, return_to="/")
    page = await browser.get(f"verify/{ticket}")
    assert f'<a href="{P}recover">I cannot use any of these</a>' in page.text
    page = await browser.get("recover")
    assert "1 day" in page.text
    assert "7 days" in page.text
    sent = await browser.fill(page, "recover")
    assert (sent.status, sent.location) == (303, f"{P}recover")
    begun = await browser.get("recover")
    assert "It has begun" in begun.text
    assert "16 November 2023, 22:13 UTC" in begun.text
    assert len(letters.asked_) == 1
    assert await house.told(Kind.RECOVERY_ASKED)

    clock.advance(DAY)
    await elsewhere.sign_in("bob")
    await house.desk.recoveries.turn()
    link = f"recover/link?token={letters.ready_[0][1]}"
    page = await again(browser, link)
    assert page.status == 200
    assert "Remove your second factors?" in page.text
    assert len(await house.desk.factors.of("default", (await house.identity(browser)).subject)) == 2, "not by looking"
    old = browser.cookies["sallyport"]
    done = await browser.fill(page, "recover/link")
    assert (done.status, done.location) == (303, f"{P}enrol-first?next=%2F.sallyport%2Faccount")

    assert await house.desk.sessions.find(old) is None
    assert await house.desk.sessions.find(elsewhere.cookies["sallyport"]) is None
    identity = await house.identity(browser)
    assert (identity.level, [one.factor for one in identity.session.proofs if identity.session]) == (  # type: ignore[union-attr]
        Level.AAL1,
        ["password"],
    )
    assert await house.desk.factors.of(identity.tenant, identity.subject) == []
    assert (await browser.get(f"verify/{ticket}")).status == 410, "what was asked before is over"
    await enrol(browser)
    assert (await house.identity(browser)).level is Level.AAL2
    assert [event.user for event in await house.told(Kind.RECOVERED)] == ["bob"]


async def test_a_link_is_used_up_only_by_who_is_signed_in_with_it(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await mailed(house, browser, letters, clock)
    page = await again(browser, link)
    mine = browser.cookies["sallyport"]

    async def full(*_: Any, **__: Any) -> Any:
        raise StoreAway("disk full")

    for whose, what in ((house.desk.sessions._store, "open"), (house.ledger, "enter")):
        with monkeypatch.context() as broken:
            broken.setattr(whose, what, full)
            away = await browser.fill(page, "recover/link")
        assert (away.status, browser.cookies["sallyport"]) == (503, mine)
        assert await house.desk.factors.usable("default", (await house.identity(browser)).subject) != ()
        assert await house.told(Kind.RECOVERED) == []
    done = await browser.fill(page, "recover/link")
    assert (done.status, done.location.startswith(f"{P}enrol-first?")) == (303, True)
    assert [proof.factor for proof in (await house.identity(browser)).session.proofs] == ["password"]  # type: ignore[union-attr]
    assert len(await house.told(Kind.RECOVERED)) == 1


async def test_the_link_once_more_in_parallel_and_from_the_browser_that_used_it(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    link = await mailed(house, browser, letters, clock)
    page = await again(browser, link)
    assert (await browser.fill(page, "recover/link")).status == 303
    for _ in range(2):
        gone = await browser.get(link)
        assert (gone.status, "ERR-RECOVERY" in gone.text) == (410, True)
    page_again = await browser.fill(page, "recover/link")
    assert page_again.status == 403, "its form belonged to the session that is over"
    (event,) = await house.told(Kind.RECOVERY_FAILED)
    assert event.detail == {"what": "link", "count": 2}


async def test_with_nobody_signed_in_a_link_tells_nothing(
    house: House, browser: Browser, visit: Visit, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    link = await mailed(house, browser, letters, clock)
    stranger = visit(address="203.0.113.9")
    right, wrong = await stranger.get(link), await stranger.get("recover/link?token=made-up")
    assert (right.status, right.body) == (wrong.status, wrong.body) == (303, b"")
    assert right.location.replace(letters.ready_[0][1], "made-up") == wrong.location
    assert await house.told(Kind.RECOVERY_FAILED) == []
    await stranger.sign_in("ann")
    foreign, made_up = await stranger.get(link), await stranger.get("recover/link?token=made-up")
    assert (foreign.status, foreign.body) == (made_up.status, made_up.body)
    assert foreign.status == 410


async def test_the_password_is_asked_for_again_even_where_somebody_is_signed_in(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    link = await mailed(house, browser, letters, clock)
    await browser.sign_in("bob")
    clock.advance(FRESH + 1)
    sent = await browser.get(link)
    assert (sent.status, sent.location.startswith(f"{P}login?reauth=1&next=")) == (303, True)
    page = await again(browser, link)
    clock.advance(FRESH + 1)
    late = await browser.fill(page, "recover/link")
    assert (late.status, late.location.startswith(f"{P}login?reauth=1&next=")) == (303, True)
    assert await house.told(Kind.RECOVERED) == []
    page = await again(browser, link)
    assert (await browser.fill(page, "recover/link")).location.startswith(f"{P}enrol-first?")


async def test_asking_takes_a_password_that_was_just_shown(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    page = await browser.get("recover")
    clock.advance(FRESH + 1)
    for answer in (await browser.get("recover"), await browser.fill(page, "recover")):
        assert (answer.status, answer.location.startswith(f"{P}login?reauth=1")) == (303, True)
    assert (await browser.api("POST", "mfa/recovery")).json["code"] == "ERR-STEP-UP"
    assert letters.asked_ == []


async def test_nothing_begins_without_a_form_of_ours(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    """Case 86: nor is anything ended or used by a page of another site, or by following a link."""
    link = await mailed(house, browser, letters, clock)
    await browser.sign_in("bob")
    cancel = letters.asked_[0][1]
    for path, token in (("recover", ""), ("recover/link", letters.ready_[0][1]), ("recover/cancel", cancel)):
        forged = await browser.post(path, {"token": token, "csrf": "x"})
        assert (forged.status, "ERR-CSRF" in forged.text) == (403, True)
        foreign = await browser.post(path, {"token": token}, headers={"Origin": "https://evil.example"})
        assert foreign.status == 403
        head = await browser.send("HEAD", P + (link if "link" in path else f"{path}?token={token}"))
        assert head.status == 200
    (one,) = await house.desk.recoveries.every("default")
    assert one.state == "ready"


async def test_whoever_gets_the_letter_stops_it(
    house: House, browser: Browser, visit: Visit, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    link = await mailed(house, browser, letters, clock)
    owner = visit(address="203.0.113.9")
    page = await owner.get(f"recover/cancel?token={letters.asked_[0][1]}")
    assert page.status == 200
    assert "Stop it?" in page.text
    assert (await house.desk.recoveries.every("default"))[0].state == "ready", "not by looking: machines follow links"
    done = await owner.fill(page, "recover/cancel")
    assert (done.status, "It is stopped" in done.text) == (200, True)
    assert (await owner.fill(page, "recover/cancel")).status == 410
    assert (await again(browser, link)).status == 410


@pytest.mark.parametrize(
    "token", ["", "x", "%00", "%FF%FE", "a" * 8000, "..%2F..%2F", "%3Cscript%3E", "x.y&token=z", "%F0%9F%94%91"]
)
async def test_what_is_no_token(
    token: str, house: House, browser: Browser, lost: Phone, visit: Visit, clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    bodies = set()
    for path in ("recover/link", "recover/cancel"):
        answer = await browser.get(f"{path}?token={token}")
        assert answer.status == 410
        assert "<script" not in answer.text
        bodies.add(answer.body)
    assert len(bodies) == 1
    events = await house.told(Kind.RECOVERY_FAILED)
    assert sum(event.detail.get("count", 1) for event in events) == 2
    assert not any(token in str(event.detail) for event in events if len(token) > 5)


async def test_where_the_operator_does_not_allow_it_there_is_no_way(
    house: House, browser: Browser, lost: Phone, clock: ManualClock, letters: Letters
) -> None:
    house.desk.recoveries.by_email = False
    await browser.sign_in("bob")
    ticket = await house.desk.stepups.begin(await house.identity(browser), AAL2, return_to="/")
    assert "recover" not in (await browser.get(f"verify/{ticket}")).text
    assert (await browser.get("recover")).status == 404
    answer = await browser.api("POST", "mfa/recovery")
    assert (answer.status, answer.json["code"]) == (404, "ERR-RECOVERY-OFF")
    assert letters.asked_ == []


async def test_out_of_use_after_too_many_wrong_answers_there_is_a_way_too(
    house: House, browser: Browser, lost: Phone, clock: ManualClock
) -> None:
    from sqlalchemy import update

    from gateway.store.tables import factors

    async with house.records.begin() as connection:
        await connection.execute(update(factors).values(failures=100))
    await browser.sign_in("bob")
    ticket = await house.desk.stepups.begin(await house.identity(browser), AAL2, return_to="/")
    page = await browser.get(f"verify/{ticket}")
    assert f'<a href="{P}recover">I have lost every second factor</a>' in page.text


async def test_a_code_that_is_right_after_all_ends_it(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    link = await mailed(house, browser, letters, clock)
    await browser.sign_in("bob")
    ticket = await house.desk.stepups.begin(await house.identity(browser), AAL2, return_to="/")
    page = await browser.get(f"verify/{ticket}?method=totp")
    assert (await browser.fill(page, f"verify/{ticket}", code=lost.code())).status == 303
    assert [event.detail["why"] for event in await house.told(Kind.RECOVERY_ENDED)] == ["proven"]
    assert (await browser.get(link)).status == 410


async def test_who_is_signed_in_elsewhere_sees_it_and_stops_it(
    house: House, browser: Browser, visit: Visit, enrol: Any, letters: Letters, clock: ManualClock
) -> None:
    owner = visit(address="203.0.113.9")
    await owner.sign_in("bob")
    phone, _, _ = await enrol(owner)
    assert "Somebody asks" not in (await owner.get("account")).text
    clock.advance(600)
    await browser.sign_in("bob")
    await browser.fill(await browser.get("recover"), "recover")
    for whose in (browser, owner):
        page = await whose.get("account")
        assert "Somebody asks to get back into your account" in page.text
        asked = await whose.fill(page, "account/recovery/stop")
        assert (asked.status, asked.location.startswith(f"{P}verify/")) == (303, True), "the password is not enough"
    assert await house.told(Kind.RECOVERY_ENDED) == []
    verify = asked.location.removeprefix(P)
    await owner.fill(await owner.get(verify + "?method=totp"), verify, code=phone.code())
    assert [event.detail["why"] for event in await house.told(Kind.RECOVERY_ENDED)] == ["proven"]
    clock.advance(1)
    await house.desk.recoveries.ask(await house.identity(browser))
    stopped = await owner.fill(await owner.get("account"), "account/recovery/stop")
    assert stopped.location == f"{P}account?done=recovery-stopped"
    assert "It is stopped" in (await owner.get("account?done=recovery-stopped")).text
    assert await house.desk.recoveries.every("default") == []


async def test_in_the_language_of_whoever_reads(
    house: House, browser: Browser, visit: Visit, enrol: Any, letters: Letters, lost: Phone
) -> None:
    turkish = {"headers": {"Accept-Language": "tr"}}
    await browser.sign_in("bob")
    page = await browser.get("recover", **turkish)
    assert "Kimse durdurmazsa 1 gün sonra bir bağlantı göndeririz. Bağlantı 7 gün boyunca geçerlidir" in page.text
    await browser.fill(page, "recover")
    begun = await browser.get("recover", **turkish)
    assert "<strong>16 Kasım 2023, 22:13 UTC</strong>" in begun.text
    stop = await browser.get(f"recover/cancel?token={letters.asked_[0][1]}", **turkish)
    assert "parolayı bilen biri" in stop.text
    ann = visit(address="203.0.113.9")
    await administrator(ann, enrol, "ann")
    listed = await ann.get("recoveries", **turkish)
    assert "30 saniye önce istendi · bağlantısı 23 saat sonra gönderilecek · 7 gün sonra sona eriyor" in listed.text


async def test_another_password_ends_it(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    """Case 116."""
    link = await mailed(house, browser, letters, clock)
    another = "another " + PASSWORD
    await house.desk.users.set_password("bob", another)
    await browser.sign_in("bob", another)
    assert (await browser.get(link)).status == 410
    page = await browser.get("recover")
    assert "Begin" in page.text, "a new one can be asked for"


async def test_too_often(house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock) -> None:
    await browser.sign_in("bob")
    for _ in range(3):
        assert (await browser.fill(await browser.get("recover"), "recover")).status == 303
        await house.desk.recoveries.cancel(letters.asked_[-1][1])
        clock.advance(1)
    answer = await browser.fill(await browser.get("recover"), "recover")
    assert (answer.status, "ERR-RECOVERY-THROTTLED" in answer.text) == (429, True)
    assert int(answer.headers["Retry-After"]) > DAY - 60


async def test_for_programs(house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock) -> None:
    await browser.sign_in("bob")
    answer = await browser.api("POST", "mfa/recovery")
    assert (answer.status, sorted(answer.json)) == (202, ["asked_at", "due_at"])
    again = await browser.api("POST", "mfa/recovery")
    assert again.json == answer.json
    letters.nowhere = True
    await house.desk.recoveries.cancel(letters.asked_[0][1])
    nowhere = await browser.api("POST", "mfa/recovery")
    assert (nowhere.status, sorted(nowhere.json)) == (202, ["asked_at", "due_at"])


# --- two administrators -----------------------------------------------------------------------------------------------


async def administrator(browser: Browser, enrol: Any, name: str) -> Phone:
    await browser.sign_in(name)
    phone, _, _ = await enrol(browser)
    assert isinstance(phone, Phone)
    return phone


async def test_on_the_page_one_asks_and_another_one_agrees(
    house: House, visit: Visit, enrol: Any, lost: Phone, letters: Letters
) -> None:
    ann, carl = visit(), visit(address="203.0.113.9")
    await administrator(ann, enrol, "ann")
    await administrator(carl, enrol, "carl")
    assert f'<a href="{P}recoveries">' in (await ann.get("account")).text
    page = await ann.get("recoveries")
    asked = await ann.fill(page, "recoveries", user="BOB", reason="showed a <b>passport</b>")
    assert (asked.status, asked.location) == (303, f"{P}recoveries?done=asked")
    assert len(letters.asked_) == 1
    mine = await ann.get("recoveries?done=asked")
    assert "you asked for it" in mine.text
    assert "showed a &lt;b&gt;passport&lt;/b&gt;" in mine.text
    assert "/approve" not in mine.text
    (one,) = await house.desk.recoveries.every("default")
    csrf = mine.form(f"recoveries/{one.id}/refuse").fields["csrf"]
    forced = await ann.post(f"recoveries/{one.id}/approve", {"csrf": csrf})
    assert (forced.status, "Another administrator has to do that" in forced.text) == (403, True)

    done = await carl.fill(await carl.get("recoveries"), f"recoveries/{one.id}/approve")
    assert (done.status, done.location) == (303, f"{P}recoveries?done=approve")
    bob = await house.desk.users.find("bob")
    assert bob is not None
    assert await house.desk.factors.of(bob.tenant, bob.subject) == []
    (event,) = await house.told(Kind.RECOVERED)
    assert (event.user, event.detail["by"], event.detail["asked_by"]) == ("bob", "carl", "ann")
    assert "None." in (await carl.get("recoveries")).text


async def test_the_page_says_what_is_wrong(house: House, browser: Browser, enrol: Any) -> None:
    await administrator(browser, enrol, "ann")
    for fields, code, said in (
        ({"user": "nobody", "reason": "x"}, 404, "There is no such user."),
        ({"user": "ann", "reason": "x"}, 403, "Another administrator"),
        ({"user": "bob", "reason": " "}, 400, "Say why"),
        ({"user": "bob", "reason": "x"}, 409, "no second factor"),
    ):
        answer = await browser.fill(await browser.get("recoveries"), "recoveries", **fields)
        assert (answer.status, said in answer.text) == (code, True), fields
    gone = await browser.fill(await browser.get("recoveries"), "recoveries", user="x" * 300, reason="y" * 2000)
    assert gone.status == 404


async def test_it_is_for_administrators_with_a_second_factor_shown_just_now(
    house: House, browser: Browser, visit: Visit, enrol: Any, lost: Phone, clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    assert (await browser.get("recoveries")).status == 403
    assert "recoveries" not in (await browser.get("account")).text
    for method, path, body in (
        ("GET", "recoveries", None),
        ("GET", "recoveries/x", None),
        ("POST", "users/ann/recovery", {"reason": "x"}),
        ("POST", "recoveries/x/approve", None),
        ("POST", "recoveries/x/refuse", None),
    ):
        assert (await browser.api(method, path, body)).json["code"] == "ERR-FORBIDDEN"
    ann = visit(address="203.0.113.9")
    await ann.sign_in("ann")
    await administrator(ann, enrol, "ann")
    unproven = visit(address="203.0.113.9")
    await unproven.sign_in("ann")
    assert (await unproven.api("GET", "recoveries")).json["code"] == "ERR-STEP-UP"
    assert (await ann.api("GET", "recoveries")).json == {"recoveries": []}
    clock.advance(FRESH + 1)
    assert (await ann.api("GET", "recoveries")).status == 200
    assert (await ann.api("POST", "users/bob/recovery", {"reason": "x"})).json["code"] == "ERR-STEP-UP"
    assert (await ann.api("POST", "recoveries/x/approve")).json["code"] == "ERR-STEP-UP"
    assert (await ann.api("POST", "recoveries/x/refuse")).json["code"] == "ERR-STEP-UP"


async def test_through_the_api(house: House, visit: Visit, enrol: Any, lost: Phone, clock: ManualClock) -> None:
    ann, carl = visit(), visit(address="203.0.113.9")
    await administrator(ann, enrol, "ann")
    await administrator(carl, enrol, "carl")
    asked = await ann.api("POST", "users/bob/recovery", {"reason": "lost in the lake"})
    assert asked.status == 201
    assert (asked.json["state"], asked.json["asked_by"], asked.json["user"]) == ("pending", "ann", "bob")
    recovery = asked.json["id"]
    assert (await ann.api("POST", "users/bob/recovery", {"reason": "x"})).json["code"] == "ERR-RECOVERY-OPEN"
    assert (await ann.api("POST", "users/zoe/recovery", {"reason": "x"})).json["code"] == "ERR-USER-UNKNOWN"
    assert (await ann.api("POST", f"recoveries/{recovery}/approve")).json["code"] == "ERR-RECOVERY-OWN"
    assert (await carl.api("GET", "recoveries")).json["recoveries"] == [asked.json]
    done = await carl.api("POST", f"recoveries/{recovery}/approve")
    assert (done.status, done.json["state"], done.json["settled_by"]) == (200, "done", "carl")
    assert (await carl.api("POST", f"recoveries/{recovery}/approve")).json["code"] == "ERR-RECOVERY"
    assert (await carl.api("POST", f"recoveries/{recovery}/refuse")).status == 410
    assert (await carl.api("GET", "recoveries?all=true")).json["recoveries"] == [done.json]
    assert (await carl.api("GET", f"recoveries/{recovery}")).json == done.json
    assert (await carl.api("GET", "recoveries/none")).status == 404


async def test_no_page_of_it_lets_a_token_out(
    house: House, browser: Browser, letters: Letters, lost: Phone, clock: ManualClock
) -> None:
    """It is in the form of its own page and nowhere else: no link, no picture, no referrer leads it away."""
    link = await mailed(house, browser, letters, clock)
    page = await again(browser, link)
    token = letters.ready_[0][1]
    assert re.findall(r"<[^>]*" + re.escape(token) + r"[^>]*>", page.text) == [
        f'<input type="hidden" name="token" value="{token}">'
    ]
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert "script-src" not in page.headers["Content-Security-Policy"]
