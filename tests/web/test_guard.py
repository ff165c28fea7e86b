"""What every request passes and every answer wears."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.core.events import Kind
from gateway.web.api.openapi import ENDPOINTS
from gateway.web.callbacks import PATH
from gateway.web.caller import read_cookies
from gateway.web.routes import PAGES
from tests.web.conftest import PASSWORD, Browser, House, P

FORMS = [path for method, path, _ in PAGES if method == "POST" and not path.startswith(PATH)]
"""What posts to callbacks is a signature over all it says, and no cookie: see `test_callbacks`."""


@pytest.mark.parametrize("path", ["login", "whoami", "nothing", "api/docs", "api/v1/mfa/status", "account.css"])
async def test_every_answer_is_dressed_and_private(browser: Browser, path: str) -> None:
    """Cases 77 and 121."""
    answer = await browser.get(path)
    policy = answer.headers["Content-Security-Policy"]
    for part in (
        "default-src 'none'",
        "style-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept-Language, Cookie, Authorization"
    assert answer.headers["Server"] == "sallyport"


@pytest.mark.parametrize("path", ["account/x.css", "account.css", "account%2fx.css", "whoami/x.js", "verify/t/x.png"])
async def test_a_page_has_one_address(browser: Browser, path: str) -> None:
    """Case 121: nothing below a page looks like a file and holds the page."""
    await browser.sign_in()
    answer = await browser.get(path)
    assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store")
    assert "bob" not in answer.text


FOREIGN: list[dict[str, str]] = [
    {},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://app.example.com:8080"},
    {"Origin": "https://app.example.com"},
    {"Origin": "http://app.example.com.evil"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://app.example.com"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    {"Referer": "http://app.example.com/.sallyport/login"},
]


async def test_forms_of_others_are_refused(visit: Callable[..., Browser]) -> None:
    """Case 86, for every form there is."""
    for path in FORMS:
        browser = visit(address=f"192.0.2.{FORMS.index(path)}")
        for headers in FOREIGN:
            answer = await browser.post(path.replace("{", "").replace("}", ""), {}, headers=headers, origin=False)
            assert (answer.status, "ERR-CSRF" in answer.text) == (403, True), (path, headers)


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://app.example.com"}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}]
)
async def test_our_own_forms_are_heard(browser: Browser, headers: dict[str, str]) -> None:
    form = (await browser.get("login")).form("login")
    fields = form.fields | {"username": "bob", "password": PASSWORD}
    assert (await browser.post("login", fields, headers=headers, origin=False)).status == 303


async def test_a_form_wants_this_browsers_token(browser: Browser, visit: Callable[..., Browser]) -> None:
    """Case 86: not none, not another browser's, not another form's, not another session's."""
    fields = {"username": "bob", "password": PASSWORD}
    other = visit()
    theirs = (await other.get("login")).form("login").fields["csrf"]
    await browser.get("login")
    for token in ("", "x", theirs, theirs[:-1]):
        refused = await browser.post("login", fields | {"csrf": token})
        assert (refused.status, "ERR-CSRF" in refused.text) == (403, True)
    assert (await browser.post("login", fields)).status == 403
    assert "sallyport" not in browser.cookies

    await browser.sign_in()
    logout = (await browser.get("logout")).form("logout").fields["csrf"]
    assert (await browser.post("account/sessions/extend", {"csrf": logout})).status == 403
    await browser.sign_in("ann", query="?reauth=1&next=/")
    assert (await browser.post("logout", {"csrf": logout})).status == 403
    assert (await browser.get("whoami")).json["user"] == "ann"


async def test_a_get_changes_nothing(browser: Browser) -> None:
    """Case 86."""
    await browser.sign_in()
    await browser.get("logout")
    for path in ("account/backup-codes", "account/sessions/end-others", "account/factors/x/remove"):
        answer = await browser.get(path)
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
    assert (await browser.get("whoami")).json["authenticated"] is True


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"username=bob"),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("application/json", b"{}"),
        ("", b"username=bob"),
    ],
)
async def test_only_forms_are_read_where_a_form_belongs(browser: Browser, content_type: str, body: bytes) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await browser.send("POST", f"{P}login", body=body, headers=headers)
    assert answer.status == 415


