"""A minute under load: three gateways, 64 clients on each, every way of counting, and how many were let through.

    make test     one run beside other tests          python -m tests.replicas.burst     the same, and what it counted

All clients begin with a dash, as fast as they are answered, and go on at a pace, so that every limit is over and stays
over, and little of the machine is used. Windows, limits and stretches are told from outside: when each request was
sent and when its answer was there, by the one clock of this machine, which is Redis's too.

Limits refuse while the store is away: on a machine that is busy with other things an answer may be late enough to be
taken for none, and what a replica then lets through by itself would be counted twice here.

The replicas' own clocks are wrong by 5 seconds in both directions, and one of them is set forward by an hour in the
middle of it: `time.time` is replaced before anything else is imported, so this is what all of the gateway sees.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.house.process import ROOT
from tests.replicas.load import One, asked
from tests.replicas.several import raw, several
from tests.rig.redis import a_server

RATE, WINDOW, BURST = 1000, 60.0, 100
SECONDS = 59.0
"""Less than a window, so that nothing that was counted is forgotten again."""
CLIENTS = 64
"""On each replica."""
DASH = 12
"""Requests of each client at first, as fast as they are answered."""
PACE = 1.0
"""Seconds between two requests of a client afterwards."""

LIMITS = {
    "sliding": "algorithm: sliding_window, rate: 1000/m",
    "fixed": "algorithm: fixed_window, rate: 1000/m",
    "gcra": f"algorithm: gcra, rate: 1000/m, burst: {BURST}",
    "bucket": f"algorithm: token_bucket, rate: 1000/m, burst: {BURST}",
    "sliding-leased": "algorithm: sliding_window, rate: 1000/m, mode: leased",
    "gcra-leased": f"algorithm: gcra, rate: 1000/m, burst: {BURST}, mode: leased",
}
POLICY = "rules:\n" + "".join(
    f"  - name: {name}\n    match: {{paths: [/{name}]}}\n    access: public\n    upstream: app\n"
    f"    limits: [{{name: all, key: address, when_away: refuse, {said}}}]\n"
    for name, said in LIMITS.items()
)

WRONG = """
import os, time
_now, _begun, _shift = time.time, time.monotonic(), float(os.environ["WRONG_BY"])
_jump, _after = map(float, os.environ.get("JUMPS", "0 0").split())
def wrong():
    return _now() + _shift + (_jump if time.monotonic() - _begun > _after else 0.0)
time.time = wrong
time.time_ns = lambda: int(wrong() * 1e9)
"""
"""As `sitecustomize`, which Python imports before anything else."""
CLOCKS = ({"WRONG_BY": "-5"}, {"WRONG_BY": "0", "JUMPS": "3600 25"}, {"WRONG_BY": "5"})


async def _client(one: tuple[int, int], until: float, tally: list[One], dice: random.Random) -> None:
    number, port = one
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    names = list(LIMITS)
    turn = dice.randrange(len(names))
    due = 0.0
    try:
        for count in range(1_000_000):
            if count >= DASH:
                due = due + PACE if due else time.time() + dice.random() * PACE
                if due >= until:
                    return
                await asyncio.sleep(max(0.0, due - time.time()))
            name = names[(turn + count) % len(names)]
            sent = time.time()
            tally.append(One(name, number, sent, *await asked(reader, writer, raw(f"/{name}"))))
    finally:
        writer.close()


async def run(seconds: float = SECONDS) -> tuple[list[One], int]:
    """All requests of the minute, and how often a replica took the store for away."""
    dice = random.Random(5)
    tally: list[One] = []
    with a_server() as redis, tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(WRONG)
        environs = [{"PYTHONPATH": f"{folder}:{ROOT}", **clock} for clock in CLOCKS]
        store = {"records": "none", "shared": {"url": redis.url, "deadline": "1s"}}
        async with several(3, policy=POLICY, store=store, environs=environs) as house:
            await house.start()
            until = time.time() + seconds
            ports = [(number, one.port) for number, one in enumerate(house.replicas) for _ in range(CLIENTS)]
            async with asyncio.TaskGroup() as group:
                for one in ports:
                    group.create_task(_client(one, until, tally, dice))
            for replica in house.replicas:
                assert await replica.stop() == 0, replica.said
            house.calm()
            lost = sum(replica.said.count("store shared is away") for replica in house.replicas)
    return tally, lost


def main() -> int:
    """Print every request as JSON on standard output, and what it came to on standard error."""
    tally, lost = uvloop.run(run())
    for name in LIMITS:
        mine = [one for one in tally if one.name == name]
        let = sum(one.status == 200 for one in mine)
        waits = sorted(one.answered - one.sent for one in mine)
        took = [waits[len(waits) // 2] * 1000, waits[len(waits) * 99 // 100] * 1000]
        print(f"{name:>16}: {let} of {len(mine)} p50 {took[0]:.1f} ms p99 {took[1]:.1f} ms", file=sys.stderr)
    print(f"the store was taken for away {lost} times", file=sys.stderr)
    json.dump(tally, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
