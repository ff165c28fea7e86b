"""What the gateway takes before anybody asks for anything: resident memory, and time to be ready.

Everything is read from /proc. Once with everything on, once as a data plane alone: rules and carrying, no records.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from bench.bars import Bar
from bench.machine import cores, described
from bench.options import Options
from bench.sallyport import DataPlane, Sallyport
from bench.subjects import origin

MB = 1_000_000
STARTS = 5
_PUBLIC = "rules:\n  - {name: everything, access: public, upstream: app}\n"


@dataclass(frozen=True)
class Memory:
    """All of it."""

    ready: tuple[float, ...]
    """Seconds from exec to the first 200 of /readyz, each start."""
    idle: int
    signed_in: int
    data_plane: int | None
    """None: this gateway cannot be run so; `why` has its words."""
    why: str = ""

    def bars(self) -> list[Bar]:
        return [
            Bar("resident when idle, everything on", self.idle / MB, 110, " MB"),
            Bar(
                "resident when idle, data plane alone",
                None if self.data_plane is None else self.data_plane / MB,
                60,
                " MB",
                why=self.why,
            ),
            Bar(f"start to ready, median of {len(self.ready)}", median(self.ready), 1.0, " s"),
        ]

    def markdown(self) -> str:
        rows = [
            ("start to ready", f"{median(self.ready):.2f} s ({min(self.ready):.2f}–{max(self.ready):.2f})"),
            ("resident, idle after start", f"{self.idle / MB:.1f} MB"),
            ("resident, idle after a sign-in", f"{self.signed_in / MB:.1f} MB"),
        ]
        if self.data_plane is not None:
            rows.append(("resident, idle, data plane alone", f"{self.data_plane / MB:.1f} MB"))
        return "\n".join(
            ["| what | measured |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), "", described()]
        )

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Memory:
    """Start it a few times, let it rest, sign in; then the data plane alone."""
    mine, others = cores()
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        gateway = Sallyport({mine}, options.gateways[0])
        starts = [_start(gateway, address) for _ in range(STARTS)]
        with gateway.program(address) as running:
            running.wait_for(f"{gateway.admin}/readyz")
            time.sleep(2)
            idle = running.rss()
            gateway.sign_in()
            time.sleep(1)
            signed_in = running.rss()
        data_plane, why = None, ""
        try:
            data_plane = _data_plane(DataPlane({mine}, options.gateways[0], rules=_PUBLIC), address)
        except RuntimeError as error:
            why = str(error).splitlines()[-1]
    return Memory(tuple(starts), idle, signed_in, data_plane, why)


def _data_plane(gateway: Sallyport, address: str) -> int:
    """Resident when idle; RuntimeError unless it carries."""
    with gateway.program(address) as running:
        running.wait_for(f"{gateway.admin}/readyz")
        time.sleep(2)
        idle = running.rss()
        gateway.check()
    return idle


def _start(gateway: Sallyport, origin: str) -> float:
    program = gateway.program(origin)
    begun = time.perf_counter()
    with program as process:
        process.wait_for(f"{gateway.admin}/readyz", every=0.005)
        return time.perf_counter() - begun
