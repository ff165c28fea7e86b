"""What programs get at the same doors: statuses and headers instead of pages, and what the service is told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

import aiohttp
import jwt
import pytest
import pytest_asyncio

from tests.e2e.house import PASSWORD, House, Phone, Received

IDENTITY = ("User", "Email", "Groups", "Preferred-Username")


@pytest_asyncio.fixture
async def client(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an IP address too
    async with aiohttp.ClientSession(house.url, cookie_jar=jar) as session:
        yield session


async def sign_in(client: aiohttp.ClientSession, house: House, user: str, factor: Phone | None = None) -> None:
    """As a person would, but by program: forms and all."""
    await post(client, house, "/.sallyport/login", username=user, password=PASSWORD, next="/public/")
    if factor is not None:
        page = {"Accept": "text/html"}
        async with client.get("/admin/echo", headers=page, allow_redirects=False) as asked:
            assert asked.status == 303
            challenge = asked.headers["Location"]
        await post(client, house, challenge, factor="totp", code=factor.code)


async def post(client: aiohttp.ClientSession, house: House, form: str, **fields: str) -> None:
    async with client.get(form, headers={"Accept": "text/html"}) as page:
        token = re.search(r'name="csrf" value="([^"]+)"', await page.text())
        assert token is not None
    fields["csrf"] = token[1]
    headers = {"Origin": house.url, "Accept": "text/html"}
    async with client.post(form, data=fields, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()


def parameters(challenge: str) -> Mapping[str, str]:
    scheme, _, rest = challenge.partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


def received(house: House, target: str) -> Received:
    (one,) = [one for one in house.received if one.target == target]
    return one


async def test_a_stranger_is_told_to_sign_in(house: House, client: aiohttp.ClientSession) -> None:
    async with client.get("/echo") as answer:
        problem = await answer.json()
    assert (answer.status, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "error" not in parameters(answer.headers["WWW-Authenticate"])
    assert problem["status"] == 401
    assert problem["code"] == "ERR-NO-SESSION"
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert house.received == []


async def test_a_stranger_is_told_what_it_will_take(client: aiohttp.ClientSession) -> None:
    async with client.get("/admin/echo") as answer:
        problem = await answer.json()
    challenge = parameters(answer.headers["WWW-Authenticate"])
    assert (challenge["acr_values"], challenge["max_age"]) == ("aal2", "600")
    assert (problem["acr_values"], problem["max_age"]) == ("aal2", 600)


async def test_one_factor_is_told_to_step_up(house: House, client: aiohttp.ClientSession) -> None:
    """RFC 9470, section 3."""
    house.enrol("ann")
    await sign_in(client, house, "ann")
    async with client.get("/admin/echo") as answer:
        problem = await answer.json()
    challenge = parameters(answer.headers["WWW-Authenticate"])
    assert answer.status == 401
    assert challenge["error"] == "insufficient_user_authentication"
    assert (challenge["acr_values"], challenge["max_age"]) == ("aal2", "600")
    assert problem["reasons"] == ["level_too_low"]
    assert [one for one in house.received if one.target == "/admin/echo"] == []


async def test_an_old_proof_is_told_so(house: House, client: aiohttp.ClientSession) -> None:
    phone, _ = house.enrol("ann")
    await sign_in(client, house, "ann", phone)
    async with client.post("/admin/echo", json={"a": 1}) as answer:
        assert answer.status == 200
    house.clock.leap(11 * 60)
    async with client.post("/admin/echo", json={"a": 1}) as answer:
        assert answer.status == 401
        assert (await answer.json())["reasons"] == ["proof_too_old"]


async def test_who_may_not_is_refused(house: House, client: aiohttp.ClientSession) -> None:
    await sign_in(client, house, "bob")
    async with client.get("/admin/echo") as answer:
        assert (answer.status, answer.content_type) == (403, "application/problem+json")
        assert (await answer.json())["code"] == "ERR-NOT-ALLOWED"


async def test_the_service_is_told_who_calls_in_words_and_in_proof(house: House, client: aiohttp.ClientSession) -> None:
    phone, _ = house.enrol("ann")
    await sign_in(client, house, "ann", phone)
    forged = {
        "X-Forwarded-User": "root",
        "X-Forwarded-Groups": "wheel",
        "X_Forwarded_User": "root",
        "Sallyport-Assertion": "e30.e30.e30",
    }
    async with client.get("/admin/echo", headers=forged) as answer:
        assert answer.status == 200
    got = received(house, "/admin/echo")
    assert [got.values(f"X-Forwarded-{name}") for name in IDENTITY] == [
        ["ann"], ["ann@example.com"], ["admins"], ["ann"],
    ]  # fmt: skip
    assert got.values("X_Forwarded_User") == []
    assert got.values("X-Request-Id") == [answer.headers["X-Request-Id"]]
    assert "sallyport" not in " ".join(got.values("Cookie"))

    (assertion,) = got.values("Sallyport-Assertion")
    async with client.get("/.sallyport/jwks.json") as answer:
        keys = jwt.PyJWKSet.from_dict(await answer.json())
    key = keys[jwt.get_unverified_header(assertion)["kid"]]
    required = ["exp", "iat", "iss", "aud", "sub", "jti"]
    claims = jwt.decode(
        assertion, key, algorithms=["ES256"], audience="app-admin", issuer=house.url,
        options={"require": required, "verify_exp": False, "verify_iat": False},
    )  # fmt: skip
    assert 0 < claims["exp"] - house.clock.now() <= 60
    assert claims["iat"] <= house.clock.now()
    assert (claims["preferred_username"], claims["groups"], claims["acr"]) == ("ann", ["admins"], "aal2")
    assert {"pwd", "otp", "mfa"} <= set(claims["amr"])
    assert abs(claims["auth_time"] - house.clock.now()) < 60

    async with client.get("/echo") as answer:
        assert answer.status == 200
    elsewhere = received(house, "/echo").values("Sallyport-Assertion")[0]
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(elsewhere, key, algorithms=["ES256"], audience="app-admin", options={"verify_iat": False})


async def test_limits_are_told_and_kept(house: House, client: aiohttp.ClientSession) -> None:
    phone, _ = house.enrol("ann")
    await sign_in(client, house, "ann", phone)
    statuses = []
    for _ in range(70):
        async with client.get("/admin/status/200") as answer:
            statuses.append(answer.status)
            if answer.status == 429:
                problem = await answer.json()
                break
            assert {"per-address", "per-user"} <= set(re.findall(r'"([^"]+)"', answer.headers["RateLimit"]))
            assert "per-user" in answer.headers["RateLimit-Policy"]
    assert statuses.count(200) >= 50
    assert statuses[-1] == 429
    assert (answer.content_type, problem["code"]) == ("application/problem+json", "ERR-RATE-LIMITED")
    wait = int(answer.headers["Retry-After"])
    assert 1 <= wait <= 60
    house.clock.leap(wait)
    async with client.get("/admin/status/200") as answer:
        assert answer.status == 200


async def test_an_interrupted_post_of_a_program_is_not_kept(house: House, client: aiohttp.ClientSession) -> None:
    """Programs send again by themselves; keeping theirs too would send it twice."""
    async with client.post("/form", data={"a": "1"}) as answer:
        assert answer.status == 401
    await sign_in(client, house, "bob")
    assert house.posts() == []


async def test_scripts_of_a_page_get_no_redirect(client: aiohttp.ClientSession) -> None:
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "text/html,*/*"}
    async with client.get("/echo", headers=headers, allow_redirects=False) as answer:
        assert (answer.status, answer.content_type) == (401, "application/problem+json")


async def test_guessing_by_program_is_slowed_down(house: House, client: aiohttp.ClientSession) -> None:
    async with client.get("/.sallyport/login", headers={"Accept": "text/html"}) as page:
        token = re.search(r'name="csrf" value="([^"]+)"', await page.text())
        assert token is not None
    fields = {"csrf": token[1], "username": "bob", "password": "wrong", "next": "/"}
    statuses = []
    for _ in range(10):
        async with client.post("/.sallyport/login", data=fields, headers={"Origin": house.url}) as answer:
            statuses.append(answer.status)
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert int(answer.headers["Retry-After"]) >= 1
