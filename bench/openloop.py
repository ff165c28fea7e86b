"""What a request waits at a fixed rate of arrivals, which no server can slow down (`bench/openloop`).

At full load latency is queueing. Here requests come at a quarter, half and three quarters of what the gateway carries,
at the same rates for everybody, and once more at half of what each one carries itself. What a proxy *adds* is its
quantile minus that of the origin alone, from the same generator at the same rate in the same round.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median

from bench.bars import Bar
from bench.load import CONNECTIONS, LoadError, run
from bench.machine import core_busy, cores, described
from bench.options import Options
from bench.subjects import IDENTITY_PEERS, OAuth2Proxy, Subject, built, origin
from bench.throughput import QUIET, raised

SHARES = (0.25, 0.5, 0.75)
QUANTILES = ("p50", "p99", "p99.9")
ROOM = 0.95
"""A rate above this share of a subject's capacity is none it can carry: the queue would only grow."""
PUNCTUAL = 250.0
"""Microseconds; a generator whose own p99 is later than this did not keep its schedule."""


@dataclass(frozen=True)
class Point:
    """One run at one rate."""

    rate: int
    achieved: float
    """Answers a second."""
    unanswered: int
    """Requests not answered two seconds after the last was due; their waiting until then counts."""
    quantiles: dict[str, float]
    """Microseconds from due to answered."""
    lag: float
    """Microseconds, p99: how late the generator itself was."""
    foreign: float = 0.0
    """Share of the subject's core that others used meanwhile."""


@dataclass(frozen=True)
class Pair:
    """A subject at a rate, and the origin alone at the same one, in each round."""

    subject: tuple[Point, ...]
    alone: tuple[Point, ...]

    def total(self, quantile: str) -> float:
        """Microseconds, median of the rounds."""
        return median(point.quantiles[quantile] for point in self.subject)

    def added(self, quantile: str) -> float:
        """Microseconds above the origin alone, median of the rounds' differences."""
        both = zip(self.subject, self.alone, strict=True)
        return median(with_it.quantiles[quantile] - bare.quantiles[quantile] for with_it, bare in both)


@dataclass
class Measured:
    """One subject."""

    name: str
    capacity: float
    """Requests a second, closed loop, in the same run."""
    same: dict[int, Pair] = field(default_factory=dict)
    """By rate: what it added at the rates everybody is asked for; those it cannot carry are missing."""
    half: Pair | None = None
    """At half of its own capacity."""


@dataclass(frozen=True)
class Latencies:
    """The whole table."""

    subjects: tuple[Measured, ...]
    rates: tuple[int, ...]
    alone: dict[int, tuple[Point, ...]]
    left_out: tuple[str, ...]
    rounds: int
    seconds: float
    gateway: str

    def bars(self) -> list[Bar]:
        """What the gateway adds at half of its capacity is not above what the identity proxy adds at half of its."""
        by_name = {each.name: each.half for each in self.subjects if each.half}
        mine = by_name.get(self.gateway)
        peer = next((name for name in IDENTITY_PEERS if name in by_name), None)
        if mine is None:
            return []
        limit = by_name[peer].added("p99") if peer else 0.0
        standing_in = "" if peer == OAuth2Proxy.name else f" (stands in for {OAuth2Proxy.name}, which is not here)"
        what = (
            f"p99 added by {self.gateway} at half of its capacity, against {peer or 'an identity proxy'}{standing_in}"
        )
        measured, why = mine.added("p99"), "no identity proxy is here"
        if limit < 0:
            peer, why = None, "the origin alone was slower than the peer: this machine is not quiet"
        return [Bar(what, measured if peer else None, round(limit), " µs", why=why)]

    def markdown(self) -> str:
        return "\n".join([*self._same(), "", *self._halves(), "", *self._notes()])

    def _same(self) -> Iterator[str]:
        yield f"| added at the same rate: p50 / p99 / p99.9, µs |{' |'.join(f' {rate:,}/s' for rate in self.rates)} |"
        yield f"| --- |{' ---: |' * len(self.rates)}"
        for each in self.subjects:
            cells = [
                _cell(each.same[rate].added) if rate in each.same else f"carries {each.capacity:,.0f}/s at most"
                for rate in self.rates
            ]
            yield f"| {each.name} | {' | '.join(cells)} |"
        totals = [_cell(lambda name, rate=rate: _median(self.alone[rate], name)) for rate in self.rates]  # type: ignore[misc]
        yield f"| *the origin alone, whole* | {' | '.join(totals)} |"

    def _halves(self) -> Iterator[str]:
        yield "| at half of its own capacity: p50 / p99 / p99.9, µs | capacity | rate | whole | added |"
        yield "| --- | ---: | ---: | ---: | ---: |"
        for each in self.subjects:
            if each.half:
                rate = f"{each.half.subject[0].rate:,}/s"
                cells = (f"{each.capacity:,.0f}/s", rate, _cell(each.half.total), _cell(each.half.added))
                yield f"| {each.name} | {' | '.join(cells)} |"

    def _notes(self) -> Iterator[str]:
        points = [*self._points()]
        rounds = f"{self.rounds} rounds of {self.seconds:g} s at each rate, medians"
        yield f"{described()}; {CONNECTIONS} connections; {rounds}."
        if (lost := sum(point.unanswered for point in points)) > 0:
            yield f"{lost:,} requests were not answered in time; they are in the figures with the time they had waited."
        if (lag := max(point.lag for point in points)) > PUNCTUAL:
            yield f"**The generator itself was up to {lag:,.0f} µs late (p99): measure on a quiet machine.**"
        if (worst := max(point.foreign for point in points)) > QUIET:
            yield f"**Other programs used up to {worst:.0%} of the core meanwhile: measure on a quiet machine.**"
        yield from (f"**Left out: {reason}.**" for reason in self.left_out)

    def _points(self) -> Iterator[Point]:
        for each in self.subjects:
            for pair in (*each.same.values(), *([each.half] if each.half else [])):
                yield from (*pair.subject, *pair.alone)

    def data(self) -> dict[str, object]:
        return asdict(self)


