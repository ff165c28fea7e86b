"""Whether a store is there: a breaker before each, so that hardly anybody waits for one that is not.

    up ──── a call fails, or has no answer within `deadline` ────▶ away
    away    every call raises `StoreAway` at once; a probe asks every quarter of a second
    away ── a probe is answered ─────────────────────────────────▶ up

The probe has the same deadline, unless it is given longer because it has to connect anew. A timer that fires late says
that this process was busy, not that the store is away; the answer may lie in the socket unread. So it is given that
long again, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.core.errors import StoreAway

_log = logging.getLogger("sallyport")

DEADLINE = 0.05
"""Seconds that a request waits for a store at most."""
PROBE_EVERY = 0.25
LATE = 0.01
"""Seconds a timer may be late before it proves nothing."""

Changed = Callable[[bool], None]


class Line:
    """The way to one store. `name` is what logs, metrics and readiness call it: `records`, `shared`."""

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[object]],
        *,
        deadline: float = DEADLINE,
        patience: float | None = None,
    ) -> None:
        """`deadline` of a call, `patience` with a probe (nobody waits for one), in seconds."""
        self.name = name
        self.deadline = deadline
        self.patience = max(deadline, DEADLINE) if patience is None else patience
        self.up = True
        self.why = ""
        """Why it is away, in words; empty while it is up."""
        self.lost = 0
        """How often it went away."""
        self._probe = probe
        self._probing: asyncio.Task[None] | None = None
        self._listeners: list[Changed] = []
        self._closed = False

    def listen(self, changed: Changed) -> None:
        """Have `changed` called with True when the store is back, with False when it is away."""
        self._listeners.append(changed)

    def check(self) -> None:
        """Raises `StoreAway` at once while the store is away, and when it is closed."""
        if not self.up or self._closed:
            raise StoreAway(f"{self.name}: {self.why or 'closed'}")

    @asynccontextmanager
    async def bounded(self, deadline: float | None = None) -> AsyncIterator[None]:
        """A call that may take `deadline` seconds. Raises `StoreAway` when it takes longer; the store is then away.

        What else goes wrong inside passes; who knows what it means says `failed`.
        """
        self.check()
        seconds = self.deadline if deadline is None else deadline
        began, late = self.lost, f"no answer within {seconds * 1000:g} ms"
        try:
            async with _timeout(seconds):
                yield
        except TimeoutError:
            self.failed(late, began)
            self.check()
            raise StoreAway(f"{self.name}: {late}") from None

    def failed(self, why: str, began: int | None = None) -> None:
        """A call has failed in a way that says the store is away.

        `began`: `lost` as it was when the call began. Of one that began before the store went away, and has come back
        since, nothing follows for how it is now.
        """
        if self._closed:  # whoever is late; a probe would go on for ever, and connect anew
            return
        if self.up and began is not None and began != self.lost:
            return
        if self._probing is not None and self._probing.done() and not self._probing.cancelled():
            self._probing = None
        self.why = why
        if self.up:
            self.up = False
            self.lost += 1
            _log.error("store %s is away: %s", self.name, why)
            self._tell(False)
        if self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._until_back(), name=f"probe of {self.name}")

    async def close(self) -> None:
        """Ask no more, and have nobody ask."""
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _until_back(self) -> None:
        while not self.up:
            try:
                async with asyncio.timeout(self.patience):
                    await self._probe()
            except Exception as error:
                late = f"no answer within {self.patience * 1000:g} ms" if isinstance(error, TimeoutError) else ""
                self.why = str(error) or late or type(error).__name__
                await asyncio.sleep(PROBE_EVERY)
                continue
            self.up, self.why = True, ""
            _log.warning("store %s is back", self.name)
            self._tell(True)

    def _tell(self, up: bool) -> None:
        for listener in self._listeners:
            listener(up)


@asynccontextmanager
async def _timeout(seconds: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as timeout:

        def over(again: bool) -> None:
            if again and loop.time() - due > LATE:
                handles.append(loop.call_later(seconds, over, False))
            else:
                timeout.reschedule(loop.time())

        handles = [loop.call_at(due, over, True)]
        try:
            yield
        finally:
            handles[-1].cancel()
