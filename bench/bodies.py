"""1 GiB down and up: how fast beside nginx, and what it adds to resident memory.

nginx streams, as the gateway does: nothing of a body is buffered on disk or read to its end first. Every byte that
comes down is compared, and the service answers count and checksum of what went up. The peak is the kernel's own
high-water mark, set back before each body, so nothing between two samples is missed.
"""

from __future__ import annotations

import socket
import time
import urllib.parse
import zlib
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.machine import Process, cores, described, free_port
from bench.options import Options
from bench.sallyport import Sallyport
from bench.subjects import Nginx, Subject, built, nginx

MIB = 2**20
SIZE = 1024 * MIB
WAYS = ("down", "up")
_PATTERN = bytes(range(256)) * (MIB // 256 + 1)
_BLOCK = _PATTERN[:MIB]


@dataclass(frozen=True)
class Body:
    """One large body through one proxy."""

    seconds: float
    cpu: float
    """Seconds of processor time the proxy used."""
    grown: int
    """Bytes of resident memory at the worst moment, above what it was before."""


@dataclass(frozen=True)
class Bodies:
    """By name and way, a round each."""

    bodies: dict[str, dict[str, tuple[Body, ...]]]
    gateway: str

    def ratio(self, way: str) -> float:
        """Bytes a second of the gateway ÷ nginx, median of the rounds.

        By the clock or by processor time, whichever is less: where load and service are the limit, both look alike.
        """
        both = [*zip(self.bodies[self.gateway][way], self.bodies[Nginx.name][way], strict=True)]
        by_clock = median(its.seconds / mine.seconds for mine, its in both)
        return min(by_clock, median(its.cpu / mine.cpu for mine, its in both))

    def bars(self) -> list[Bar]:
        here = Nginx.name in self.bodies
        return [
            *(
                Bar(
                    f"1 GiB {way}, {self.gateway} ÷ nginx",
                    self.ratio(way) if here else None,
                    0.5,
                    " ×",
                    at_least=True,
                    why="nginx is not here",
                )
                for way in WAYS
            ),
            *(
                Bar(
                    f"grown by 1 GiB {way}, worst round",
                    max(body.grown for body in self.bodies[self.gateway][way]) / MIB,
                    16,
                    " MiB",
                )
                for way in WAYS
            ),
        ]

    def markdown(self) -> str:
        lines = [
            "| 1 GiB | way | MiB/s | its core | MiB per CPU second | grew by |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for name, ways in self.bodies.items():
            for way, rounds in ways.items():
                speed = median(SIZE / MIB / body.seconds for body in rounds)
                busy = median(body.cpu / body.seconds for body in rounds)
                each = median(SIZE / MIB / body.cpu for body in rounds if body.cpu)
                grown = max(body.grown for body in rounds) / MIB
                lines.append(f"| {name} | {way} | {speed:,.0f} | {busy:.0%} | {each:,.0f} | {grown:.1f} MiB |")
        return "\n".join([*lines, "", described()])

    def data(self) -> dict[str, object]:
        return asdict(self)


class _Streaming(Nginx):
    """nginx as one would set it up for large bodies."""

    def program(self, origin: str) -> Process:
        return nginx(
            "nginx-bodies",
            self.core,
            f"""
            client_max_body_size 0; client_body_buffer_size 256k; proxy_request_buffering off;
            proxy_max_temp_file_size 0; proxy_buffer_size 256k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k;
            upstream origin {{ server {urllib.parse.urlsplit(origin).netloc}; keepalive 64; }}
            server {{
                listen 127.0.0.1:{self.port};
                location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}""",
        )


def measure(options: Options) -> Bodies:
    """In turns: down and up through nginx, down and up through the gateway."""
    rounds = min(options.rounds or 3, 10)
    mine, others = cores()
    port = free_port()
    service = Process("goservice", [built("goservice"), f"127.0.0.1:{port}"], cores=others)
    with ExitStack() as stack:
        stack.enter_context(service)
        origin = f"http://127.0.0.1:{port}"
        service.wait_for(origin)
        subjects: list[Subject] = [_Streaming({mine}), Sallyport({mine}, options.gateways[0])]
        for subject in subjects:
            subject.process = stack.enter_context(subject.program(origin))
            subject.process.wait_for(subject.url)
            subject.sign_in()
        measured: dict[str, dict[str, list[Body]]] = {each.name: {way: [] for way in WAYS} for each in subjects}
        for number in range(rounds):
            for subject in subjects:
                for way in WAYS:
                    measured[subject.name][way].append(carried(subject, way))
            print(f"round {number + 1}/{rounds}", flush=True)
    told = {name: {way: tuple(bodies) for way, bodies in ways.items()} for name, ways in measured.items()}
    return Bodies(told, options.gateways[0].name)


def carried(subject: Subject, way: str, size: int = SIZE) -> Body:
    """One body; RuntimeError unless every byte arrives."""
    carry = _down if way == "down" else _up
    carry(subject, 8 * MIB)
    subject.process.forget_peak()
    before, used = subject.process.rss(), subject.process.cpu()
    seconds = carry(subject, size)
    return Body(seconds, subject.process.cpu() - used, subject.process.peak_rss() - before)


def _down(subject: Subject, size: int) -> float:
    with _connected(subject) as client:
        begun = time.perf_counter()
        client.sendall(_head(subject, f"GET /bytes/{size}"))
        head, rest = _answer(client)
        at = 0
        while rest:
            if not _PATTERN.startswith(rest, at % 256):
                raise RuntimeError(f"{subject.name}: other bytes came than were sent, near {at}")
            at += len(rest)
            rest = client.recv(MIB) if at < size else b""
        seconds = time.perf_counter() - begun
    if at != size or not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{subject.name}: {at:,} bytes of {size:,} came, {head[:100]!r}")
    return seconds


def _up(subject: Subject, size: int) -> float:
    checksum = 0
    for _ in range(size // MIB):
        checksum = zlib.crc32(_BLOCK, checksum)
    with _connected(subject) as client:
        begun = time.perf_counter()
        client.sendall(_head(subject, "POST /upload", f"Content-Length: {size}\r\n"))
        for _ in range(size // MIB):
            client.sendall(_BLOCK)
        head, told = _answer(client)
        seconds = time.perf_counter() - begun
    if not head.startswith(b"HTTP/1.1 200 ") or told != f"{size} {checksum:08x}\n".encode():
        raise RuntimeError(f"{subject.name}: the service received {told!r}, {head[:100]!r}")
    return seconds


def _connected(subject: Subject) -> socket.socket:
    return socket.create_connection(("127.0.0.1", subject.port), timeout=60)


def _head(subject: Subject, line: str, more: str = "") -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in subject.headers.items())
    return f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{subject.port}\r\n{fields}{more}Connection: close\r\n\r\n".encode()


def _answer(client: socket.socket) -> tuple[bytes, bytes]:
    """The head, and what has come of the body."""
    got = b""
    while b"\r\n\r\n" not in got and (part := client.recv(MIB)):
        got += part
    head, _, rest = got.partition(b"\r\n\r\n")
    if not rest and b"content-length: 0\r\n" not in head.lower():
        rest = client.recv(MIB)
    return head, rest