async def test_a_field_that_comes_twice_is_refused(browser: Browser) -> None:
    form = (await browser.get("login")).form("login")
    body = f"csrf={form.fields['csrf']}&username=ann&username=bob&password=x".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await browser.send("POST", f"{P}login", body=body, headers=headers)).status == 400


async def test_a_large_body_is_refused(browser: Browser) -> None:
    fields = {"username": "bob", "password": "x" * 70_000}
    answer = await browser.post("login", fields)
    assert (answer.status, "ERR-TOO-LARGE" in answer.text) == (413, True)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "zstd"])
async def test_nothing_is_unpacked(browser: Browser, coding: str) -> None:
    """Case 125."""
    bomb = zlib.compress(b"a" * 50_000_000)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": coding}
    answer = await browser.send("POST", f"{P}login", body=bomb[:60_000], headers=headers)
    assert (answer.status, "ERR-ENCODING" in answer.text) == (415, True)


async def test_nobody_but_the_wire_is_heard(client: aiohttp.ClientSession) -> None:
    for headers in ({}, {"Sallyport-Scheme": "http"}, {"Sallyport-Scheme": "ftp", "Sallyport-Host": "x"}):
        async with client.get(f"http://desk{P}login", headers=headers) as response:
            assert response.status == 400
            assert (await response.json(content_type=None))["code"] == "ERR-NOT-THE-WIRE"


async def test_too_many_requests_of_one_address_end_in_429(
    browser: Browser, visit: Callable[..., Browser], clock: ManualClock
) -> None:
    statuses = [(await browser.get("whoami")).status for _ in range(70)]
    assert statuses.count(200) == 60
    last = await browser.get("whoami", headers={"Accept": "application/json"})
    assert (last.status, last.json["code"], last.headers["Retry-After"]) == (429, "ERR-THROTTLED", "1")
    assert (await visit(address="192.0.2.200").get("whoami")).status == 200
    clock.advance(1)
    assert (await browser.get("whoami")).status == 200


async def test_forms_that_check_a_secret_are_counted_apart(browser: Browser, clock: ManualClock) -> None:
    statuses = []
    for number in range(50):
        statuses.append((await browser.post("login", {"username": str(number)})).status)
        clock.advance(0.05)
    assert 40 <= statuses.count(403) <= 46
    assert statuses[-1] == 429


@pytest.mark.parametrize("accept", ["text/html", "application/json", "*/*"])
async def test_unknown_addresses_and_methods(browser: Browser, accept: str) -> None:
    page = accept == "text/html"
    nothing = await browser.get("nothing", headers={"Accept": accept})
    assert (nothing.status, "ERR-NOT-FOUND" in nothing.text) == (404, True)
    assert nothing.headers["Content-Type"].startswith("text/html" if page else "application/problem+json")
    wrong = await browser.send("DELETE", f"{P}login", headers={"Accept": accept})
    assert (wrong.status, "ERR-METHOD" in wrong.text) == (405, True)
    assert set(wrong.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "POST"}
    assert "01TESTREQUEST" in nothing.text


class Boom(Exception):
    pass


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_a_fault_is_told_to_the_ledger_and_to_nobody_else(house: House, browser: Browser, accept: str) -> None:
    """Case 124."""

    async def broken(_: Any) -> Any:
        raise Boom("secret=42")

    with patch.object(house.desk.sessions, "find", broken):
        browser.cookies["sallyport"] = "A" * 43
        answer = await browser.get("account", headers={"Accept": accept})
    assert (answer.status, "ERR-FAULT" in answer.text, "01TESTREQUEST" in answer.text) == (500, True, True)
    for secret in ("secret", "Boom", "Traceback", ".py"):
        assert secret not in answer.text
    (event,) = await house.told(Kind.FAULT)
    assert event.detail["error"] == "Boom"
    assert event.request_id == "01TESTREQUEST"
    assert "secret=42" not in str(event.detail)


