"""Signing in and out."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.core.events import Kind
from gateway.identity.session_rows import SessionRows
from gateway.identity.session_store import Lifetimes, Terms
from gateway.mfa.interrupted import Interrupted
from tests.web.conftest import PASSWORD, Browser, House, P


async def test_the_right_password_opens_a_session_and_leads_on(house: House, browser: Browser) -> None:
    page = await browser.get("login?next=/reports%3Fyear%3D2026")
    answer = await browser.fill(page, "login", username="Bob ", password=PASSWORD)
    assert (answer.status, answer.location) == (303, "/reports?year=2026")
    identity = await house.identity(browser)
    assert (identity.user, identity.amr) == ("bob", ("pwd",))
    assert [(event.user, event.address) for event in await house.told(Kind.SIGN_IN)] == [("bob", "192.0.2.7")]
    assert [learnt.user for _, learnt in house.learnt] == ["bob"]


async def test_who_is_let_in_is_in_also_where_nothing_else_can_be_remembered_of_it(
    house: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreAway("away")

    house.forgetful = True
    monkeypatch.setattr(house.desk.throttle, "succeeded", away)
    monkeypatch.setattr(house.desk.users, "speak", away)
    assert (await browser.sign_in()).location == "/"
    assert (await house.identity(browser)).user == "bob"
    assert len(await house.told(Kind.SIGN_IN)) == 1


async def test_without_a_next_it_leads_to_the_service(browser: Browser) -> None:
    assert (await browser.sign_in()).location == "/"


@pytest.mark.parametrize("evil", ["//evil", "/%5cevil", "https://evil", "/%0d%0aSet-Cookie:x=y", "javascript:alert(1)"])
async def test_a_next_that_leads_elsewhere_is_dropped(browser: Browser, evil: str) -> None:
    """Cases 73 and 74, where they are used; the corpus itself is in test_return_to."""
    from urllib.parse import quote

    page = await browser.get(f"login?next={quote(evil, safe='')}")
    assert "evil" not in page.text
    fields = page.form("login").fields | {"username": "bob", "password": PASSWORD, "next": evil}
    answer = await browser.post("login", fields)
    assert (answer.status, answer.location) == (303, "/")
    live = await browser.get(f"login?next={quote(evil, safe='')}")
    assert live.status == 200


async def test_cookies_over_https_are_host_bound(visit: Callable[..., Browser]) -> None:
    browser = visit(scheme="https")
    answer = await browser.sign_in()
    cookies = answer.headers.getall("Set-Cookie")
    assert {line.partition("=")[0] for line in cookies} == {"__Host-sallyport", "__Host-sallyport-device"}
    for line in cookies:
        for attribute in ("; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"):
            assert attribute in line
        assert "Domain" not in line


async def test_unknown_wrong_and_disabled_are_told_the_same(house: House, visit: Callable[..., Browser]) -> None:
    """Case 104, without its stop watch: status, headers and body, but for the name typed and the form's token."""
    await house.desk.users.add("carla", PASSWORD)
    await house.desk.users.disable("carla")
    seen = []
    for name, password in (("bob", "not this one"), ("nobody", PASSWORD), ("carla", PASSWORD), ("\x00!!", PASSWORD)):
        answer = await visit(address=f"192.0.2.{len(seen)}").sign_in(name, password)
        body = re.sub(r'(name="csrf" value=)"[^"]*"', r"\1", answer.text).replace(f'value="{name}"', "")
        kept = {key: value for key, value in answer.headers.items() if key not in ("Date", "Content-Length")}
        seen.append((answer.status, kept, re.sub(r'id="username" value="[^"]*"', "", body)))
    assert seen[0][0] == 401
    assert "The user name or the password is not right." in seen[0][2]
    assert seen[0] == seen[1] == seen[2] == seen[3]


async def test_a_password_typed_as_a_name_is_not_written_down(house: House, browser: Browser) -> None:
    await browser.sign_in("hunter2-is-my-password", "x")
    await browser.sign_in("bob", "x")
    assert [event.user for event in await house.told(Kind.SIGN_IN_FAILED)] == ["bob", ""]


async def test_guessing_is_throttled_within_ten_tries_and_the_wait_grows(house: House, browser: Browser) -> None:
    answers = [await browser.sign_in("bob", f"guess {number}") for number in range(10)]
    assert 429 in {answer.status for answer in answers}
    stopped = next(answer for answer in answers if answer.status == 429)
    assert int(stopped.headers["Retry-After"]) >= 1
    assert "Too many tries" in stopped.text
    assert stopped.form("login").fields["username"] == "bob"
    assert await house.told(Kind.SIGN_IN_THROTTLED)


