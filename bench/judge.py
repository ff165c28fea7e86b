"""What one judgement takes: `Gate.judge` of a running gateway, warm, without sockets.

The gateway is wired by its own `App`, with the configuration of the throughput bench; a session is opened the way the
sign-in form opens it. Each call judges facts it has not seen before, as the wire makes them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from dataclasses import asdict, dataclass
from statistics import median

import uvloop

from bench.bars import Bar
from bench.machine import cores, described
from bench.options import Options
from bench.sallyport import Sallyport
from bench.subjects import PASSWORD
from gateway.app import App
from gateway.core.decision import Allow
from gateway.core.facts import Facts
from gateway.core.identity import Proof
from gateway.settings import load

CALLS = 20_000
REPEATS = 11


@dataclass(frozen=True)
class Judged:
    """Microseconds of one judgement, the mean of each repeat."""

    repeats: tuple[float, ...]

    def bars(self) -> list[Bar]:
        return [Bar(f"one judgement, median of {len(self.repeats)} × {CALLS:,}", median(self.repeats), 12, " µs")]

    def markdown(self) -> str:
        return "\n".join(
            [
                "| what | median | best | worst |",
                "| --- | ---: | ---: | ---: |",
                f"| `Gate.judge`, session, 2 limits, risk, policy, warm | {median(self.repeats):.2f} µs "
                f"| {min(self.repeats):.2f} µs | {max(self.repeats):.2f} µs |",
                "",
                described(),
            ]
        )

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Judged:
    """On the core the proxies are measured on."""
    mine, _ = cores()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {mine})
    try:
        return Judged(uvloop.run(_measure()))
    finally:
        os.sched_setaffinity(0, allowed)


async def _measure() -> tuple[float, ...]:
    subject = Sallyport(set())
    subject.configure("http://127.0.0.1:9")
    app = App(load(subject.folder / "config.yaml", os.environ))
    await app.start()
    try:
        user = await app.users.find("bench") or await app.users.add("bench", PASSWORD)
        proof = Proof("password", app.clock.now())
        token, _ = await app.sessions.open(user, proof, address="127.0.0.1", agent="bench")
        cookie = f"sallyport={token}".encode()
        await _judge(app, cookie, 1_000)
        gc.collect()
        gc.freeze()
        return tuple([await _judge(app, cookie, CALLS) for _ in range(REPEATS)])
    finally:
        await app.stop(grace=0.0)


async def _judge(app: App, cookie: bytes, calls: int) -> float:
    """Microseconds a call, of processor time: what else the machine does is not the gate's."""
    asked = [_facts(cookie, number) for number in range(calls)]
    judge = app.gate.judge
    begun = time.thread_time()
    for facts in asked:
        verdict = await judge(facts)
    taken = (time.thread_time() - begun) / calls * 1e6
    if not isinstance(verdict.decision, Allow):
        raise RuntimeError(f"judged {verdict.decision}")
    await asyncio.sleep(0)  # Housekeeping has its turn between repeats, not inside one.
    return taken


def _facts(cookie: bytes, number: int) -> Facts:
    return Facts(
        method="GET",
        host="127.0.0.1",
        path="/",
        target=b"/",
        address="127.0.0.1",
        network="127.0.0.1",
        agent="bench",
        cookie=cookie,
        headers=((b"host", b"127.0.0.1"), (b"user-agent", b"bench"), (b"cookie", cookie)),
        request_id=f"bench-{number}",
    )
