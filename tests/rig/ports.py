"""Ports for what the tests start, none of them given twice.

Whoever is told a port takes it some time later. Meanwhile nobody else may get it: not from the system, which gives the
higher ones to whoever connects; not from another run of tests beside this one, which keeps to a slice of its own for as
long as it lives; and not from ourselves, for in a slice they are given in turn.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator

HERE = "127.0.0.1"
FIRST, SLICE, SLICES = 12_000, 200, 50
BUS = 10_000
"""So much higher is the port by which a Redis of a cluster talks to others."""

_kept: socket.socket
_given: Iterator[int] | None = None


def free_port() -> int:
    """One that nobody listens on, nor on that of its bus."""
    global _given
    if _given is None:
        _given = itertools.cycle(_slice())
    for port in itertools.islice(_given, SLICE):
        with socket.socket() as sock, socket.socket() as bus, contextlib.suppress(OSError):
            sock.bind((HERE, port))
            bus.bind((HERE, port + BUS))
            return port
    raise RuntimeError("every port of ours is taken")


def _slice() -> range:
    """Ours from here on: the name of a socket says so to everybody, until this process ends."""
    global _kept
    for number in random.sample(range(SLICES), SLICES):
        _kept = socket.socket(socket.AF_UNIX)
        try:
            _kept.bind(f"\0sallyport-tests-ports-{number}")
        except OSError:
            _kept.close()
            continue
        return range(FIRST + number * SLICE, FIRST + (number + 1) * SLICE)
    raise RuntimeError("every slice of ports is taken")
