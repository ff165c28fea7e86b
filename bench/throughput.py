"""Requests a second on one core, each subject against all others.

Rounds are interleaved, every subject once a round and the first one another each time, so that a machine that slows
down slows everybody. A ratio is the median of the rounds' ratios: both figures of each come from the same minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from statistics import median

from bench.bars import Bar
from bench.load import LoadError, Round, run
from bench.machine import core_busy, cores, described, find, said
from bench.subjects import SUBJECTS, GoProxy, LeftOutError, OAuth2Proxy, Sallyport, Subject, origin

FULL = 0.93
"""A subject that used less of its core than this was held back."""
QUIET = 0.1
"""With more of the core used by others than this the figures are not worth keeping."""


@dataclass(frozen=True)
class Result:
    """What one subject did in all rounds."""

    name: str
    version: str
    does: str
    rounds: tuple[Round, ...]

    @property
    def rate(self) -> float:
        return median(each.rate for each in self.rounds)

    @property
    def busy(self) -> float:
        return median(each.busy for each in self.rounds)

    @property
    def per_cpu_second(self) -> float:
        """What a whole core would carry; steady even where the machine is busy with other things."""
        return median(each.rate / each.busy for each in self.rounds if each.busy)

    @property
    def held_back(self) -> bool:
        return self.busy < FULL

    @property
    def foreign(self) -> float:
        return median(each.foreign for each in self.rounds)

    def times(self, other: Result) -> float:
        """How many times faster than `other`."""
        return median(mine.rate / its.rate for mine, its in zip(self.rounds, other.rounds, strict=True))


@dataclass(frozen=True)
class Comparison:
    """The whole table."""

    results: tuple[Result, ...]
    left_out: tuple[str, ...]
    seconds: float
    origin_rate: float
    load: str

    def find(self, subject: type[Subject]) -> Result | None:
        return next((each for each in self.results if each.name == subject.name), None)

    def bars(self) -> list[Bar]:
        """This is where Sallyport has to stand."""
        mine, bare = self.find(Sallyport), self.find(GoProxy)
        if mine is None or bare is None:
            return []
        return [Bar(f"requests/s of Sallyport ÷ {GoProxy.name}", mine.times(bare), 1.0, " ×", at_least=True)]

    def markdown(self) -> str:
        columns = ("requests/s", "× Go proxy", "× oauth2-proxy", "p50", "p99", "its core", "per CPU second")
        lines = [
            f"| in the middle | {' | '.join(columns)} | what it does |",
            f"| --- |{' ---: |' * len(columns)} --- |",
        ]
        lines += [self._row(each) for each in sorted(self.results, key=lambda result: -result.rate)]
        lines += ["", f"{described()}; {self.load}; {len(self._rounds())} rounds of {self.seconds:g} s, medians."]
        lines.append(f"Origin and load alone, on the core they share: {self.origin_rate:,.0f} requests/s.")
        if any(each.held_back for each in self.results):
            lines.append(f"≥: used less than {FULL:.0%} of its core, so something else was the limit.")
        if (worst := max(each.foreign for each in self.results)) > QUIET:
            lines.append(
                f"**Other programs used up to {worst:.0%} of the core meanwhile: measure on a quiet machine.**"
            )
        lines += [f"Left out: {reason}." for reason in self.left_out]
        return "\n".join(lines)

    def _row(self, each: Result) -> str:
        bare, peer = self.find(GoProxy), self.find(OAuth2Proxy)
        return (
            f"| {each.name} ({each.version}) | {'≥ ' if each.held_back else ''}{each.rate:,.0f} "
            f"| {f'{each.times(bare):.2f}' if bare else '–'} | {f'{each.times(peer):.2f}' if peer else '–'} "
            f"| {median(r.p50 for r in each.rounds):.2f} ms | {median(r.p99 for r in each.rounds):.2f} ms "
            f"| {each.busy:.0%} | {each.per_cpu_second:,.0f}"
            f"{f' ({each.per_cpu_second / bare.per_cpu_second:.2f} ×)' if bare else ''} | {each.does} |"
        )

    def data(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self) | {"machine": described(), "bars": [asdict(bar) | {"met": bar.met} for bar in self.bars()]}

    def _rounds(self) -> Sequence[Round]:
        return self.results[0].rounds if self.results else ()


def measure(rounds: int, seconds: float, only: Sequence[str] = ()) -> Comparison:
    """Bring everything up, then `rounds` times every subject for `seconds`."""
    mine, others = cores()
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        alone = run(f"{address}/", min(seconds, 2.0), others, {})
        print(f"origin alone: {alone.rate:,.0f} requests/s", flush=True)

        subjects, left_out = [], []
        for kind in SUBJECTS:
            if only and not any(word.lower() in kind.name.lower() for word in only):
                continue
            subject = kind({mine})
            try:
                version = subject.version()
                subjects.append((subject.up(address), version))
                stack.callback(subject.down)
            except (LeftOutError, RuntimeError) as error:
                if kind is Sallyport:
                    raise
                left_out.append(f"{kind.name} ({error})")
                print(f"\n  !!  LEFT OUT: {left_out[-1]}\n", flush=True)
        for subject, _ in subjects:
            run(subject.url, 1.0, others, subject.headers)

        measured: dict[str, list[Round]] = {subject.name: [] for subject, _ in subjects}
        for number in range(rounds):
            first = number % len(subjects)
            for subject, _ in subjects[first:] + subjects[:first]:
                one = _one(subject, seconds, others)
                measured[subject.name].append(one)
                print(f"round {number + 1}/{rounds}  {subject.name:24} {one.rate:>9,.0f}/s  {one.busy:.0%}", flush=True)
        for subject, _ in subjects:
            subject.check()
        results = (Result(one.name, version, one.does, tuple(measured[one.name])) for one, version in subjects)
        wrk = " ".join(said(find("wrk") or "wrk", "-v").split(" ")[:2])
        return Comparison(tuple(results), tuple(left_out), seconds, alone.rate, wrk)


def _one(subject: Subject, seconds: float, others: set[int]) -> Round:
    (core,) = subject.core
    before, core_before = subject.process.cpu(), core_busy(core)
    try:
        one = run(subject.url, seconds, others, subject.headers)
    except LoadError as error:
        raise LoadError(f"{subject.name}: {error}") from error
    used = subject.process.cpu() - before
    return replace(one, busy=used / seconds, foreign=max(0.0, core_busy(core) - core_before - used) / seconds)
