"""The fault table (`fault_table`), row by row. docs/state.md prints what these tests hold.

A request may take 50 ms longer than usual while a store does not answer. What is measured from outside is that, what
it takes anyway, and what this machine does beside: `MARGIN`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.house.process import ROOT
from tests.replicas.fault_table import (
    BACK_WITHIN,
    GRACE,
    SETTLED,
    SHARE,
    TICK,
    Measured,
    store_of,
)
from tests.rig.faulty import FAULTS
from tests.rig.postgres import needs_postgresql
from tests.rig.redis import needs_redis

pytestmark = [needs_redis, needs_postgresql]

DEADLINE = 0.05
MARGIN = 0.1
"""Seconds that everything else may take: the request itself, on a machine with two cores and twenty processes."""
STALLED = 3
"""Of some four hundred requests of a row: who met a moment in which this machine did something else."""

PAUSE = 1.0
"""Seconds that such a moment lasts at most: those who wrote to the disk wait for it, and everybody writes. A store that
is slow would be five."""

ROWS = [
    *(("Redis", fault) for fault in (*FAULTS, "failover", "read-only", "full")),
    *(("PostgreSQL", fault) for fault in (*FAULTS, "crash", "full", "failover", "read-only")),
    *(("SQLite", fault) for fault in ("locked", "garbage", "read-only", "full")),
]


@pytest.fixture(params=ROWS, ids=[" ".join(row) for row in ROWS])
def row(request: pytest.FixtureRequest, table: Mapping[tuple[str, str], Measured]) -> Measured:
    """One row."""
    store, fault = request.param
    if (broken := table.get((store, ""))) is not None:
        pytest.fail(f"its laboratory broke: {broken.error}")
    if fault == "full" and store != "Redis" and request.param not in table:
        pytest.skip("a small disk cannot be mounted here")
    one = table[request.param]
    assert not one.error, one.error
    return one


def test_the_table_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "state.md").read_text()
    printed = re.findall(r"^\| (Redis|PostgreSQL|SQLite) \| (`[^|]*`) \|", page, re.MULTILINE)
    assert {(store, fault) for store, faults in printed for fault in re.findall("`([^`]+)`", faults)} == set(ROWS)


def away(row: Measured) -> bool:
    return row.row.effect == "away"


def test_nothing_opens(row: Measured) -> None:
    """Whoever is not known comes nowhere, neither as somebody nor as nobody with headers."""
    assert {ask.status for ask in row.of("nobody")} == {401}
    assert {ask.status for ask in row.of("forged")} <= {401, 503}
    assert {ask.status for ask in row.of("admin")} <= {403, 503}
    assert {ask.status for ask in row.of("public")} == {200}
    reached = {name for name, count in row.named.items() if count and name.startswith(("/app/", "/admin/"))}
    assert reached <= {"/app/known bob", "/app/cold bob"}
    assert row.named.get("/app/known bob", 0) == sum(ask.status == 200 for ask in row.of("known"))


def test_known_sessions_go_on_for_the_grace_and_no_longer(row: Measured) -> None:
    if not away(row):
        assert {ask.status for ask in (*row.of("known"), *row.of("cold"))} == {200}, "it can be read"
        return
    known = row.of("known")
    # Who was sent in time, and stood still with the machine, may have been looked at when the grace was over.
    assert {ask.status for ask in known if ask.at + ask.took < GRACE - TICK - row.unsure} <= {200}
    assert {ask.status for ask in known} == {200, 503} or row.unsure > (GRACE - TICK) / 2
    for kind in ("known", "cold"):
        late = [ask.status for ask in row.of(kind) if ask.at > SETTLED]
        assert late
        assert set(late) == {503}


def test_what_guards_a_secret_refuses(row: Measured) -> None:
    """Nobody is let in. A code that was typed counts once at most: afterwards, unless the store went away between the
    code and the session that was to have it; then another code has to be typed."""
    (signed,), (answered,) = row.of("sign-in"), row.of("code")
    if row.row.fault == "locked":
        assert (signed.status, answered.status) == (303, 303), "it waits for the other writer, and goes on"
        assert min(signed.at + signed.took, answered.at + answered.took) > SETTLED
        assert row.proofs == [True, False, False]
        return
    if (row.row.store, row.row.fault) == ("PostgreSQL", "full"):
        assert signed.status in (303, 503), "a page that has room takes one more row"
        assert answered.status == 503
    elif (row.row.store, row.row.fault) == ("PostgreSQL", "read-only"):
        assert signed.status in (303, 503), "a password is only read: until somebody writes nobody knows"
        assert answered.status == 503
    else:
        assert (signed.status, answered.status) == (503, 503)
    assert row.proofs in ([False, True, False], [False, False, False])


def test_limits_do_what_the_policy_says(row: Measured) -> None:
    statuses = {did: [ask.status for ask in row.of(f"limit {did}")] for did in ("refuse", "local", "allow")}
    assert set(statuses["allow"]) == {200}
    if row.row.store != "Redis":
        assert set(statuses["refuse"]) == {200}
        assert set(statuses["local"]) <= {200, 429}
        assert sum(row.did.values()) == 0
        return
    assert set(statuses["refuse"]) == {503}
    assert set(statuses["local"]) <= {200, 429}
    assert statuses["local"].count(200) <= SHARE
    assert all(row.did[did] >= len(statuses[did]) for did in statuses), "and each is counted"


def test_nobody_waits(row: Measured) -> None:
    """`public` asks no store: what it takes, this machine takes."""
    idle = max(ask.took for ask in row.of("public"))
    asks = [ask for ask in row.asks if row.row.fault != "locked" or ask.kind not in ("sign-in", "code")]
    late = [ask for ask in asks if ask.took >= DEADLINE + max(MARGIN, idle)]
    assert len(late) <= STALLED, late
    assert all(ask.took < PAUSE for ask in late), late
    usual = sorted(ask.took for ask in asks)[len(asks) // 2]
    assert usual < DEADLINE, "most do not even wait that long"


def test_it_is_seen(row: Measured) -> None:
    name = store_of(row.row)
    status, parts = row.ready
    if row.row.fault == "locked":
        assert (status, row.up) == (200, 1.0)
    elif not away(row):
        assert (status, row.up) == (200, 0.0)
        assert parts["store"].startswith("takes no changes: ")
        assert "events wait for the store" in row.said
    else:
        assert row.up == 0.0
        assert status == (200 if name == "shared" else 503)
        assert parts["shared" if name == "shared" else "store"].startswith("away")
        assert 1 <= row.said.count(f"store {name} is away: ") <= 3, "said when it happens, not for each request"
        assert row.said.count(f"store {name} is back") == row.said.count(f"store {name} is away: ")


def test_it_is_over_soon(row: Measured) -> None:
    assert row.back < BACK_WITHIN
    assert row.up_again == 1.0
