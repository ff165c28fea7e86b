"""How the data plane stops without losing anything.

    delay     readiness is off; everything is served, and each answer says `Connection: close`
    doors     whoever has come is accepted, and then nobody more
    streams   WebSockets and event streams are told to go; their clients come back elsewhere
    rest      what is on its way finishes; connections without a request are let go
    cut       what is still there when the time is up

The order is the point. Clients that use their connections leave by themselves in the delay, for every answer tells them
to. So a connection that is let go afterwards has been idle all along. What remains is the one thing HTTP/1.1 cannot
rule out: a client that begins to use an idle connection in the very moment we close it. It sees the end before any byte
of an answer and tries again (RFC 9112, section 9.3.1); we look into the kernel's buffers first and never close one with
a request in it.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.wire import door

if TYPE_CHECKING:
    from gateway.wire.client import ClientConnection
    from gateway.wire.wire import Wire

LINGER = 0.5
"""Seconds a connection must have been idle, while draining, before it is closed."""


async def drain(wire: Wire, time: float, delay: float, hurry: asyncio.Event) -> None:
    """Stop within `time` seconds; in the first `delay` of them everybody may still come. `hurry` ends a wait."""
    loop = asyncio.get_running_loop()
    end = loop.time() + time
    wire.draining = True
    idle = {client for client in wire.clients if client.idle}
    await _within(min(delay, time), hurry)
    hurry.clear()
    listeners = list(wire.servers)
    wire.leave_paths()
    await door.close(wire.servers, end - loop.time())
    wire.servers.clear()
    while (
        (wire.clients or any(listener.arriving for listener in listeners))
        and not hurry.is_set()
        and (left := end - loop.time()) > 0
    ):
        wire.streams.going_away()
        before, idle = idle, {client for client in wire.clients if client.idle}
        let_go(before & idle)  # who was idle and then used its connection has been told to leave, and is gone
        wire.deserted.clear()
        await _within(min(LINGER, left), hurry, wire.deserted)
    for client in list(wire.clients):
        client.abort()


def let_go(clients: Iterable[ClientConnection]) -> int:
    """Close connections on which nothing is on its way, as far as this machine can know; how many that were."""
    by_number = {client.fileno(): client for client in clients}
    arrived = select.poll()
    for number in by_number:
        arrived.register(number, select.POLLIN)
    for number, _ in arrived.poll(0):
        del by_number[number]  # a request, or the client's own end: the loop is about to read it
    for client in by_number.values():
        client.close()
    return len(by_number)


async def _within(seconds: float, *events: asyncio.Event) -> None:
    """Wait so long, or until one of `events`."""
    if seconds > 0:
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