async def test_a_fault_in_any_layer_is_a_closed_door(house: House, browser: Browser) -> None:
    """Case 124: the limiter, the MAC, the throttle and risk, one after the other."""
    form = (await browser.get("login")).form("login")
    fields = form.fields | {"username": "bob", "password": PASSWORD}

    def broken(*_: Any, **__: Any) -> Any:
        raise Boom

    for room, name in (
        (house.limiter, "spend"),
        (house.desk.mac, "verify"),
        (house.desk.throttle, "admit"),
        (house.desk.users, "verify"),
        (house.desk.sessions, "open"),
    ):
        with patch.object(type(room), name, broken):
            answer = await browser.post("login", fields)
        assert answer.status == 500, name
        assert "sallyport" not in browser.cookies


async def test_the_store_away_is_503(house: House, browser: Browser) -> None:
    """Case 83."""

    async def away(_: Any) -> Any:
        raise StoreAway("gone")

    browser.cookies["sallyport"] = "A" * 43
    with patch.object(house.desk.sessions, "find", away):
        for path in ("account", "whoami"):
            answer = await browser.get(path)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


async def test_head_is_answered_where_get_is(browser: Browser) -> None:
    answer = await browser.send("HEAD", f"{P}login")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("odd", ["%ff", "%00", "%ed%a0%80", "%F0%9F%9A%AA", "a" * 4000, "%0d%0a", "..%2f", "1.%ff"])
async def test_odd_names_are_not_found_and_never_a_fault(
    house: House, browser: Browser, odd: str, clock: ManualClock
) -> None:
    await browser.sign_in()
    await browser.get("account")
    session = (await house.identity(browser)).session
    assert session is not None
    for method, path, _ in PAGES:
        if "{" in path:
            clock.advance(0.1)
            form = path.partition("/")[0]
            token = house.desk.mac.token("form", browser.cookies["sallyport-browser"], session.id, form)
            where = path.replace("{ticket}", odd).replace("{setup}", odd).replace("{session}", odd)
            where = where.replace("{factor}", odd).replace("{name}", odd)
            answer = await (browser.get(where) if method == "GET" else browser.post(where, {"csrf": token}))
            assert 400 <= answer.status < 500, (where, answer.status)
            assert "ERR-CSRF" not in answer.text
    for one in ENDPOINTS:
        if "{" in one.path:
            body = {"code": "123456"} if one.path.endswith("verify") else None
            answer = await browser.api(one.method, one.path.replace("{id}", odd), body)
            assert 400 <= answer.status < 500, (one.path, answer.status)
    assert await house.told(Kind.FAULT) == []


@pytest.mark.parametrize("charset", ["utf-7", "no-such-thing", "utf-16", "rot13", "hex"])
async def test_odd_charsets_are_refused(house: House, browser: Browser, charset: str) -> None:
    headers = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
    answer = await browser.send("POST", f"{P}login", body=b"username=bob&csrf=\xff\xfe", headers=headers)
    assert answer.status in (400, 403)
    assert await house.told(Kind.FAULT) == []


async def test_https_is_remembered_by_browsers(browser: Browser, visit: Callable[..., Browser]) -> None:
    assert "Strict-Transport-Security" not in (await browser.get("login")).headers
    assert (await visit(scheme="https").get("login")).headers["Strict-Transport-Security"] == "max-age=31536000"


@given(st.binary(max_size=200) | st.from_regex(rb"((__Host-)?sallyport(-browser)?=[A-Za-z0-9._~; =-]{0,40};? ?){1,4}"))
def test_no_cookie_header_is_too_odd(cookie: bytes) -> None:
    for name, value in read_cookies(cookie).items():
        assert value.isascii()
        assert 16 <= len(value) <= 512
        assert cookie.count(name.encode("latin-1")) >= 1
