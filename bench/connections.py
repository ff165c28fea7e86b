"""What an idle client connection costs: resident memory of the gateway, with thousands of them open.

Each has made one request with a session and was answered, so everything a connection remembers is there. What the
kernel keeps for a socket is not the gateway's and not in it.
"""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from bench.bars import Bar
from bench.machine import cores, described
from bench.options import Options
from bench.sallyport import Sallyport
from bench.subjects import BODY, origin

COUNTS = (1_000, 5_000)
WARM = 20
"""Opened, used and closed before: what the first ones make once is not the price of one more."""
KB = 1_000


@dataclass(frozen=True)
class Idle:
    """Resident bytes by number of idle connections; the first is none."""

    resident: dict[int, int]

    def each(self, count: int) -> float:
        return (self.resident[count] - self.resident[0]) / count

    def bars(self) -> list[Bar]:
        return [
            Bar(f"resident for each of {count:,} idle connections", self.each(count) / KB, 12, " KB")
            for count in COUNTS
        ]

    def markdown(self) -> str:
        rows = [
            f"| {count:,} | {self.resident[count] / 1e6:.1f} MB | {self.each(count) / KB:.1f} KB |" for count in COUNTS
        ]
        lines = ["| idle connections | resident | each |", "| ---: | ---: | ---: |"]
        return "\n".join([*lines, f"| 0 | {self.resident[0] / 1e6:.1f} MB | |", *rows, "", described()])

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Idle:
    """Open them one after the other and read /proc."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the gateway is started from here and has it, too
    mine, others = cores()
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        gateway = Sallyport({mine}, options.gateways[0]).up(address)
        stack.callback(gateway.down)
        with ExitStack() as first:
            for _ in range(WARM):
                _ask(first.enter_context(_connected(gateway)), gateway)
        resident = {0: _settled(gateway)}
        clients: list[socket.socket] = []
        for count in COUNTS:
            while len(clients) < count:
                clients.append(stack.enter_context(_connected(gateway)))
                _ask(clients[-1], gateway)
            resident[count] = _settled(gateway)
        for client in clients:
            _ask(client, gateway)  # none of them was closed meanwhile
    return Idle(resident)


def _settled(gateway: Sallyport) -> int:
    time.sleep(2)
    return gateway.process.rss()


def _connected(gateway: Sallyport) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=10)


def _ask(client: socket.socket, gateway: Sallyport) -> None:
    """One request on it; RuntimeError when the answer is not the origin's."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in gateway.headers.items())
    client.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n{fields}\r\n".encode())
    answer = b""
    while not answer.endswith(BODY.encode()):
        part = client.recv(65536)
        if not part:
            break
        answer += part
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{gateway.name} answered {answer[:200]!r}")
