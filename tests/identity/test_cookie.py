from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import ManualClock
from gateway.core.cookies import Cookies
from gateway.core.errors import Broken, StoreAway
from gateway.core.facts import Facts
from gateway.core.identity import Identity, Proof
from gateway.crypto.tokens import new_token
from gateway.identity.cookie import SessionCookie
from gateway.identity.local import LocalUsers
from gateway.identity.sessions import Sessions
from gateway.identity.strip import MAX_REMEMBERED_HEADER, REMEMBERED, Strip
from gateway.store.sql import Records
from tests.identity.conftest import PASSWORD


def facts(cookie: str | bytes) -> Facts:
    return Facts(
        method="GET", host="app", path="/", cookie=cookie.encode("latin-1") if isinstance(cookie, str) else cookie
    )


@pytest.fixture(params=["http", "https"])
def cookies(request: pytest.FixtureRequest) -> Cookies:
    return Cookies.over(request.param)


@pytest.fixture
def credential(sessions: Sessions, cookies: Cookies) -> SessionCookie:
    return SessionCookie(sessions, cookies)


@pytest.fixture
async def signed_in(sessions: Sessions, people: LocalUsers, clock: ManualClock) -> tuple[str, Identity]:
    ann = await people.add("ann", PASSWORD)
    return await sessions.open(ann, Proof("password", clock.now()), address="", agent="")


async def test_no_cookie_is_not_ours(credential: SessionCookie) -> None:
    for cookie in ("", "theme=dark", "sallyporter=1; xsallyport=2; my-sallyport=3; a=sallyport=4", "; ;", "=", "x"):
        assert await credential.identify(facts(cookie)) is None


async def test_a_session_is_found_among_others(
    credential: SessionCookie, cookies: Cookies, signed_in: tuple[str, Identity]
) -> None:
    token, identity = signed_in
    for cookie in (
        f"{cookies.session}={token}",
        f"a=b; {cookies.session}={token}; c=d",
        f"a=b;{cookies.session}={token};",
    ):
        assert await credential.identify(facts(cookie)) == identity
        assert credential.near(facts(cookie)) == identity
        assert credential.token(facts(cookie).cookie) == token


async def test_known_is_answered_without_waiting(
    credential: SessionCookie, cookies: Cookies, signed_in: tuple[str, Identity]
) -> None:
    request = facts(f"{cookies.session}={signed_in[0]}")
    assert credential.near(request) is None
    await credential.identify(request)
    with pytest.raises(StopIteration) as stopped:
        credential.identify(request).send(None)  # a coroutine that never gives way
    assert stopped.value.value is credential.near(request)


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"A" * 42, b"A" * 44, b"A" * 8192, b"A" * 42 + b"=", b"A" * 42 + b" A", b'"' + b"A" * 43 + b'"',
     b"\xff" * 43, b"A" * 42 + b"\x00", "é".encode() * 21 + b"A", b"A" * 42 + b"\n", b"%41" * 43, b"../" * 14 + b"A"],
)  # fmt: skip
async def test_a_malformed_cookie_is_broken(credential: SessionCookie, cookies: Cookies, value: bytes) -> None:
    """Case 79."""
    for _ in range(2):
        with pytest.raises(Broken):
            await credential.identify(facts(cookies.session.encode() + b"=" + value))


async def test_a_token_that_opens_nothing_is_broken(credential: SessionCookie, cookies: Cookies) -> None:
    """Case 79: well formed, of another database."""
    for _ in range(2):
        with pytest.raises(Broken):
            await credential.identify(facts(f"{cookies.session}={new_token()}"))


async def test_two_cookies_of_our_name_are_nobodys(
    credential: SessionCookie, cookies: Cookies, signed_in: tuple[str, Identity]
) -> None:
    """Cases 60 and 80: tossed by a sibling host, or in two Cookie lines; also when both say the same."""
    good, bad = f"{cookies.session}={signed_in[0]}", f"{cookies.session}={new_token()}"
    for cookie in (
        f"{good}; {bad}",
        f"{bad}; {good}",
        f"{good}; {good}",
        f"{good}; {cookies.session}=",
        f"{good}; {cookies.session}",
    ):
        with pytest.raises(Broken):
            await credential.identify(facts(cookie))


