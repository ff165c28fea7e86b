"""D, the end of it. The assertion a service gets can be checked with the published keys, and with nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio

from tests.rig.gateway import Gateway, request, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUER = "http://good.test"
WHENEVER: Any = {"verify_exp": False, "verify_iat": False}


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway whose keys and clock belong to one test."""
    async with running(tmp_path_factory.mktemp("fresh")) as gateway:
        yield gateway


async def keys_of(gateway: Gateway) -> dict[str, jwt.PyJWK]:
    """The published keys, by `kid`, asked for as a service would."""
    answer = await gateway.ask(request(b"GET", b"/.sallyport/jwks.json"))
    assert answer.status == 200
    found = jwt.PyJWKSet.from_json(answer.body.decode())
    return {str(key.key_id): key for key in found.keys}


async def assertion_of(gateway: Gateway, cookie: bytes, target: bytes = b"/app/x") -> str:
    """The assertion a service receives."""
    assert (await gateway.ask(request(b"GET", target, cookie=cookie))).status == 200
    return gateway.upstream.requests[-1].one("Sallyport-Assertion").decode("ascii")


def verify(token: str, keys: dict[str, jwt.PyJWK], audience: str, options: Any = None) -> dict[str, Any]:
    """What a careful service does. Raises `jwt.InvalidTokenError`."""
    kid = jwt.get_unverified_header(token).get("kid")
    if kid not in keys:
        raise jwt.InvalidKeyError(f"unknown key {kid}")
    required: Any = {"require": ["exp", "iat", "aud", "iss", "sub", "jti"], **(options or {})}
    return jwt.decode(token, keys[kid], algorithms=["ES256"], audience=audience, issuer=ISSUER, options=required)


async def test_case_63_a_service_can_check_who_called(gateway: Gateway) -> None:
    keys = await keys_of(gateway)
    token = await assertion_of(gateway, await gateway.cookie("ann", "totp"), b"/admin/x")
    claims = verify(token, keys, "app-admin")
    assert claims["preferred_username"] == "ann"
    assert claims["groups"] == ["admins"]
    assert claims["email"] == "ann@good.test"
    assert claims["acr"] == "aal2"
    assert claims["amr"] == ["otp", "pwd", "mfa"]
    assert claims["tenant"] == "default"
    assert claims["exp"] - claims["iat"] == 60
    assert claims["sid"]
    claims = verify(await assertion_of(gateway, await gateway.cookie("bob")), keys, "app")
    assert (claims["preferred_username"], claims["acr"]) == ("bob", "aal1")


async def test_case_63_an_assertion_for_one_service_is_none_for_another(gateway: Gateway) -> None:
    keys = await keys_of(gateway)
    token = await assertion_of(gateway, await gateway.cookie("bob"))
    with pytest.raises(jwt.InvalidAudienceError):
        verify(token, keys, "app-admin")
    with pytest.raises(jwt.InvalidIssuerError):
        jwt.decode(
            token, keys[jwt.get_unverified_header(token)["kid"]], ["ES256"], audience="app", issuer="http://evil"
        )


async def test_case_63_an_assertion_caught_yesterday_is_worthless_today(fresh: Gateway) -> None:
    keys = await keys_of(fresh)
    fresh.clock.jump(-3600)
    token = await assertion_of(fresh, await fresh.sign_in("bob"))
    with pytest.raises(jwt.ExpiredSignatureError):
        verify(token, keys, "app")


async def test_case_63_what_was_changed_on_the_way_is_refused(gateway: Gateway) -> None:
    keys = await keys_of(gateway)
    token = await assertion_of(gateway, await gateway.cookie("bob"))
    head, body, signature = token.split(".")
    other = (await assertion_of(gateway, await gateway.cookie("ann"))).split(".")
    for forged in (f"{head}.{other[1]}.{signature}", f"{head}.{body}.{other[2]}", f"{head}.{body}.", f"{head}.{body}"):
        with pytest.raises(jwt.InvalidTokenError):
            verify(forged, keys, "app")


