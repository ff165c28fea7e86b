"""A form that was cut short by a question arrives once, byte for byte, and its answer is shown."""

from __future__ import annotations

from tests.e2e.browser import Browser
from tests.e2e.house import House, Phone, Received

MESSAGE = '100% = all + more & "quotes" <b>\nsecond line; ünïcödé 漢字 \\ %41 ~'
FORM = "A form that is interrupted"


def fill(browser: Browser, message: str = MESSAGE) -> bytes:
    """Fill in the form that is shown; its submission id."""
    browser.see(FORM)
    browser.fill("Name", "Zoë & Ann").fill("Message", message)
    return browser.attribute("input[name=submission]", "value").encode()


def expected(browser: Browser, message: str = MESSAGE) -> bytes:
    """What the browser itself sends for this form, learnt from a place that asks nothing."""
    submission = fill(browser.go("/public/form"), message)
    browser.press("Send to /public/form").see("Received once")
    return submission


def the_one(house: House, target: str) -> Received:
    (post,) = [one for one in house.posts() if one.target == target]
    return post


def test_a_step_up_in_between(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/admin/").sign_in("ann").answer(phone.code).see("A service behind Sallyport")
    known = expected(browser)
    as_sent = the_one(house, "/public/form").body.replace(known, b"<id>")

    browser.go("/admin/form")
    submission = fill(browser)
    house.clock.leap(11 * 60)
    browser.press("Send to /admin/form").see("Confirm it is you")
    browser.look("challenge-interrupted")
    assert [one for one in house.posts() if one.target == "/admin/form"] == []
    browser.answer(phone.wrong_code).see("Confirm it is you", "not right")
    browser.answer(phone.code).see("Received once", "You are ann.", "Zoë & Ann")
    assert browser.path == "/admin/form"
    post = the_one(house, "/admin/form")
    assert post.body.replace(submission, b"<id>") == as_sent
    assert post.values("Content-Length") == [str(len(post.body))]
    assert post.values("Content-Type") == ["application/x-www-form-urlencoded"]
    assert post.values("X-Forwarded-Preferred-Username") == ["ann"]
    browser.look("received")


def test_reloading_and_going_back_send_nothing_again(house: House, browser: Browser) -> None:
    """Neither the form, nor the page of ours that asked for the code: that is nobody's business."""
    phone, _ = house.enrol("ann")
    browser.go("/admin/form").sign_in("ann").answer(phone.code)
    fill(browser)
    house.clock.leap(11 * 60)
    browser.press("Send to /admin/form").answer(phone.code).see("Received once")
    browser.reload()
    browser.see(FORM)
    browser.back()
    browser.go("/admin/form").see(FORM)
    house.clock.leap(5 * 60)
    browser.reload()
    assert [one.target for one in house.posts()] == ["/admin/form"]
    assert [one for one in house.received if b"code=" in one.body or b"csrf=" in one.body] == []


def test_the_next_form_is_not_mistaken_for_the_last_one(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/admin/form").sign_in("ann").answer(phone.code)
    fill(browser)
    house.clock.leap(11 * 60)
    browser.press("Send to /admin/form").answer(phone.code).see("Received once")
    browser.go("/admin/form")
    second = fill(browser, "another")
    browser.press("Send to /admin/form").see("Received once", "another")
    bodies = [one.body for one in house.posts() if one.target == "/admin/form"]
    assert len(bodies) == 2
    assert second in bodies[1]


def test_a_sign_in_in_between(house: House, browser: Browser) -> None:
    known = expected(browser)
    as_sent = the_one(house, "/public/form").body.replace(known, b"<id>")
    browser.go("/form").sign_in("bob")
    submission = fill(browser)
    house.clock.leap(3700)  # idle for too long
    browser.press("Send to /form").see("Sign in", "What you were sending is kept.")
    browser.look("sign-in-interrupted")
    browser.sign_in("bob", "a wrong password").see("Sign in", "not right")
    browser.sign_in("bob").see("Send it on?", "/form")
    browser.look("send-it-on")
    assert [one for one in house.posts() if one.target == "/form"] == []
    browser.press("Send it now").see("Received once", "You are bob.", "Zoë & Ann")
    post = the_one(house, "/form")
    assert post.body.replace(submission, b"<id>") == as_sent
    browser.reload()
    browser.see(FORM)
    assert len([one for one in house.posts() if one.target == "/form"]) == 1


def test_filled_in_by_a_stranger_and_sent_behind_the_gate(house: House, browser: Browser) -> None:
    submission = fill(browser.go("/public/form"))
    browser.press("Send to /form").see("Sign in")
    browser.sign_in("bob").see("Send it on?")
    browser.press("Send it now").see("Received once", "You are bob.")
    assert submission in the_one(house, "/form").body


def test_a_sign_in_and_a_second_factor_in_between(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    submission = fill(browser.go("/public/form"))
    browser.press("Send to /admin/form").sign_in("ann").see("Send it on?")
    browser.press("Send it now").see("Confirm it is you")
    browser.answer(phone.code).see("Received once", "You are ann.")
    assert submission in the_one(house, "/admin/form").body
    assert len(house.posts()) == 1


def test_thrown_away(house: House, browser: Browser) -> None:
    fill(browser.go("/public/form"))
    browser.press("Send to /form").sign_in("bob").press("Throw it away").see("A service behind Sallyport")
    assert house.posts() == []
    browser.back()
    browser.reload()
    assert house.posts() == []


def test_enrolment_in_between(house: House, browser: Browser) -> None:
    """An administrator without a factor, with a form in hand: nothing of it is lost."""
    submission = fill(browser.go("/public/form"))
    browser.press("Send to /admin/form").sign_in("ann").see("Set up a second factor")
    browser.press("Authenticator app").press("Start")
    phone = Phone(browser.hidden_text("#secret").replace(" ", ""), house.clock)
    browser.fill("Six-digit code", phone.code).press("Confirm").press("I have saved them").see("Send it on?")
    browser.press("Send it now").see("Received once", "You are ann.")
    assert submission in the_one(house, "/admin/form").body
    assert len(house.posts()) == 1


def test_its_answer_is_not_taken_for_the_page_itself(house: House, browser: Browser) -> None:
    """The browser asked with GET; an answer to POST that may be kept must not be what it shows from then on."""
    phone, _ = house.enrol("ann")
    browser.go("/admin/cacheable").sign_in("ann").answer(phone.code).see("A form")
    house.clock.leap(11 * 60)
    browser.press("Send").answer(phone.code).see("Sent")
    browser.go("/public/").go("/admin/cacheable").see("A form")
