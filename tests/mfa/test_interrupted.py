from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import ManualClock
from gateway.core.contracts import KeyValue
from gateway.core.errors import UserError
from gateway.crypto.sealing import Sealer
from gateway.mfa.interrupted import OVERHEAD, Interrupted, InterruptedRequests, _pack, _unpack
from gateway.store.memory import MemoryKeyValue
from gateway.store.place import Place
from tests.mfa.conftest import MASTER, Room
from tests.rig.behind import at_rest

ANN = "session:abc"
STRANGER = "browser:zzz"
FORM = Interrupted(
    "POST",
    "app.example:8443",
    b"/pay%2Fme?to=b%C3%A9a&x=\xff",
    ((b"Content-Type", b"application/x-www-form-urlencoded"), (b"X-Odd", b"\xff\x80 caf\xe9"), (b"x-odd", b"")),
    b"amount=1%2E0&note=a+b\r\n\x00\xff\n\n",
)


@pytest.fixture(params=["memory", "sql"])
def kv(request: pytest.FixtureRequest, room: Room) -> KeyValue:
    return room.kv if request.param == "sql" else MemoryKeyValue(room.clock)


def shelf(kv: KeyValue, clock: ManualClock, **limits: int) -> InterruptedRequests:
    return InterruptedRequests(kv, Sealer([MASTER]), clock, **limits)  # type: ignore[arg-type]


async def test_comes_back_byte_for_byte_once(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock)
    ticket = await kept.keep(ANN, FORM)
    assert len(ticket) >= 43
    assert await kept.peek(ticket, ANN) == FORM
    assert await kept.claim(ticket, ANN) == FORM
    assert await kept.peek(ticket, ANN) is None
    assert await kept.claim(ticket, ANN) is None


async def test_twenty_claims_at_once_are_one(room: Room, replica: Room) -> None:
    ticket = await shelf(room.kv, room.clock).keep(ANN, FORM)
    shelves = [shelf(one.kv, one.clock) for one in (room, replica)]
    claimed = await asyncio.gather(*(one.claim(ticket, ANN) for one in shelves for _ in range(10)))
    assert [one for one in claimed if one is not None] == [FORM]


async def test_only_the_owner_with_the_ticket_gets_it_and_others_do_not_destroy_it(
    kv: KeyValue, clock: ManualClock
) -> None:
    kept = shelf(kv, clock)
    ticket = await kept.keep(ANN, FORM)
    place = ticket.partition("-")[0]
    for owner in (STRANGER, "session:other", "", "session:", "\ud800"):
        assert await kept.claim(ticket, owner) is None
    for wrong in (
        "",
        place,
        f"{place}-",
        f"{place}-{'A' * 43}",
        "x",
        "é-1",
        "\ud800",
        "../1",
        ticket + "A",
        "9" * 5000,
    ):
        assert await kept.claim(wrong, ANN) is None
    assert await kept.claim(ticket, ANN) == FORM


async def test_waits_ten_minutes(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock)
    ticket = await kept.keep(ANN, FORM)
    clock.advance(599)
    assert await kept.peek(ticket, ANN) == FORM
    clock.advance(1)
    assert await kept.claim(ticket, ANN) is None


async def test_an_owner_has_five_and_the_oldest_goes(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock)
    others = await kept.keep(STRANGER, FORM)
    tickets = [await kept.keep(ANN, Interrupted("POST", "h", b"/%d" % n, (), b"")) for n in range(7)]
    assert [await kept.peek(ticket, ANN) is not None for ticket in tickets] == [False] * 2 + [True] * 5
    assert await kept.claim(tickets[0], ANN) is None  # and does not take the younger one in its place
    assert [(await kept.claim(ticket, ANN)).target for ticket in tickets[2:]] == [b"/%d" % n for n in range(2, 7)]  # type: ignore[union-attr]
    assert await kept.peek(others, STRANGER) == FORM


async def test_too_large_is_refused_politely(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock, max_body=100)
    assert await kept.keep(ANN, Interrupted("POST", "h", b"/", (), b"x" * 100))
    with pytest.raises(UserError) as caught:
        await kept.keep(ANN, Interrupted("POST", "h", b"/", (), b"x" * 101))
    assert (caught.value.code, caught.value.status) == ("ERR-INTERRUPTED-TOO-LARGE", 413)


async def test_strangers_together_are_bounded_and_do_not_crowd_out_who_is_signed_in(
    kv: KeyValue, clock: ManualClock
) -> None:
    kept = shelf(kv, clock, strangers=3 * (OVERHEAD + 1000))
    request = Interrupted("POST", "h", b"/", (), b"x" * 1000)
    for number in range(3):
        await kept.keep(f"browser:{number}", request)
    with pytest.raises(UserError) as caught:
        await kept.keep("browser:more", request)
    assert (caught.value.code, caught.value.status) == ("ERR-INTERRUPTED-BUSY", 503)
    assert await kept.keep(ANN, request)
    clock.advance(600)
    assert await kept.keep("browser:more", request)


async def test_sealed_at_rest(room: Room, place: Place) -> None:
    ticket = await shelf(room.kv, room.clock).keep("browser:a-secret-cookie", FORM)
    kept = at_rest(place)
    assert b"default/interrupted/" in kept
    for plain in (FORM.body, b"amount=1", b"pay%2Fme", ticket.partition("-")[2].encode(), b"a-secret-cookie"):
        assert plain not in kept


async def test_survives_a_restart(room: Room, replica: Room) -> None:
    ticket = await shelf(room.kv, room.clock).keep(ANN, FORM)
    assert await shelf(replica.kv, replica.clock).claim(ticket, ANN) == FORM


def test_does_not_print_what_was_sent() -> None:
    assert "amount" not in repr(FORM)
    assert "pay" not in repr(FORM)


@given(
    st.text("ABCDEFGHIJ-", min_size=1),
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.lists(st.tuples(st.binary(), st.binary())),
    st.binary(),
)
def test_any_request_is_packed_and_unpacked_as_it_was(
    method: str, host: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    request = Interrupted(method, host, target, tuple(headers), body)
    assert _unpack(_pack(request)) == request
