"""More than can be carried: what is still carried then, and whether thousands of dribblers make others wait.

The load of the first half is closed: wrk keeps a hundred times the connections that capacity was measured with, each
with one request under way, and comes back at once after a refusal. The second half is open: requests at half of the
capacity, without dribblers and with them.
"""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.load import LoadError, run
from bench.machine import cores, described, find
from bench.openloop import at_rate
from bench.options import Options
from bench.sallyport import Sallyport
from bench.subjects import built, fetch, origin

MANY = 3_200
"""Connections of the overload."""
DRIBBLERS = 5_000


@dataclass(frozen=True)
class Overload:
    """Rates a second, times in milliseconds, sizes in bytes."""

    rounds: tuple[tuple[float, float, float, float], ...]
    """Of each: capacity, goodput, refusals (503, and connections that were cut), and seconds from the end of the
    overload to an answer within 50 ms."""
    p99: float
    p99_dribbled: float
    resident: int
    resident_most: int

    def bars(self) -> list[Bar]:
        return [
            Bar("goodput in overload, of capacity", self.share, 0.8, "", at_least=True),
            Bar("recovery, the longest", max(one[3] for one in self.rounds), 5, " s"),
            Bar(f"p99 with {DRIBBLERS:,} dribblers, of without", self.p99_dribbled / self.p99, 2, ""),
        ]

    @property
    def share(self) -> float:
        """What is left of the capacity in overload, median of the rounds."""
        return median(goodput / capacity for capacity, goodput, _, _ in self.rounds)

    def markdown(self) -> str:
        capacity, goodput, refused, recovery = (median(column) for column in zip(*self.rounds, strict=True))
        shares = [one[1] / one[0] for one in self.rounds]
        rows = [
            ("capacity", f"{capacity:,.0f}/s"),
            (f"goodput with {MANY:,} connections", f"{goodput:,.0f}/s"),
            ("of capacity", f"{self.share:.2f} ({min(shares):.2f}–{max(shares):.2f})"),
            ("refused meanwhile", f"{refused:,.0f}/s"),
            ("recovery", f"{recovery:.2f} s"),
            ("p99 at half of capacity", f"{self.p99:.2f} ms"),
            (f"the same with {DRIBBLERS:,} dribblers", f"{self.p99_dribbled:.2f} ms"),
            ("resident before, and most", f"{self.resident / 1e6:.0f} MB, {self.resident_most / 1e6:.0f} MB"),
        ]
        lines = ["| what | measured |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)]
        return "\n".join([*lines, "", described()])

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Overload:
    """Capacity, overload, recovery; then dribblers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    seconds = options.seconds or 10
    mine, others = cores()
    generator = built("openloop")
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        gateway = Sallyport({mine}, options.gateways[0]).up(address)
        stack.callback(gateway.down)
        run(gateway.url, 1.0, others, gateway.headers)
        resident = gateway.process.rss()
        rounds = []
        for number in range(options.rounds or 3):
            capacity = run(gateway.url, max(1, seconds // 2), others, gateway.headers).rate
            good, bad = _overload(gateway, seconds, others)
            rounds.append((capacity, good, bad, _recovery(gateway)))
            print(f"round {number + 1}: {good / capacity:.2f} of capacity", flush=True)

        rate = max(100, round(median(one[0] for one in rounds) / 200) * 100)
        alone = at_rate(generator, rate, seconds, others, address, gateway)
        dribblers = Dribblers(gateway.port)
        stack.callback(dribblers.stop)
        dribblers.start()
        dribbled = at_rate(generator, rate, seconds, others, address, gateway)
        return Overload(
            tuple(rounds),
            alone.quantiles["p99"] / 1e3,
            dribbled.quantiles["p99"] / 1e3,
            resident,
            gateway.process.peak_rss(),
        )


def _recovery(gateway: Sallyport) -> float:
    """Seconds until it is prompt again; 30 at most."""
    began = time.monotonic()
    while not _prompt(gateway) and time.monotonic() - began < 30:
        pass
    return time.monotonic() - began


def _overload(gateway: Sallyport, seconds: float, others: set[int]) -> tuple[float, float]:
    """Good and other answers a second."""
    wrk = find("wrk")
    if wrk is None:
        raise LoadError("wrk is not installed")
    command = ["taskset", "-c", ",".join(map(str, others)), wrk, "-t1", f"-c{MANY}", f"-d{seconds:g}s"]
    for name, value in gateway.headers.items():
        command += ["-H", f"{name}: {value}"]
    said = subprocess.run([*command, gateway.url], capture_output=True, text=True, check=False).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    total = re.search(r"(\d+) requests in", said)
    if rate is None or total is None:
        raise LoadError(f"wrk measured nothing: {said.strip()}")
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    share = int(wrong[1]) / max(1, int(total[1])) if wrong else 0.0
    return float(rate[1]) * (1 - share), float(rate[1]) * share


def _prompt(gateway: Sallyport) -> bool:
    began = time.monotonic()
    with suppress(OSError):
        return fetch("GET", gateway.url, gateway.headers)[0] == 200 and time.monotonic() - began < 0.05
    return False


class Dribblers(threading.Thread):
    """Connections that send a head one byte every few seconds, and come again when they are cut."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._over = threading.Event()
        self._sockets = [self._new() for _ in range(DRIBBLERS)]

    def run(self) -> None:
        while not self._over.is_set():
            for at, sock in enumerate(self._sockets):
                try:
                    sock.send(b"G")
                except OSError:
                    sock.close()
                    self._sockets[at] = self._new()
                if at % 100 == 0 and self._over.wait(0.08):
                    break

    def stop(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join()
        for sock in self._sockets:
            sock.close()

    def _new(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sock.send(b"GET /")
        sock.setblocking(False)
        return sock
