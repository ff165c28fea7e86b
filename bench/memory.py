"""What the gateway takes: resident memory when idle, time to be ready, and what a gigabyte each way adds.

Everything is read from /proc. The peak is the kernel's own high-water mark, set back before each body, so nothing
between two samples is missed.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.machine import Process, cores, described, free_port, python
from bench.subjects import Sallyport

MIB = 2**20
MB = 1_000_000
SIZE = 1024 * MIB
STARTS = 5
_BLOCK = bytes(range(256)) * 1024


@dataclass(frozen=True)
class Body:
    """One large body through the gateway."""

    way: str
    seconds: float
    grown: int
    """Bytes of resident memory at the worst moment, above what it was before."""


@dataclass(frozen=True)
class Memory:
    """All of it."""

    ready: tuple[float, ...]
    """Seconds from exec to the first 200 of /readyz, each start."""
    idle: int
    signed_in: int
    bodies: tuple[Body, ...]

    def bars(self) -> list[Bar]:
        return [
            Bar("resident when idle", self.idle / MB, 90, " MB"),
            Bar(f"start to ready, median of {len(self.ready)}", median(self.ready), 1.5, " s"),
            *(Bar(f"grown by 1 GiB {each.way}", each.grown / MIB, 16, " MiB") for each in self.bodies),
        ]

    def markdown(self) -> str:
        rows = [
            ("start to ready", f"{median(self.ready):.2f} s ({min(self.ready):.2f}–{max(self.ready):.2f})"),
            ("resident, idle after start", f"{self.idle / MB:.1f} MB"),
            ("resident, idle after a sign-in", f"{self.signed_in / MB:.1f} MB"),
        ]
        for each in self.bodies:
            speed = SIZE / MIB / each.seconds
            rows.append((f"1 GiB {each.way}", f"grew by {each.grown / MIB:.1f} MiB at most; {speed:,.0f} MiB/s"))
        return "\n".join(
            ["| what | measured |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), "", described()]
        )

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure() -> Memory:
    """Start it a few times, let it rest, then send a gigabyte each way."""
    mine, others = cores()
    port = free_port()
    service = Process("service", python("-m", "demo.service", "--listen", f"127.0.0.1:{port}"), cores=others)
    with service:
        origin = f"http://127.0.0.1:{port}"
        service.wait_for(origin)
        gateway = Sallyport({mine})
        starts = [_start(gateway, origin) for _ in range(STARTS)]
        with gateway.program(origin) as process:
            process.wait_for(f"{gateway.admin}/readyz")
            time.sleep(2)
            idle = process.rss()
            gateway.sign_in()
            time.sleep(1)
            signed_in = process.rss()
            bodies = tuple(_carry(way, process, gateway) for way in ("down", "up"))
    return Memory(tuple(starts), idle, signed_in, bodies)


def _start(gateway: Sallyport, origin: str) -> float:
    program = gateway.program(origin)
    begun = time.perf_counter()
    with program as process:
        process.wait_for(f"{gateway.admin}/readyz", every=0.005)
        return time.perf_counter() - begun


def _carry(way: str, process: Process, gateway: Sallyport) -> Body:
    carry = _download if way == "down" else _upload
    carry(gateway, 8 * MIB)
    process.forget_peak()
    before = process.rss()
    begun = time.perf_counter()
    carry(gateway, SIZE)
    return Body(way, time.perf_counter() - begun, process.peak_rss() - before)


def _download(gateway: Sallyport, size: int) -> None:
    connection = _connection(gateway)
    connection.request("GET", f"/bytes/{size}", headers=gateway.headers)
    answer = connection.getresponse()
    got = 0
    while part := answer.read(MIB):
        got += len(part)
    connection.close()
    if answer.status != 200 or got != size:
        raise RuntimeError(f"{answer.status}, {got} bytes of {size} came")


def _upload(gateway: Sallyport, size: int) -> None:
    digest = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for _ in range(size // len(_BLOCK)):
            digest.update(_BLOCK)
            yield _BLOCK

    connection = _connection(gateway)
    headers = {**gateway.headers, "Content-Length": str(size)}
    connection.request("POST", "/upload", blocks(), headers)
    answer = connection.getresponse()
    told = answer.read().decode()
    connection.close()
    if answer.status != 200 or digest.hexdigest() not in told:
        raise RuntimeError(f"{answer.status}, the service received {told}")


def _connection(gateway: Sallyport) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(gateway.url).netloc, timeout=120)
