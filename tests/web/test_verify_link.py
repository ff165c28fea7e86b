"""The link of a letter, followed: by whom it counts for, and by everybody else (cases 105, 109, 115)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import ClientSession

from gateway.core.clock import ManualClock
from gateway.core.decision import Score
from gateway.core.errors import StoreAway
from gateway.core.events import Kind
from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.mfa.attempts import RUN
from gateway.mfa.codes.code import LIFETIME
from gateway.mfa.interrupted import Interrupted
from gateway.mfa.trusted_devices import TrustedDevices
from tests.rig.post import RecordingPost
from tests.web.conftest import Answer, Browser, House, P, _all_forms
from tests.web.test_bad_input import kept, said
from tests.web.test_codes import add, asked, post, sending
from tests.web.test_pages import Page

__all__ = ["post", "sending"]

MAIL = "ann@example.org"
MADE_UP = "1-" + "A" * 43 + "." + "A" * 43
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 14.0) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15"


@pytest.fixture
async def ann(sending: House, browser: Browser, post: RecordingPost, clock: ManualClock) -> Browser:
    """Ann, signed in by her password, with an address for codes."""
    await browser.sign_in("ann")
    assert (await add(browser, post, "email", MAIL)).status == 200
    clock.advance(3600)
    await browser.sign_in("ann", query="?reauth=1")
    return browser


async def letter(browser: Browser, ticket: str, post: RecordingPost) -> str:
    """Have a letter sent that answers `ticket`; the path of its link."""
    page = await browser.get(f"verify/{ticket}?method=email")
    sent = await browser.fill(page, f"verify/{ticket}/send")
    assert sent.status == 303, sent.text
    token = post.box[-1].link
    assert token.startswith(f"{ticket}.")
    return f"verify/link?token={token}"


def post_of(link: str) -> dict[str, str]:
    return {"token": link.partition("token=")[2]}


def form_token(house: House, browser: Browser, session: str) -> str:
    return house.desk.mac.token("form", browser.cookies["sallyport-browser"], session, "verify-link")


async def pressed(house: House, browser: Browser, link: str) -> Answer:
    """What a form of ours would send, for a page that was never shown."""
    session = (await house.identity(browser)).session_id if "sallyport" in browser.cookies else ""
    if "sallyport-browser" not in browser.cookies:
        await browser.get("login")
    return await browser.post("verify/link", {"csrf": form_token(house, browser, session), **post_of(link)})


async def level(house: House, browser: Browser) -> Level:
    return (await house.identity(browser)).level


# -- by whom it counts for ---------------------------------------------------------------------------------------------


async def test_from_the_letter_to_the_other_side(
    sending: House,
    ann: Browser,
    post: RecordingPost,
) -> None:
    before, token = await sending.identity(ann), ann.cookies["sallyport"]
    assert before.level is Level.AAL1
    ticket = await sending.desk.stepups.begin(
        before, StepUpDemand(Level.AAL2, max_age=600), return_to="/admin/users?x=1"
    )
    link = await letter(ann, ticket, post)
    question = await ann.get(f"verify/{ticket}?method=email")
    assert "Or open the link in the e-mail, in this browser." in question.text
    page = await ann.get(link, headers={"Sec-Fetch-Site": "cross-site", "Referer": "https://mail.example/"})
    assert page.status == 200
    (form,) = _all_forms(page)
    assert (form.action, sorted(form.fields)) == (f"{P}verify/link", ["csrf", "token"])
    assert await level(sending, ann) is Level.AAL1, "a look is no answer"
    done = await ann.fill(page, "verify/link")
    assert (done.status, done.location) == (303, "/admin/users?x=1")
    after = await sending.identity(ann)
    assert (after.level, after.amr) == (Level.AAL2, ("otp", "pwd", "mfa"))
    assert ann.cookies["sallyport"] != token
    assert await sending.desk.sessions.find(token) is None
    assert len(await sending.told(Kind.STEP_UP_PASSED)) == 1
    for again in (await ann.fill(page, "verify/link"), await ann.get(link)):
        assert (again.status, "This link does nothing here" in again.text) == (410, True)
    code = await ann.fill(question, f"verify/{ticket}", code=post.last)
    assert (code.status, "no longer open" in code.text) == (410, True)


async def test_the_code_spends_the_link(sending: House, ann: Browser, post: RecordingPost) -> None:
    ticket = await asked(sending, ann)
    link = await letter(ann, ticket, post)
    page = await ann.get(link)
    typed = await ann.fill(await ann.get(f"verify/{ticket}?method=email"), f"verify/{ticket}", code=post.last)
    assert typed.status == 303
    assert ((await ann.fill(page, "verify/link")).status, (await ann.get(link)).status) == (410, 410)
    assert len(await sending.told(Kind.STEP_UP_PASSED)) == 1


async def test_what_was_interrupted_goes_on_once(
    sending: House,
    ann: Browser,
    post: RecordingPost,
) -> None:
    identity = await sending.identity(ann)
    owner, what = f"session:{identity.session_id}", Interrupted("POST", "app.example.com", b"/pay", (), b"a=1")
    waiting = await sending.desk.interrupted.keep(owner, what)
    demand = StepUpDemand(Level.AAL2, max_age=600)
    ticket = await sending.desk.stepups.begin(identity, demand, return_to="/pay", resume=waiting)
    page = await ann.get(await letter(ann, ticket, post))
    done = await ann.fill(page, "verify/link")
    assert (done.status, done.location) == (303, "/pay")
    assert ann.cookies.pop("sallyport-resume") == waiting
    again = await ann.fill(page, "verify/link")
    assert (again.status, "sallyport-resume" in ann.cookies) == (410, False)
    assert await sending.desk.interrupted.claim(waiting, owner) == what


async def test_twenty_presses_at_once_are_one_answer(
    sending: House,
    ann: Browser,
    post: RecordingPost,
) -> None:
    ticket = await asked(sending, ann)
    page = await ann.get(await letter(ann, ticket, post))
    question = await ann.get(f"verify/{ticket}?method=email")
    presses = [ann.fill(page, "verify/link") for _ in range(16)]
    typed = [ann.fill(question, f"verify/{ticket}", code=post.last) for _ in range(4)]
    answers = await asyncio.gather(*presses, *typed)
    assert [one.status for one in answers].count(303) == 1
    assert {one.status for one in answers} <= {303, 400, 410, 429}
    assert len(await sending.told(Kind.STEP_UP_PASSED)) == 1


async def asked_by_a_rule_that_trusts(house: House, browser: Browser, clock: ManualClock) -> str:
    """The ticket of a challenge, where browsers can be trusted."""
    desk = house.desk
    object.__setattr__(desk, "trusted", TrustedDevices(house.records, clock, desk.ledger, desk.sessions.end_in))
    demand = StepUpDemand(Level.AAL2, trusted=30 * 86_400.0)
    return await desk.stepups.begin(await house.identity(browser), demand, return_to="/")


@pytest.mark.parametrize("ticked", [True, False])
async def test_a_browser_can_be_trusted_there_too(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    clock: ManualClock,
    ticked: bool,
) -> None:
    ticket = await asked_by_a_rule_that_trusts(sending, ann, clock)
    page = await ann.get(await letter(ann, ticket, post))
    assert "Trust this browser for 30 days" in page.text
    assert "checked" not in page.text
    done = await ann.fill(page, "verify/link", trust="yes" if ticked else "")
    assert (done.status, "sallyport-trusted" in ann.cookies) == (303, ticked)


async def test_where_it_looks_strange_none_is_trusted(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    clock: ManualClock,
) -> None:
    ticket = await asked_by_a_rule_that_trusts(sending, ann, clock)
    link = await letter(ann, ticket, post)
    sending.risk = Score(0.9, (), None)
    page = await ann.get(link)
    assert "Trust this browser" not in page.text
    done = await ann.fill(page, "verify/link", trust="yes")
    assert (done.status, "sallyport-trusted" in ann.cookies) == (303, False)


async def test_a_dialog_hears_of_it(sending: House, ann: Browser, post: RecordingPost) -> None:
    """Its window waits with a question that is over; the page that the link ends at tells the script."""
    opened = await ann.get(f"{P}dialog?acr_values=aal2&max_age=600")
    ticket = opened.location.removeprefix(f"{P}verify/")
    done = await ann.fill(await ann.get(await letter(ann, ticket, post)), "verify/link")
    assert done.location == f"{P}dialog/done"
    last = await ann.get(done.location)
    assert (last.status, f'data-subject="{(await sending.identity(ann)).tenant}/' in last.text) == (200, True)


async def test_programs_that_asked_are_told_by_their_ticket(
    sending: House,
    ann: Browser,
    post: RecordingPost,
) -> None:
    challenge = (await ann.api("POST", "mfa/challenge", {})).json["challenge"]
    assert (await ann.api("POST", "mfa/send", {"challenge": challenge, "factor": "email"})).status == 200
    page = await ann.get(f"verify/link?token={post.box[-1].link}")
    assert (await ann.fill(page, "verify/link")).location == f"{P}account"
    late = await ann.api("POST", "mfa/verify", {"challenge": challenge, "factor": "email", "code": post.last})
    assert (late.status, late.json["code"]) == (410, "ERR-MFA-CHALLENGE")


# -- by everybody else -------------------------------------------------------------------------------------------------


async def test_machines_that_look_into_mails_change_nothing(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    client: ClientSession,
) -> None:
    link = await letter(ann, await asked(sending, ann), post)
    before = await kept(sending)
    scanner = Browser(client, address="198.51.100.9", agent="Scanner/1.0")
    for who in (scanner, ann):
        for method in ("GET", "HEAD", "GET"):
            assert (await who.send(method, P + link)).status == (410 if who is scanner else 200)
    assert await kept(sending) == before
    assert scanner.cookies == {}
    assert (await ann.fill(await ann.get(link), "verify/link")).status == 303


async def test_it_lets_nobody_in_who_waits_elsewhere(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    visit: Callable[..., Browser],
    clock: ManualClock,
) -> None:
    """A thief has the password and has the letter sent; its owner presses on whatever comes."""
    thief = visit(address="203.0.113.66", agent=MAC)
    await thief.sign_in("ann")
    link = await letter(thief, await asked(sending, thief), post)
    phone = visit(address="198.51.100.7")
    for owner in (ann, phone):
        assert (await owner.get(link)).status == 410
        assert (await pressed(sending, owner, link)).status == 410
    assert (await level(sending, thief), await level(sending, ann)) == (Level.AAL1, Level.AAL1)
    assert await sending.told(Kind.STEP_UP_PASSED) == []
    page = await thief.get(link)
    form = page.form("verify/link")
    ann.cookies["sallyport-browser"] = thief.cookies["sallyport-browser"]  # even with all of the thief's form
    assert (await ann.post("verify/link", form.fields)).status == 403
    assert await level(sending, thief) is Level.AAL1


async def test_everybody_is_told_the_same(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    visit: Callable[..., Browser],
    clock: ManualClock,
) -> None:
    """Foreign, old, used, made up, malformed; signed in or not; followed and pressed."""
    bob, stranger, elsewhere = visit(), visit(), visit()
    await bob.sign_in("bob")
    await elsewhere.sign_in("ann")
    used = await letter(ann, await asked(sending, ann), post)
    assert (await ann.fill(await ann.get(used), "verify/link")).status == 303
    clock.advance(60)
    ticket = await asked(sending, ann)
    old = await letter(ann, ticket, post)
    clock.advance(60)
    good = await letter(ann, ticket, post)
    other = await asked(sending, ann)
    crossed = f"verify/link?token={other}.{good.rpartition('.')[2]}"
    links = {"used": used, "old": old, "made up": f"verify/link?token={MADE_UP}", "crossed": crossed,
             "malformed": "verify/link?token=x", "empty": "verify/link?token="}  # fmt: skip
    tried = [(ann, name, link) for name, link in links.items()]
    tried += [
        (who, name, link) for who in (bob, stranger, elsewhere) for name, link in (*links.items(), ("good", good))
    ]
    first = None
    for number, (who, name, link) in enumerate(tried):
        who.wire["Sallyport-Client-Address"] = f"2001:db8::{number:x}"
        who.wire["Sallyport-Client-Network"] = f"2001:db8:{number:x}::/64"
        followed = await who.get(link)
        first = first or said(followed)
        assert (followed.status, said(followed)) == (410, first), name
        button = await pressed(sending, who, link)
        assert (button.status, said(button)) == (410, first), name
    assert "ann" not in str(first)
    assert len(await sending.told(Kind.STEP_UP_PASSED)) == 1
    assert await level(sending, bob) is Level.AAL1
    assert (await ann.fill(await ann.get(good), "verify/link")).status == 303, "nothing of it has spent the good one"


async def test_wrong_ones_are_counted_like_wrong_codes(
    sending: House,
    ann: Browser,
    post: RecordingPost,
) -> None:
    ticket = await asked(sending, ann)
    page = await ann.get(await letter(ann, ticket, post))
    for _ in range(RUN):
        assert (await ann.fill(page, "verify/link", token=f"{ticket}.{'A' * 43}")).status == 410
    throttled = await ann.fill(page, "verify/link")
    assert (throttled.status, "Too many tries" in throttled.text) == (429, True)
    assert int(throttled.headers["Retry-After"]) > 800
    assert await level(sending, ann) is Level.AAL1


async def test_it_is_over_after_ten_minutes(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    clock: ManualClock,
) -> None:
    link = await letter(ann, await asked(sending, ann), post)
    page = await ann.get(link)
    clock.advance(LIFETIME)
    assert ((await ann.get(link)).status, (await ann.fill(page, "verify/link")).status) == (410, 410)


async def test_a_rule_that_counts_no_mail_is_not_answered_by_it(
    sending: House,
    ann: Browser,
    post: RecordingPost,
) -> None:
    link = await letter(ann, await asked(sending, ann), post)
    demand = StepUpDemand(Level.AAL2, frozenset({"totp"}))
    other = await sending.desk.stepups.begin(await sending.identity(ann), demand, return_to="/")
    crossed = f"verify/link?token={other}.{link.rpartition('.')[2]}"
    assert (await ann.get(crossed)).status == 410
    assert (await pressed(sending, ann, crossed)).status == 410
    assert await level(sending, ann) is Level.AAL1


async def test_no_other_page_can_press_it(sending: House, ann: Browser, post: RecordingPost) -> None:
    link = await letter(ann, await asked(sending, ann), post)
    form = (await ann.get(link)).form("verify/link").fields
    session = (await sending.identity(ann)).session_id
    browser = ann.cookies["sallyport-browser"]
    for name in ("verify", "recover-link", "verify-link-"):
        token = sending.desk.mac.token("form", browser, session, name)
        assert (await ann.post("verify/link", {**form, "csrf": token})).status == 403
    evil = {"Origin": "https://evil.example"}
    assert (await ann.post("verify/link", form, headers=evil, origin=False)).status == 403
    assert (await ann.post("verify/link", form, headers={"Sec-Fetch-Site": "same-site"})).status == 403
    assert (await ann.post("verify/link", form, origin=False)).status == 403
    assert await level(sending, ann) is Level.AAL1
    assert (await ann.post("verify/link", form)).status == 303


async def test_where_the_store_is_away_it_proves_nothing_and_stays_good(
    sending: House,
    ann: Browser,
    post: RecordingPost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = await letter(ann, await asked(sending, ann), post)
    page = await ann.get(link)

    def away(*_: object, **__: object) -> object:
        raise StoreAway("away")

    for name in ("begin", "read"):
        with monkeypatch.context() as broken:
            broken.setattr(sending.records, name, away)
            assert (await ann.fill(page, "verify/link")).status == 503
    assert await level(sending, ann) is Level.AAL1
    assert (await ann.fill(page, "verify/link")).status == 303


# -- what is shown -----------------------------------------------------------------------------------------------------


async def test_its_secret_goes_nowhere(sending: House, ann: Browser, post: RecordingPost) -> None:
    link = await letter(ann, await asked(sending, ann), post)
    secret = link.rpartition(".")[2]
    good = await ann.get(link)
    bad = await ann.get(f"verify/link?token={MADE_UP}")
    for answer in (good, bad):
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        page = Page(answer.text)
        assert not page.all("script")
        for _, attrs in page.elements:
            for name in ("href", "src", "action"):
                assert "token" not in attrs.get(name, "")
    assert good.text.count(secret) == 1, "in its form"
    assert "A" * 43 not in bad.text
    assert "Set-Cookie" not in bad.headers
    done = await ann.fill(good, "verify/link")
    assert secret not in done.location
    await ann.fill(good, "verify/link")
    await sending.ledger.flush()
    assert secret not in repr(await sending.ledger.events("default", limit=500))


async def test_programs_are_told_too(sending: House, browser: Browser) -> None:
    for answer in (
        await browser.get(f"verify/link?token={MADE_UP}", headers={"Accept": "application/json"}),
        await browser.post("verify/link", {"token": MADE_UP}, headers={"Accept": "application/json"}),
    ):
        assert (answer.status, answer.json["code"]) == (410, "ERR-MFA-LINK")


async def test_in_turkish(sending: House, ann: Browser, post: RecordingPost) -> None:
    ann.cookies["sallyport-language"] = "tr"
    link = await letter(ann, await asked(sending, ann), post)
    assert post.box[-1].language == "tr"
    good, bad = await ann.get(link), await ann.get(f"verify/link?token={MADE_UP}")
    assert "E-postamızdaki bağlantıyı açtınız." in good.text
    assert "Bu bağlantı burada işe yaramaz" in bad.text
    for answer in (good, bad):
        page = Page(answer.text)
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