@pytest.mark.parametrize("late", [False, True])
async def test_a_password_that_nobody_had_the_time_for_costs_no_try(
    house: House, browser: Browser, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """`late`: there was room when they came, and somebody else has taken it."""
    with monkeypatch.context() as busy:
        busy.setattr("gateway.identity.passwords.QUEUE", 0)
        if late:
            busy.setattr("gateway.identity.local.LocalUsers.demand_room", lambda users: None)
        answers = [await browser.sign_in("bob", f"guess {number}") for number in range(12)]
        assert {(answer.status, answer.headers["Retry-After"]) for answer in answers} == {(503, "2")}
        assert "ERR-BUSY" in answers[0].text
    assert (await browser.sign_in()).status == 303


async def test_throttling_tells_nothing_of_who_exists(visit: Callable[..., Browser]) -> None:
    ann, nobody = visit(address="192.0.2.1"), visit(address="192.0.2.2")
    first = [(await ann.sign_in("ann", "x")).status for _ in range(8)]
    second = [(await nobody.sign_in("nobody", "x")).status for _ in range(8)]
    assert first == second
    assert 429 in first


async def test_a_stranger_does_not_lock_the_owner_out(visit: Callable[..., Browser]) -> None:
    owner, stranger = visit(address="192.0.2.1"), visit(address="203.0.113.9")
    await owner.sign_in()
    await owner.fill(await owner.get("logout"), "logout")
    for _ in range(9):
        last = await stranger.sign_in("bob", "guess")
    assert last.status == 429
    assert (await owner.sign_in()).status == 303


async def test_the_session_is_another_one_after_every_sign_in(house: House, browser: Browser) -> None:
    """Case 78: what was in the cookie before is dead, planted or not."""
    browser.cookies["sallyport"] = "A" * 43
    await browser.sign_in()
    first = browser.cookies["sallyport"]
    assert first != "A" * 43
    again = await browser.fill(await browser.get("login?reauth=1"), "login", username="ann", password=PASSWORD)
    assert again.status == 303
    assert browser.cookies["sallyport"] != first
    assert await house.desk.sessions.find(first) is None


@pytest.mark.parametrize(
    "cookie",
    ["sallyport=x", "sallyport=" + "A" * 8192, "sallyport=\xff\xfe", "sallyport=", "sallyport", "a=b; sallyport=!!!!"],
)
async def test_a_damaged_session_cookie_is_nobodys(browser: Browser, cookie: str) -> None:
    """Case 79."""
    answer = await browser.get("whoami", headers={"Cookie": cookie})
    assert answer.json["authenticated"] is False
    answer = await browser.get("account", headers={"Cookie": cookie})
    assert (answer.status, answer.location) == (303, f"{P}login?next=%2F.sallyport%2Faccount")


async def test_two_session_cookies_are_nobodys(browser: Browser) -> None:
    """Cases 79 and 80."""
    await browser.sign_in()
    mine = f"sallyport={browser.cookies['sallyport']}"
    for cookie in (f"{mine}; {mine}", f"{mine}; sallyport=tossed", f"sallyport=tossed; {mine}"):
        assert (await browser.get("whoami", headers={"Cookie": cookie})).json["authenticated"] is False


async def test_who_is_signed_in_is_sent_straight_on(browser: Browser) -> None:
    await browser.sign_in()
    assert (await browser.get("login?next=/reports")).location == "/reports"
    assert (await browser.get("login")).status == 200
    assert (await browser.get("login?next=/reports&reauth=1")).status == 200


async def test_administrators_without_a_second_factor_set_one_up_first(browser: Browser) -> None:
    answer = await browser.sign_in("ann", query="?next=/admin/users%3Fx=1")
    assert answer.location == f"{P}enrol-first?next=%2Fadmin%2Fusers%3Fx%3D1"
    first = await browser.get(answer.location)
    assert f'href="{P}enrol?next=/admin/users%3Fx%3D1"' in first.text
    page = await browser.get("enrol?next=/admin/users%3Fx%3D1")
    assert page.status == 200
    assert "Your account needs a second factor" in page.text
    assert page.form("enrol").fields["next"] == "/admin/users?x=1"


async def test_what_was_interrupted_waits_behind_a_page_and_not_in_this_answer(house: House, browser: Browser) -> None:
    """Whoever signs in now need not be who filled in the form."""
    await browser.get("login")
    owner = f"browser:{browser.cookies['sallyport-browser']}"
    kept = Interrupted("POST", "app.example.com", b"/orders?draft=7", (), b"item=1&note=%3Cb%3E")
    ticket = await house.desk.interrupted.keep(owner, kept)
    answer = await browser.sign_in(query=f"?next=/orders%3Fdraft%3D7&resume={ticket}")
    assert (answer.status, answer.location) == (303, f"{P}resume/{ticket}?next=%2Forders%3Fdraft%3D7")
    page = await browser.get(answer.location)
    for shown in ("app.example.com<", "POST /orders<", "19 bytes", "bob<"):
        assert shown in page.text
    for hidden in ("draft", "item", "note"):  # nothing of what is in it
        assert hidden not in page.text.partition("<main")[2].partition("</main")[0]
    sent = await browser.fill(page, f"resume/{ticket}")
    assert (sent.status, sent.location) == (303, "/orders?draft=7")
    morsel = SimpleCookie(sent.headers["Set-Cookie"])["sallyport-resume"]
    assert (morsel.value, morsel["max-age"]) == (ticket, "60")
    assert await house.desk.interrupted.claim(ticket, owner) == kept


async def test_what_was_interrupted_can_be_thrown_away(house: House, browser: Browser) -> None:
    await browser.sign_in()
    owner = f"session:{(await house.identity(browser)).session.id}"  # type: ignore[union-attr]
    ticket = await house.desk.interrupted.keep(owner, Interrupted("POST", "app.example.com", b"/x", (), b"a=1"))
    gone = await browser.fill(await browser.get(f"resume/{ticket}"), f"resume/{ticket}", drop="yes")
    assert gone.status == 303
    again = await browser.get(f"resume/{ticket}?next=/x")
    assert (again.status, "ERR-RESUME" in again.text) == (404, True)
    assert 'href="/x"' in again.text


async def test_nobody_sends_on_what_somebody_else_kept(
    house: House, browser: Browser, visit: Callable[..., Browser]
) -> None:
    await browser.sign_in()
    owner = f"session:{(await house.identity(browser)).session.id}"  # type: ignore[union-attr]
    ticket = await house.desk.interrupted.keep(owner, Interrupted("POST", "app.example.com", b"/x", (), b"secret=1"))
    other = visit()
    await house.desk.users.add("carl", PASSWORD)
    await other.sign_in("carl")
    assert (await other.get(f"resume/{ticket}")).status == 404


async def test_signing_out_ends_the_session_at_once(house: House, browser: Browser) -> None:
    """Case 81."""
    await browser.sign_in()
    token = browser.cookies["sallyport"]
    page = await browser.get("logout")
    assert await house.desk.sessions.find(token) is not None
    answer = await browser.fill(page, "logout")
    assert (answer.status, answer.location) == (303, f"{P}login")
    assert "sallyport" not in browser.cookies
    assert await house.desk.sessions.find(token) is None
    assert [event.user for event in await house.told(Kind.SIGN_OUT)] == ["bob"]


async def test_signing_out_twice_is_no_error(browser: Browser) -> None:
    assert (await browser.get("logout")).location == f"{P}login"
    assert (await browser.post("logout", {})).location == f"{P}login"


async def test_an_idle_session_is_over(browser: Browser, clock: ManualClock) -> None:
    """Case 82, as the pages see it."""
    await browser.sign_in()
    clock.advance(3601)
    assert (await browser.get("account")).location.startswith(f"{P}login")


async def test_whoever_is_signed_in_at_too_many_places_is_told_what_to_do(
    house: House, browser: Browser, visit: Callable[..., Browser]
) -> None:
    """No list of their sessions: this browser is nobody's. And no count of failures: the password was right."""
    one = Lifetimes(3600.0, 86_400.0, 1)
    store = house.desk.sessions._store
    assert isinstance(store, SessionRows)
    store._terms = Terms(one, refuse=True)
    assert (await browser.sign_in("bob")).status == 303
    other = visit(address="192.0.2.99", agent="Elsewhere/1")
    refused = await other.sign_in("bob", query="?next=/reports")
    assert refused.status == 403
    assert "one place" in refused.text
    assert "ERR-SESSION-LIMIT" in refused.text
    assert "192.0.2.7" not in refused.text
    assert "Firefox" not in refused.text
    assert "sallyport" not in other.cookies
    assert 'href="/.sallyport/login?next=%2Freports"' in refused.text
    assert [event.user for event in await house.told(Kind.SESSION_LIMIT)] == ["bob"]
    assert await house.told(Kind.SIGN_IN_FAILED) == []
    assert (await other.sign_in("bob", "wrong password")).status == 401
    assert (await browser.sign_in("bob")).status == 303  # in the place of its own
    session = (await house.identity(browser)).session
    assert session is not None
    bob = await house.desk.users.find("bob")
    assert bob is not None
    assert await house.desk.sessions.end(bob.tenant, bob.subject, session.id)
    assert (await other.sign_in("bob")).status == 303