async def test_case_64_only_our_algorithm_and_our_keys(gateway: Gateway) -> None:
    keys = await keys_of(gateway)
    token = await assertion_of(gateway, await gateway.cookie("bob"))
    claims = verify(token, keys, "app")
    kid = jwt.get_unverified_header(token)["kid"]
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": kid, "typ": "JWT"}
    with pytest.raises(jwt.InvalidTokenError):
        verify(jwt.encode(claims, "", algorithm="none", headers={"kid": kid}), keys, "app")
    with pytest.raises(jwt.InvalidTokenError):
        verify(jwt.encode(claims, "secret" * 10, algorithm="HS256", headers={"kid": kid}), keys, "app")
    with pytest.raises(jwt.InvalidKeyError):
        verify(jwt.encode(claims, "secret" * 10, algorithm="HS256", headers={"kid": "unknown"}), keys, "app")


async def test_published_keys_are_public(gateway: Gateway) -> None:
    answer = await gateway.ask(request(b"GET", b"/.sallyport/jwks.json"))
    assert b'"d"' not in answer.body
    for key in (await keys_of(gateway)).values():
        assert (key.key_type, key.algorithm_name, key.public_key_use) == ("EC", "ES256", "sig")


async def test_case_64_a_rotation_without_a_failed_request(fresh: Gateway) -> None:
    app = fresh.app

    async def pass_time(seconds: float) -> None:
        fresh.clock.advance(seconds)
        app.keys.signer.refresh()

    cookie = await fresh.sign_in("bob")
    before = await assertion_of(fresh, cookie)
    old = jwt.get_unverified_header(before)["kid"]
    app.keys.rotate_signing(overlap=600.0)
    await pass_time(1.0)

    keys = await keys_of(fresh)
    assert len(keys) == 2, "the next key is published before it signs"
    assert old in keys
    await pass_time(61.0)
    during = await assertion_of(fresh, cookie)
    assert jwt.get_unverified_header(during)["kid"] == old
    verify(during, keys, "app", WHENEVER)

    await pass_time(600.0)
    after = await assertion_of(fresh, cookie)
    new = jwt.get_unverified_header(after)["kid"]
    assert new != old
    verify(after, keys, "app", WHENEVER)
    verify(during, await keys_of(fresh), "app", WHENEVER)  # what the old key signed is still good while it is fresh

    await pass_time(60.0 + 300.0 + 1.0)
    keys = await keys_of(fresh)
    assert set(keys) == {new}
    with pytest.raises(jwt.InvalidKeyError):
        verify(during, keys, "app", WHENEVER)


async def test_an_assertion_goes_with_every_request_of_a_session_and_no_other(gateway: Gateway) -> None:
    cookie = await gateway.cookie("bob")
    for target in (b"/app/1", b"/app/2"):
        assert (await gateway.ask(request(b"GET", target, cookie=cookie))).status == 200
    assert (await gateway.ask(request(b"GET", b"/public/x"))).status == 200
    first, second, third = gateway.upstream.requests
    assert first.one("Sallyport-Assertion") == second.one("Sallyport-Assertion")
    assert third.all("Sallyport-Assertion") == []


async def test_a_new_proof_gets_a_new_assertion(gateway: Gateway) -> None:
    cookie = await gateway.sign_in("ann")
    keys = await keys_of(gateway)
    assert verify(await assertion_of(gateway, cookie), keys, "app")["acr"] == "aal1"
    from gateway.core.identity import Proof

    token, _ = await gateway.app.sessions.prove(
        cookie.partition(b"=")[2].decode("ascii"), Proof("totp", gateway.clock.now())
    )
    assert verify(await assertion_of(gateway, b"sallyport=" + token.encode()), keys, "app")["acr"] == "aal2"
    assert (await gateway.ask(request(b"GET", b"/app/x", cookie=cookie))).status == 401, "the old token is dead at once"
