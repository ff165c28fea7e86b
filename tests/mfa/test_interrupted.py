from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import ManualClock
from gateway.core.contracts import KeyValue
from gateway.core.errors import UserError
from gateway.crypto.sealing import Sealer
from gateway.mfa.interrupted import OVERHEAD, PART, Interrupted, InterruptedRequests, Lost, _pack, _unpack
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


async def pieces(body: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


LARGE = bytes(at % 251 for at in range(3 * PART + 1))
FILES = replace(FORM, body=b"", whose="user:ann")


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 2 * PART, 3 * PART + 1])
async def test_a_body_of_any_size_is_kept_in_parts(kv: KeyValue, clock: ManualClock, size: int) -> None:
    kept = shelf(kv, clock)
    ticket = await kept.keep(ANN, FILES, pieces(LARGE[:size]))
    request = await kept.claim(ticket, ANN)
    assert request is not None
    assert (request.size, len(request.body) <= PART, request.large > 0) == (size, True, size > PART)
    assert b"".join([piece async for piece in kept.read(request, ticket, ANN)]) == LARGE[:size]
    if size > PART:
        with pytest.raises(Lost):  # each part is read once
            await anext(kept.read(request, ticket, ANN))


async def test_parts_of_a_younger_request_are_never_taken_for_its_own(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock)
    tickets = [await kept.keep(ANN, FILES, pieces(LARGE)) for _ in range(3)]
    assert [await kept.peek(ticket, ANN) is not None for ticket in tickets] == [False, True, True]
    first = await kept.claim(tickets[1], ANN)
    await kept.keep(ANN, FILES, pieces(LARGE[::-1]))
    assert first is not None
    with pytest.raises(Lost):
        await anext(kept.read(first, tickets[1], ANN))


async def test_what_comes_in_at_once_does_not_mix(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock)
    tries = await asyncio.gather(
        *(kept.keep(ANN, FILES, pieces(bytes([n]) * len(LARGE))) for n in range(6)), return_exceptions=True
    )
    for ticket in tries:
        if isinstance(ticket, UserError):
            assert ticket.code == "ERR-INTERRUPTED-BUSY"
        elif isinstance(ticket, str) and (request := await kept.claim(ticket, ANN)) is not None:
            assert len(set(b"".join([piece async for piece in kept.read(request, ticket, ANN)]))) == 1
    assert sum(isinstance(ticket, str) for ticket in tries) >= 2


async def test_a_large_one_moves_to_another_owner_and_back_to_its_place(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock)
    ticket = await kept.keep(ANN, FILES, pieces(LARGE))
    moved = await kept.move(ticket, ANN, STRANGER)
    assert await kept.peek(ticket, ANN) is None
    assert await kept.move(ticket, ANN, STRANGER) == ""
    request = await kept.claim(moved, STRANGER)
    assert request is not None
    assert await kept.give_back(request, moved, STRANGER)
    assert not await kept.give_back(request, moved, STRANGER)
    again = await kept.claim(moved, STRANGER)
    assert again == request
    assert b"".join([piece async for piece in kept.read(request, moved, STRANGER)]) == LARGE
    clock.advance(600)
    assert not await kept.give_back(request, moved, STRANGER)


async def test_too_large_or_too_slow_while_it_comes(kv: KeyValue, clock: ManualClock) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        clock.advance(601)
        yield b"b"

    kept = shelf(kv, clock, max_body=2 * PART)
    for body in (pieces(LARGE), slow()):
        with pytest.raises(UserError) as caught:
            await kept.keep(ANN, FILES, body)
        assert caught.value.code == "ERR-INTERRUPTED-TOO-LARGE"


async def test_one_network_has_a_quarter_of_what_strangers_may_keep(kv: KeyValue, clock: ManualClock) -> None:
    kept = shelf(kv, clock, strangers=4 * (OVERHEAD + len(LARGE)))
    await kept.keep("browser:1", FILES, pieces(LARGE), network="192.0.2.1")
    with pytest.raises(UserError) as caught:
        await kept.keep("browser:2", FILES, pieces(LARGE), network="192.0.2.1")
    assert caught.value.code == "ERR-INTERRUPTED-BUSY"
    assert await kept.keep("browser:3", FILES, pieces(LARGE), network="192.0.2.2")
    clock.advance(1800)  # as long as parts are kept
    assert await kept.keep("browser:2", FILES, pieces(LARGE), network="192.0.2.1")


def test_who_may_send_it(clock: ManualClock) -> None:
    kept = InterruptedRequests(
        MemoryKeyValue(clock), Sealer([MASTER]), clock, known=lambda device, user: (device, user) == ("d", "ann")
    )
    for whose, user, may in (
        ("", "ann", True), ("", "", True), ("user:ann", "ann", True), ("user:ann", "bob", False),
        ("user:ann", "", False),
        ("device:d", "ann", True), ("device:d", "bob", False), ("device:x", "ann", False), ("device:d", "", False),
    ):  # fmt: skip
        assert kept.is_for(replace(FORM, whose=whose), user) is may, (whose, user)
