"""Several senders for one channel, in the operator's order.

The first that takes a message over has it. One that could not, for a reason of its own, is asked last for half a
minute, so that messages do not wait for it one after the other. What one may have taken over is given to nobody else:
it goes out a second time only when it is tried again, under the same id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.core.clock import Clock
from gateway.core.contracts import Sender
from gateway.core.errors import Undelivered
from gateway.core.message import Message

REST = 30.0
"""Seconds that a sender which failed is asked last."""

Timed = Callable[[str, str, float], None]
"""Told `(sender, outcome, seconds)` of each try; outcome: accepted, refused, failed, unsure."""


class Taken(NamedTuple):
    """Who took a message over, and what they call it."""

    via: str
    reference: str


class Route:
    """The senders of one channel; names tell them apart, the second of a kind being `smtp-2`."""

    def __init__(self, senders: Sequence[Sender], clock: Clock, timed: Timed) -> None:
        self._senders = list(zip(names([sender.name for sender in senders]), senders, strict=True))
        self._clock = clock
        self._timed = timed
        self._resting: dict[str, float] = {}

    async def send(self, message: Message) -> Taken:
        """Hand it over to one of them. Raises `Undelivered` of all of them."""
        failures: list[Undelivered] = []
        for name, sender in self._order():
            began = self._clock.monotonic()
            try:
                receipt = await sender.send(message)
            except Undelivered as failed:
                outcome = "unsure" if failed.unsure else "refused" if failed.final else "failed"
                self._timed(name, outcome, self._clock.monotonic() - began)
                if not failed.final:
                    self._resting[name] = began + REST
                failures.append(Undelivered(f"{name}: {failed.why}", final=failed.final, unsure=failed.unsure,
                                            retry_after=failed.retry_after))  # fmt: skip
                if failed.unsure:
                    break
                continue
            self._resting.pop(name, None)
            self._timed(name, "accepted", self._clock.monotonic() - began)
            return Taken(name, receipt.reference)
        raise Undelivered(
            "; ".join(each.why for each in failures),
            final=all(each.final for each in failures),
            unsure=any(each.unsure for each in failures),
            retry_after=min((each.retry_after for each in failures if not each.final), default=0.0),
        )

    async def close(self) -> None:
        """Close all of them."""
        for _, sender in self._senders:
            await sender.close()

    def _order(self) -> list[tuple[str, Sender]]:
        now = self._clock.monotonic()
        return sorted(self._senders, key=lambda one: self._resting.get(one[0], 0.0) > now)


def names(kinds: Sequence[str]) -> list[str]:
    """A name for each: the second `smtp` is `smtp-2`."""
    found: list[str] = []
    count: Counter[str] = Counter()
    for kind in kinds:
        count[kind] += 1
        found.append(kind if count[kind] == 1 else f"{kind}-{count[kind]}")
    return found
