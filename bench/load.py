"""wrk, and what it measured."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.machine import find

CONNECTIONS = 32
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Round:
    """One run of wrk against one subject."""

    rate: float
    """Answers a second."""
    p50: float
    """Milliseconds; half of the answers were faster."""
    p99: float
    """Milliseconds at full load, which is queueing more than work."""
    busy: float = 0.0
    """Share of its core the subject used, 0.0-1.0."""
    foreign: float = 0.0
    """Share of that core others used meanwhile."""


class LoadError(Exception):
    """Answers were not what was asked for: the figure would mean nothing."""


def run(url: str, seconds: float, cores: set[int], headers: dict[str, str], *, script: Path | None = None) -> Round:
    """Load `url`, or what the Lua `script` makes of it, with 32 keep-alive connections; every answer must be 2xx."""
    wrk = find("wrk")
    if wrk is None:
        raise LoadError("wrk is not installed")
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if script is not None:
        command += ["-s", str(script)]
    ended = subprocess.run(
        [*command, url],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return read(ended.stdout + ended.stderr)


def read(output: str) -> Round:
    """What wrk printed; LoadError for refused, failed or missing answers."""
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output) or re.search(r"Socket errors: (.*[1-9].*)", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if wrong or not rate or float(rate[1]) == 0:
        raise LoadError(wrong[0] if wrong else f"wrk measured nothing: {output.strip()}")
    return Round(float(rate[1]), _latency(output, 50), _latency(output, 99))


def _latency(output: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
