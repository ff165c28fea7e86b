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
from bench.options import Options
from bench.sallyport import Sallyport
from bench.subjects import IDENTITY_PEERS, PEERS, GoProxy, LeftOutError, Nginx, OAuth2Proxy, Subject, origin

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
    gateway: str = Sallyport.name
    """The one that the bars are about."""

    def find(self, name: str) -> Result | None:
        return next((each for each in self.results if each.name == name), None)

    @property
    def identity(self) -> Result | None:
        """The peer that knows sessions, too."""
        return next((found for name in IDENTITY_PEERS if (found := self.find(name))), None)

    def bars(self) -> list[Bar]:
        """This is where the first gateway has to stand."""
        mine = self.find(self.gateway)
        if mine is None:
            return []
        bars = []
        for name, limit in ((GoProxy.name, 1.2), (OAuth2Proxy.name, 2.0), (Nginx.name, 0.35)):
            other = self.find(name)
            why = "" if other else f"{name} was not measured beside it"
            what = f"requests/s of {self.gateway} ÷ {name}"
            bars.append(Bar(what, mine.times(other) if other else None, limit, " ×", at_least=True, why=why))
        return bars

    def markdown(self) -> str:
        peer = self.identity.name if self.identity else OAuth2Proxy.name
        columns = ("requests/s", "× Go proxy", f"× {peer}", "p50", "p99", "its core", "per CPU second")
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
        lines += [f"**Left out: {reason}.**" for reason in self.left_out]
        if self.identity and self.identity.name != OAuth2Proxy.name:
            lines.append(
                f"{self.identity.name} is measured beside, under its own name; its figures are no oauth2-proxy's."
            )
        return "\n".join(lines)

    def _row(self, each: Result) -> str:
        bare, peer = self.find(GoProxy.name), self.identity
        return (
            f"| {each.name} ({each.version}) | {'≥ ' if each.held_back else ''}{each.rate:,.0f} "
            f"| {f'{each.times(bare):.2f}' if bare else '–'} | {f'{each.times(peer):.2f}' if peer else '–'} "
            f"| {median(r.p50 for r in each.rounds):.2f} ms | {median(r.p99 for r in each.rounds):.2f} ms "
            f"| {each.busy:.0%} | {each.per_cpu_second:,.0f}"
            f"{f' ({each.per_cpu_second / bare.per_cpu_second:.2f} ×)' if bare else ''} | {each.does} |"
        )

    def data(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self) | {"machine": described()}

    def _rounds(self) -> Sequence[Round]:
        return self.results[0].rounds if self.results else ()


def measure(options: Options) -> Comparison:
    """Bring everything up, then `rounds` times every subject for `seconds`."""
    rounds, seconds = options.rounds or 5, options.seconds or 5.0
    mine, others = cores()
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        alone = run(f"{address}/", min(seconds, 2.0), others, {})
        print(f"origin alone: {alone.rate:,.0f} requests/s", flush=True)

        subjects, left_out = raised(stack, options, mine, address)
        for subject, _ in subjects:
            run(subject.url, 1.0, others, subject.headers)

        measured: dict[str, list[Round]] = {subject.name: [] for subject, _ in subjects}
        for number in range(rounds):
            turn = number % len(subjects)
            for subject, _ in subjects[turn:] + subjects[:turn]:
                one = one_round(subject, seconds, others)
                measured[subject.name].append(one)
                print(f"round {number + 1}/{rounds}  {subject.name:24} {one.rate:>9,.0f}/s  {one.busy:.0%}", flush=True)
        for subject, _ in subjects:
            subject.check()
        results = (Result(one.name, version, one.does, tuple(measured[one.name])) for one, version in subjects)
        wrk = " ".join(said(find("wrk") or "wrk", "-v").split(" ")[:2])
        first = options.gateways[0].name
        return Comparison(tuple(results), tuple(left_out), seconds, alone.rate, wrk, first)


def raised(stack: ExitStack, options: Options, core: int, address: str) -> tuple[list[tuple[Subject, str]], list[str]]:
    """Every subject that is wanted, up before `address` until `stack` is left, with its version; who is not here."""
    subjects, left_out = [], []
    wanted = [*(kind({core}) for kind in PEERS), *(Sallyport({core}, gateway) for gateway in options.gateways)]
    for subject in wanted:
        if not options.wants(subject.name):
            continue
        try:
            version = subject.version()
            subjects.append((subject.up(address), version))
            stack.callback(subject.down)
        except (LeftOutError, RuntimeError) as error:
            if isinstance(subject, Sallyport):
                raise
            left_out.append(f"{subject.name} ({error})")
            print(f"\n  !!  LEFT OUT: {left_out[-1]}\n", flush=True)
    return subjects, left_out


def one_round(subject: Subject, seconds: float, others: set[int]) -> Round:
    """`seconds` of full load, and what of its core it used."""
    (core,) = subject.core
    before, core_before = subject.process.cpu(), core_busy(core)
    try:
        one = run(subject.url, seconds, others, subject.headers)
    except LoadError as error:
        raise LoadError(f"{subject.name}: {error}") from error
    used = subject.process.cpu() - before
    return replace(one, busy=used / seconds, foreign=max(0.0, core_busy(core) - core_before - used) / seconds)