async def test_on_https_a_cookie_without_the_prefix_is_not_ours(
    sessions: Sessions, signed_in: tuple[str, Identity]
) -> None:
    """Case 80: a sibling host can plant `sallyport`, but not `__Host-sallyport`."""
    token, identity = signed_in
    secure = SessionCookie(sessions, Cookies.over("https"))
    assert await secure.identify(facts(f"sallyport={token}")) is None
    assert await secure.identify(facts(f"sallyport={new_token()}; __Host-sallyport={token}")) == identity
    plain = SessionCookie(sessions, Cookies.over("http"))
    assert await plain.identify(facts(f"__Host-sallyport={token}")) is None


async def test_a_session_that_is_over_is_broken_at_once(
    credential: SessionCookie, cookies: Cookies, signed_in: tuple[str, Identity], sessions: Sessions
) -> None:
    """Case 81."""
    token, identity = signed_in
    request = facts(f"{cookies.session}={token}")
    assert await credential.identify(request) is not None
    await sessions.end_all(identity.tenant, identity.subject)
    assert credential.near(request) is None
    with pytest.raises(Broken):
        await credential.identify(request)


async def test_a_store_that_is_away_is_no_answer(
    credential: SessionCookie, cookies: Cookies, signed_in: tuple[str, Identity], records: Records
) -> None:
    """Case 83: not anonymous."""
    async with records.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE sessions")
    with pytest.raises(StoreAway):
        await credential.identify(facts(f"{cookies.session}={signed_in[0]}"))


@pytest.mark.parametrize(
    ("cookie", "left"),
    [
        (b"", b""),
        (b"a=b; c=d", b"a=b; c=d"),
        (b"sallyport=x", b""),
        (b"__Host-sallyport=x", b""),
        (b"a=b; sallyport=x; c=d", b"a=b; c=d"),
        (b"a=b; sallyport=x; __Host-sallyport=y; sallyport-browser=1; __Host-sallyport-browser=2", b"a=b"),
        (b"sallyport-device=1; __Host-sallyport-device=2; sallyport-resume=3; __Host-sallyport-resume=4", b""),
        (b"sallyport=x;a=b", b"a=b"),
        (b"sallyport =x; \tsallyport\t=y; a=b", b"a=b"),
        (b"sallyport; a=b", b"a=b"),
        (b"sallyport-theme=dark; my-sallyport=1; a=sallyport", b"sallyport-theme=dark; my-sallyport=1; a=sallyport"),
        (b"a=1; sallyport=x; a=1", b"a=1; a=1"),
    ],
)
def test_the_service_sees_no_cookie_of_ours(cookie: bytes, left: bytes) -> None:
    strip = Strip()
    for _ in range(2):
        assert strip(cookie) == left


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"a", b"sallyport", b"__Host-sallyport", b"sallyport-resume", b" sallyport", b"Sallyport"]
            ),
            st.binary(max_size=5).filter(lambda value: b";" not in value),
        ),
        max_size=6,
    )
)
def test_stripping_keeps_all_others_in_order(pairs: list[tuple[bytes, bytes]]) -> None:
    cookie = b"; ".join(name + b"=" + value for name, value in pairs)
    kept = [name + b"=" + value for name, value in pairs if name in (b"a", b"Sallyport")]
    assert Strip()(cookie) == b"; ".join(kept)


async def test_what_is_remembered_is_bounded(credential: SessionCookie, cookies: Cookies) -> None:
    strip = Strip()
    for number in range(REMEMBERED + 100):
        header = b"a=%d; sallyport-browser=1" % number
        assert strip(header) == b"a=%d" % number
        assert await credential.identify(facts(header)) is None
    assert len(strip._known) <= REMEMBERED
    assert len(credential._tokens) <= REMEMBERED
    large = b"a=" + b"x" * MAX_REMEMBERED_HEADER + b"; sallyport-browser=1"
    strip(large)
    await credential.identify(facts(large))
    assert large not in strip._known
    assert large not in credential._tokens
