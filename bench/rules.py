"""Requests a second with 10, 1,000 and 10,000 rules; the rule that is asked for stands in the middle.

*Ordinary* rules are spread over a hundred hosts and begin with a path segment each. The others all share one host and
one first segment: with a segment of their own after it, or a wildcard first, or, which no index can tell apart, only
with a wildcard *within* a segment. That one is told and has no bar: a new path is tried against every such rule.

Each is asked twice: always for the same path, which the gateway may remember, and for ever new paths, which it must
look up. Figures are requests a second of the gateway's own processor time, which is what a whole core carries.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.load import run
from bench.machine import cores, described
from bench.options import Options
from bench.sallyport import Sallyport
from bench.subjects import origin, written

SIZES = (10, 1_000, 10_000)
HOSTS = 100
PATHS = 100_000
"""Different paths that are asked for; many more than anything remembers."""
_RULE = """\
  - name: r{n}
    match: {{hosts: [{host}], paths: [{path}]}}
    access: authenticated
    limits: [{{name: per-user, key: user, algorithm: token_bucket, rate: 1000000/s, burst: 1000000}}]
    upstream: app
    audience: app
"""
_SIGN_IN = "  - {name: hosts, access: authenticated, upstream: app}\n"


def _one_host(_: int) -> str:
    return "h.example"


@dataclass(frozen=True)
class Spread:
    """One way rules may be written."""

    name: str
    host: Callable[[int], str]
    path: Callable[[int], str]
    """The pattern of rule n."""
    asked: Callable[[int], str]
    """A path that rule n is about, to which more segments may be added."""


HOPELESS = "/api/*-s{n}/**"
SPREADS = (
    Spread("ordinary", lambda n: f"h{n % HOSTS}.example", lambda n: f"/s{n}/**", lambda n: f"/s{n}/a"),
    Spread("/api/s{n}/**", _one_host, lambda n: f"/api/s{n}/**", lambda n: f"/api/s{n}/a"),
    Spread("/api/*/s{n}/**", _one_host, lambda n: f"/api/*/s{n}/**", lambda n: f"/api/x/s{n}/a"),
    Spread(HOPELESS, _one_host, lambda n: f"/api/*-s{n}/**", lambda n: f"/api/x-s{n}/a"),
)


@dataclass(frozen=True)
class Asked:
    """One row: the rates of each size, a round each."""

    spread: str
    varied: bool
    rates: dict[int, tuple[float, ...]]

    @property
    def paths(self) -> str:
        return "new paths" if self.varied else "one path"

    def ratio(self, size: int) -> float:
        """Against the smallest, median of the rounds."""
        return median(mine / few for mine, few in zip(self.rates[size], self.rates[SIZES[0]], strict=True))


@dataclass(frozen=True)
class Growth:
    """The whole table."""

    rows: tuple[Asked, ...]
    rounds: int
    seconds: float

    def bars(self) -> list[Bar]:
        what = f"{SIZES[-1]:,} rules against {SIZES[0]}"
        return [
            Bar(f"{what}, {row.spread}, {row.paths}", row.ratio(SIZES[-1]), 0.9, " ×", at_least=True)
            for row in self.rows
            if row.spread != HOPELESS
        ]

    def markdown(self) -> str:
        lines = [
            f"| rules | asked for | {' | '.join(f'{size:,}' for size in SIZES)} |",
            f"| --- | --- |{' ---: |' * len(SIZES)}",
        ]
        for row in self.rows:
            cells = [f"{median(row.rates[size]):,.0f} ({row.ratio(size):.2f} ×)" for size in SIZES]
            lines.append(f"| {row.spread} | {row.paths} | {' | '.join(cells)} |")
        told = f"Requests a CPU second. {described()}; {self.rounds} rounds of {self.seconds:g} s, medians."
        return "\n".join([*lines, "", told])

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Growth:
    """Three gateways up at a time, asked in turns."""
    rounds, seconds = options.rounds or 3, min(options.seconds or 2.0, 5.0)
    mine, others = cores()
    rows = []
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        for spread in SPREADS:
            with ExitStack() as raised:
                gateways = {}
                for size in SIZES:
                    gateways[size] = _Ruled({mine}, options, spread, size).up(address)
                    raised.callback(gateways[size].down)
                for varied in (False, True):
                    rates: dict[int, list[float]] = {size: [] for size in SIZES}
                    for _ in range(rounds):
                        for size, gateway in gateways.items():
                            rates[size].append(gateway.asked(varied, seconds, others))
                    rows.append(Asked(spread.name, varied, {size: tuple(rates[size]) for size in SIZES}))
                    print(f"{spread.name}, {'new paths' if varied else 'one path'}", flush=True)
    return Growth(tuple(rows), rounds, seconds)


class _Ruled(Sallyport):
    """A gateway with that many rules, and one for everything else, by which its user signs in."""

    def __init__(self, core: set[int], options: Options, spread: Spread, size: int) -> None:
        rules = (_RULE.format(n=n, host=spread.host(n), path=spread.path(n)) for n in range(size))
        super().__init__(core, options.gateways[0], rules="rules:\n" + "".join(rules) + _SIGN_IN)
        self.folder = self.folder.with_name(f"{self.folder.name}-{size}-rules")
        self._host, self._path = spread.host(size // 2), spread.asked(size // 2)

    def asked(self, varied: bool, seconds: float, cores: set[int]) -> float:
        """Requests for the rule in the middle, a second of the gateway's processor time."""
        headers = {**self.headers, "Host": self._host}
        url = urllib.parse.urljoin(self.url, self._path)
        script = written("new-paths.lua", _NEW_PATHS) if varied else None
        before = self.process.cpu()
        rate = run(url, seconds, cores, headers, script=script).rate
        return rate * seconds / (self.process.cpu() - before)


_NEW_PATHS = f"""\
local n = 0
request = function()
  n = (n + 1) % {PATHS}
  return wrk.format(nil, wrk.path .. "/" .. n)
end
"""
