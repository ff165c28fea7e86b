"""What it costs that replicas count together: the same gateway with its limits in memory, in a Redis, in leases, and
without any.

The Redis stands on the core of load and origin, before them in line. Throughput is closed loop, every subject once a
round; latency is open loop at half of what the gateway carries with its limits in the Redis, the same rate for all.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.load import Round, run
from bench.machine import BUILD, Process, cores, described, find, free_port, said
from bench.openloop import Point, at_rate, rounded
from bench.options import Gateway, Options
from bench.sallyport import RULES, Sallyport
from bench.subjects import LeftOutError, built, origin
from bench.throughput import one_round

MODES = ("in memory", "in Redis", "leased", "no limits")
NO_LIMITS = re.sub(r"    limits:\n(?:      - .*\n)+", "", RULES)
LEASED = RULES.replace("algorithm:", "mode: leased, algorithm:")


class Counting(Sallyport):
    """The gateway, with its limits in one of `MODES`."""

    def __init__(self, core: set[int], gateway: Gateway, mode: str, redis: str) -> None:
        rules = {"no limits": NO_LIMITS, "leased": LEASED}.get(mode, RULES)
        super().__init__(core, gateway, rules=rules)
        self.name = mode
        self.folder = BUILD / f"sallyport-{mode.replace(' ', '-')}"
        self._shared = redis if mode in ("in Redis", "leased") else "memory"

    def _settings(self, origin: str) -> str:
        return super()._settings(origin).replace("shared: memory", f'shared: "{self._shared}"')


@dataclass(frozen=True)
class Shared:
    """All of it."""

    rounds: dict[str, tuple[Round, ...]]
    points: dict[str, tuple[Point, ...]]
    rate: int
    version: str
    seconds: float

    def times(self, mode: str) -> float:
        """How the throughput of `mode` stands to that in memory."""
        both = zip(self.rounds[mode], self.rounds["in memory"], strict=True)
        return median(mine.rate / memory.rate for mine, memory in both)

    def later(self, mode: str) -> float:
        """Microseconds that the p99 of `mode` is above that without limits."""
        both = zip(self.points[mode], self.points["no limits"], strict=True)
        return median(mine.quantiles["p99"] - bare.quantiles["p99"] for mine, bare in both)

    def bars(self) -> list[Bar]:
        return [
            Bar("requests/s with exact limits in Redis ÷ in memory", self.times("in Redis"), 0.7, " ×", at_least=True),
            Bar("p99 of a limited request (Redis) above an unlimited one", self.later("in Redis") / 1000, 1.0, " ms"),
        ]

    def markdown(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"| limits | requests/s | × in memory | its core | p50 / p99 / p99.9 at {self.rate:,}/s, µs |"
        yield "| --- | ---: | ---: | ---: | ---: |"
        for mode in MODES:
            rounds, points = self.rounds[mode], self.points[mode]
            quantiles = [median(point.quantiles[name] for point in points) for name in ("p50", "p99", "p99.9")]
            yield (
                f"| {mode} | {median(each.rate for each in rounds):,.0f} | {self.times(mode):.2f} "
                f"| {median(each.busy for each in rounds):.0%} | {' / '.join(f'{each:,.0f}' for each in quantiles)} |"
            )
        yield ""
        yield f"{described()}; {self.version}; {len(self.rounds['in memory'])} rounds of {self.seconds:g} s, medians."
        yield "Two limits a request, by address and by user; session, risk, policy, assertion, metrics, log as ever."

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Shared:
    """Bring all of them up beside one Redis; interleaved rounds."""
    rounds, seconds = options.rounds or 5, options.seconds or 4.0
    mine, others = cores()
    generator = built("openloop")
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        redis, url, version = server(others)
        stack.enter_context(redis)
        until_ready(url)
        subjects = []
        for mode in MODES:
            subject = Counting({mine}, options.gateways[0], mode, url).up(address)
            stack.callback(subject.down)
            run(subject.url, 2.0, others, subject.headers)
            subjects.append(subject)
        measured: dict[str, list[Round]] = {mode: [] for mode in MODES}
        for number in range(rounds):
            turn = number % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                one = one_round(subject, seconds, others)
                measured[subject.name].append(one)
                print(f"round {number + 1}/{rounds}  {subject.name:12} {one.rate:>9,.0f}/s  {one.busy:.0%}", flush=True)
        rate = rounded(median(each.rate for each in measured["in Redis"]) / 2)
        points: dict[str, list[Point]] = {mode: [] for mode in MODES}
        for number in range(rounds):
            turn = number % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                points[subject.name].append(at_rate(generator, rate, seconds, others, address, subject))
        for subject in subjects:
            subject.check()
        return Shared(
            {mode: tuple(each) for mode, each in measured.items()},
            {mode: tuple(each) for mode, each in points.items()},
            rate,
            version,
            seconds,
        )


def server(core: set[int]) -> tuple[Process, str, str]:
    """A Redis that keeps nothing on disk, its URL and version."""
    program = find("redis-server")
    if program is None:
        raise LeftOutError("redis-server is not here")
    port = free_port()
    # It shares a core with load and origin, which never rest; so that it need not wait for its turn as it would not on
    # a machine of its own, it goes before them where that is allowed.
    first = ["nice", "-n", "-10"] if os.geteuid() == 0 else []
    process = Process("redis", [*first, program, "--port", str(port), "--save", "", "--appendonly", "no"], cores=core)
    version = re.search(r"v=(\S+)", said(program, "--version"))
    return process, f"redis://127.0.0.1:{port}", f"Redis {version[1] if version else ''}"


def until_ready(url: str, within: float = 10.0) -> None:
    """Return when the Redis answers; RuntimeError when it does not."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if ask(url, "PING") == "PONG":
                return
        except subprocess.CalledProcessError:
            time.sleep(0.02)
    raise RuntimeError(f"no Redis answers at {url}")


def ask(url: str, *command: str) -> str:
    """What redis-cli is answered."""
    return subprocess.run(["redis-cli", "-u", url, *command], capture_output=True, text=True, check=True).stdout.strip()
