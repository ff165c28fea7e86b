"""The doors that clients come in by: shut and opened again, and closed, without losing who is on the stairs already.

A listening socket that is closed resets every connection that the kernel has completed and nobody has accepted. So a
door is shut first: a filter in the kernel (socket(7), SO_ATTACH_FILTER) leaves each further SYN unanswered, while
handshakes under way are completed. Who knocked meanwhile tries again by itself after a second (RFC 6298, section 2),
here if the door was opened again, else elsewhere. The same keeps a full house from being knocked down: not answering
costs nothing.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence

HANDSHAKE = 0.1
"""Seconds that a handshake under way may take: most round trips, and the balancer's is the shortest of them."""

_ATTACH_FILTER, _DETACH_FILTER = 26, 27
_INSTRUCTIONS = (
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFF_FFFF),  # pass
)
"""Classic BPF over the TCP header (linux/filter.h): operation, jump if true, jump if false, operand."""


def shut(servers: Sequence[asyncio.Server]) -> None:
    """Let nobody new in; connections made before are still accepted. Does nothing where the kernel cannot."""
    code = array.array("B", b"".join(struct.pack("=HBBI", *each) for each in _INSTRUCTIONS))
    program = struct.pack("HP", len(_INSTRUCTIONS), code.buffer_info()[0])
    for sock in _tcp(servers):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)


def open_again(servers: Sequence[asyncio.Server]) -> None:
    """Undo `shut`."""
    for sock in _tcp(servers):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


async def close(servers: Sequence[asyncio.Server], within: float) -> None:
    """Shut, accept whoever has come until now, which takes `within` seconds at most, and listen no more."""
    shut(servers)
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    if within > HANDSHAKE and any(True for _ in _tcp(servers)):
        await asyncio.sleep(HANDSHAKE)
    while _waiting(servers) and loop.time() < until:  # noqa: ASYNC110 - the loop accepts, and tells nobody
        await asyncio.sleep(0)
    for server in servers:
        server.close()


def _waiting(servers: Sequence[asyncio.Server]) -> bool:
    """Whether somebody is to be accepted."""
    queue = select.poll()
    for server in servers:
        for sock in server.sockets:
            queue.register(sock.fileno(), select.POLLIN)
    return bool(queue.poll(0))


def _tcp(servers: Sequence[asyncio.Server]) -> Iterator[socket.socket]:
    """The listening sockets, as such: the loop's own stand-ins take no options of the kernel's."""
    for server in servers:
        for sock in server.sockets:
            with socket.socket(fileno=os.dup(sock.fileno())) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6):
                    yield one