def _cell(value: Callable[[str], float]) -> str:
    return " / ".join(f"{value(quantile):,.0f}" for quantile in QUANTILES)


def _median(points: tuple[Point, ...], quantile: str) -> float:
    return median(point.quantiles[quantile] for point in points)


def measure(options: Options) -> Latencies:
    """What everybody carries first; then every rate, every subject, `rounds` times."""
    rounds, seconds = options.rounds or 3, options.seconds or 3.0
    mine, others = cores()
    generator = built("openloop")
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        subjects, left_out = raised(stack, options, mine, address)

        measured = {}
        for subject, _ in subjects:
            run(subject.url, 1.0, others, subject.headers)
            measured[subject.name] = Measured(subject.name, run(subject.url, 3.0, others, subject.headers).rate)
        if options.gateways[0].name not in measured:
            raise RuntimeError("the rates are shares of what the gateway carries: it cannot be left out")
        capacity = measured[options.gateways[0].name].capacity
        rates = tuple(rounded(capacity * share) for share in SHARES)

        def one(rate: int, subject: Subject | None = None) -> Point:
            return at_rate(generator, rate, seconds, others, address, subject)

        alone: dict[int, list[Point]] = {rate: [] for rate in rates}
        same: dict[tuple[str, int], list[Point]] = {}
        half: dict[str, tuple[list[Point], list[Point]]] = {}
        for number in range(rounds):
            for rate in rates:
                alone[rate].append(one(rate))
                for subject, _ in subjects:
                    if rate <= ROOM * measured[subject.name].capacity:
                        same.setdefault((subject.name, rate), []).append(one(rate, subject))
            for subject, _ in subjects:
                rate = rounded(measured[subject.name].capacity / 2)
                pair = half.setdefault(subject.name, ([], []))
                pair[1].append(one(rate))
                pair[0].append(one(rate, subject))
            print(f"round {number + 1}/{rounds}", flush=True)
        for subject, _ in subjects:
            subject.check()
        for (name, rate), points in same.items():
            measured[name].same[rate] = Pair(tuple(points), tuple(alone[rate]))
        for name, (points, bare) in half.items():
            measured[name].half = Pair(tuple(points), tuple(bare))
        alone_at = {rate: tuple(points) for rate, points in alone.items()}
        every = tuple(sorted(measured.values(), key=lambda each: -each.capacity))
        return Latencies(every, rates, alone_at, tuple(left_out), rounds, seconds, options.gateways[0].name)


def rounded(rate: float) -> int:
    """To hundreds, at least one."""
    return max(100, round(rate / 100) * 100)


def at_rate(generator: str, rate: int, seconds: float, cores: set[int], origin: str, subject: Subject | None) -> Point:
    """One run; LoadError when an answer was not 2xx."""
    command = [generator, f"-rate={rate}", f"-connections={CONNECTIONS}", f"-seconds={seconds:g}", "-warmup=0.5"]
    for name, value in (subject.headers if subject else {}).items():
        command += ["-header", f"{name}: {value}"]
    core = min(subject.core) if subject else None
    used, busy = (subject.process.cpu(), core_busy(core)) if subject and core is not None else (0.0, 0.0)
    ended = subprocess.run(
        [*command, subject.url if subject else f"{origin}/"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    foreign = 0.0
    if subject and core is not None:
        foreign = max(0.0, core_busy(core) - busy - (subject.process.cpu() - used)) / (seconds + 0.5)
    return read(ended.stdout, ended.stderr, subject.name if subject else "the origin", foreign)


def read(output: str, told: str, name: str, foreign: float = 0.0) -> Point:
    """What the generator printed; LoadError for answers that are none."""
    try:
        report = json.loads(output)
    except ValueError:
        raise LoadError(f"{name}: {told.strip() or 'nothing was measured'}") from None
    if report["errors"]:
        raise LoadError(f"{name}: {report['errors']} of {report['requests']} answers were errors at {report['rate']}/s")
    quantiles = {quantile: report["latency"][quantile] for quantile in ("p50", "p90", "p99", "p99.9", "max")}
    lag = report["lag"]["p99"]
    return Point(round(report["rate"]), report["achieved"], report["unanswered"], quantiles, lag, foreign)
