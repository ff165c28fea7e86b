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
import select
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.wire.listener import Listener

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


def shut(listeners: Sequence[Listener]) -> None:
    """Let nobody new in; connections made before are still accepted. Does nothing where the kernel cannot."""
    code = array.array("B", b"".join(struct.pack("=HBBI", *each) for each in _INSTRUCTIONS))
    program = struct.pack("HP", len(_INSTRUCTIONS), code.buffer_info()[0])
    for sock in _tcp(listeners):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)


def open_again(listeners: Sequence[Listener]) -> None:
    """Undo `shut`."""
    for sock in _tcp(listeners):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


async def close(listeners: Sequence[Listener], within: float) -> None:
    """Shut, accept whoever has come until now, which takes `within` seconds at most, and listen no more.

    Whoever waits at a socket that others keep open is theirs.
    """
    for listener in listeners:
        if listener.passed_on:
            listener.close()
    listeners = [listener for listener in listeners if not listener.passed_on]
    shut(listeners)
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    if within > HANDSHAKE and _tcp(listeners):
        await asyncio.sleep(HANDSHAKE)
    while _knocking(listeners) and loop.time() < until:  # noqa: ASYNC110 - the loop accepts, and tells nobody
        await asyncio.sleep(0)
    for _ in range(2):  # who has just been accepted becomes a client
        await asyncio.sleep(0)
    for listener in listeners:
        listener.close()


def _knocking(listeners: Sequence[Listener]) -> bool:
    """Whether somebody is to be accepted."""
    queue = select.poll()
    for listener in listeners:
        for sock in listener.sockets:
            if sock.fileno() >= 0:  # not closed meanwhile, by whoever stops us as well
                queue.register(sock, select.POLLIN)
    return bool(queue.poll(0))


def _tcp(listeners: Sequence[Listener]) -> list[socket.socket]:
    ours = [listener for listener in listeners if not listener.passed_on]
    return [sock for listener in ours for sock in listener.sockets if sock.family != socket.AF_UNIX]
