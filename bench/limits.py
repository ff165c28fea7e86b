"""Decisions a second of each algorithm in memory, on one core: the bare step, and all of `Limiter.spend`.

A thousand addresses take turns, each in the middle of its limit, so that counters are found, counted and kept as they
are for real traffic. A second row of them is refused all the time, and a third waits, for that is what an attack is.
"""

from __future__ import annotations

import gc
import os
import time
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.machine import cores, described
from bench.options import Options
from gateway.catalog import ALGORITHMS
from gateway.core.clock import SystemClock
from gateway.core.facts import Facts
from gateway.core.rule import Backoff, LimitSpec
from gateway.limits.limiter import Limiter

ADDRESSES = 1_000
CALLS = 20_000
REPEATS = 11
ENOUGH = 100_000
"""Decisions a second that each algorithm has to make."""


@dataclass(frozen=True)
class Counted:
    """Decisions a second, the mean of each repeat."""

    step: tuple[float, ...]
    allowed: tuple[float, ...]
    refused: tuple[float, ...]
    waiting: tuple[float, ...]


@dataclass(frozen=True)
class Counts:
    """By algorithm."""

    algorithms: dict[str, Counted]

    def bars(self) -> list[Bar]:
        return [
            Bar(f"decisions a second, {name}, {what}", rate, ENOUGH, "/s", at_least=True)
            for name, counted in self.algorithms.items()
            for what, rate in (
                ("the step", median(counted.step)),
                ("all of it at its slowest", min(map(median, (counted.allowed, counted.refused, counted.waiting)))),
            )
        ]

    def markdown(self) -> str:
        lines = [
            "| decisions a second | the step alone | let through | refused | waited for |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for name, counted in self.algorithms.items():
            rates = (counted.step, counted.allowed, counted.refused, counted.waiting)
            lines.append(f"| `{name}` | " + " | ".join(f"{median(each):,.0f}" for each in rates) + " |")
        return "\n".join([*lines, "", described()])

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Counts:
    """On the core the proxies are measured on."""
    mine, _ = cores()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {mine})
    try:
        gc.collect()
        gc.freeze()
        return Counts({name: _measure(name) for name in ALGORITHMS})
    finally:
        os.sched_setaffinity(0, allowed)


def _measure(algorithm: str) -> Counted:
    wide = LimitSpec("wide", ("address",), algorithm, 100_000, 3600.0, 100_000)
    tight = LimitSpec("tight", ("address",), algorithm, 10, 3600.0, 10)
    waits = LimitSpec("waits", ("address",), algorithm, 10, 3600.0, 10, backoff=Backoff(0, 1800.0, 3600.0, 86400.0))
    return Counted(
        tuple([_steps(algorithm) for _ in range(REPEATS)]),
        _spent(wide, allowed=True),
        _spent(tight, allowed=False),
        _spent(waits, allowed=False),
    )


def _steps(algorithm: str) -> float:
    """The step on one state after the other, a millisecond apart."""
    step, state = ALGORITHMS[algorithm], None
    moments = [1000.0 + call / 1000 for call in range(CALLS)]
    begun = time.thread_time()
    for now in moments:
        state = step(state, now, 1_000, 1.0, 100)[0]
    return CALLS / (time.thread_time() - begun)


def _spent(limit: LimitSpec, *, allowed: bool) -> tuple[float, ...]:
    limiter = Limiter(SystemClock(), ALGORITHMS)
    limits = (limit,)
    asked = [
        Facts(method="GET", host="bench", path="/", network=f"10.0.{number // 250}.{number % 250}")
        for number in range(ADDRESSES)
    ] * (CALLS // ADDRESSES)
    for facts in asked:  # everybody is known; with a tight limit, everybody is over it
        limiter.spend(limits, facts, None, "bench")
    return tuple([_spend(limiter, limits, asked, allowed=allowed) for _ in range(REPEATS)])


def _spend(limiter: Limiter, limits: tuple[LimitSpec, ...], asked: list[Facts], *, allowed: bool) -> float:
    spend = limiter.spend
    begun = time.thread_time()
    for facts in asked:
        (quota,) = spend(limits, facts, None, "bench")
    taken = time.thread_time() - begun
    if quota.allowed is not allowed:
        raise RuntimeError(f"{limits[0].algorithm} answered {quota}")
    return len(asked) / taken
