"""Counts for all replicas together, on the shared store: one script for all that is asked in a turn of the loop.

- *Exact.* The script counts one request after the other by the store's clock, all limits of a request or none. How
  many replicas there are, and what their own clocks say, changes nothing.
- *Once a turn.* What is asked while a turn lasts goes out together when it is over; on a cluster one script for each
  slot. A request's limits are those of one rule, and these are in one slot (`places`).
- *Over is over.* A counter that has refused refuses until the moment the script named. Until then this replica says
  so itself: a flood costs the store nothing. Somebody who resets a limit tells all replicas (`forget`).
- *Away.* Where the store does not answer, each limit does what the policy says (`away`).

A limit that was edited starts anew: what it says is part of its counters' names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson

from gateway.core.clock import Clock
from gateway.core.decision import Quota
from gateway.core.eager import Answer
from gateway.core.errors import StoreAway
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import LimitSpec
from gateway.limits.adapt import scaled
from gateway.limits.away import Away
from gateway.limits.places import Place, place_of
from gateway.store.near import Near

_log = logging.getLogger(__name__)

Quotas = tuple[Quota, ...]
Share = Callable[[LimitSpec], float]
Run = Callable[[Sequence[bytes], Sequence[bytes]], Coroutine[Any, Any, list[int]]]
"""Runs `spend.lua`."""

REMEMBERED = 65_536
"""Counters that are known to be over."""
AT_MOST = 512
"""Counters of one script: a script keeps everybody else waiting while it runs."""
SOON = 1.0
"""Seconds after which a limit that adapts is asked again, whatever was said."""


class Asked:
    """One request's limits, on their way to the store."""

    __slots__ = ("answer", "facts", "identity", "place", "rule", "share")

    def __init__(
        self,
        place: Place,
        facts: Facts,
        identity: Identity | None,
        rule: str,
        share: Share | None,
        answer: Answer[Quotas],
    ) -> None:
        self.place = place
        self.facts = facts
        self.identity = identity
        self.rule = rule
        self.share = share
        self.answer = answer


class Batch:
    """What is asked together: counters and limits are named once, however many ask for them."""

    __slots__ = ("asked", "keys", "limits", "questions", "specs")

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.questions: list[list[int]] = []
        self.keys: dict[bytes, int] = {}
        self.limits: dict[tuple[int, int, int], int] = {}
        self.specs: list[tuple[object, ...]] = []

    def add(self, asked: Asked, named: list[tuple[LimitSpec, bytes, int, int]]) -> None:
        """One more request: its limits, their counters, and rate and burst as they are for it."""
        question: list[int] = []
        keys, limits = self.keys, self.limits
        for limit, key, rate, burst in named:
            spec = limits.get((id(limit), rate, burst))
            if spec is None:
                self.specs.append(spec_of(limit, rate, burst))
                spec = limits[id(limit), rate, burst] = len(self.specs)
            at = keys.get(key)
            if at is None:
                at = keys[key] = len(keys) + 1
            question += (spec, at)
        self.questions.append(question)
        self.asked.append(asked)


class Shared:
    """Limits counted by all replicas together."""

    def __init__(self, run: Run, clock: Clock, away: Away, *, prefix: str, clustered: bool) -> None:
        self._run = run
        self._now = clock.monotonic
        self._away = away
        self._prefix = prefix.encode()
        self._clustered = clustered
        self._places: dict[tuple[str, int], Place] = {}
        self._batches: dict[int, Batch] = {}
        self._over: Near[bytes, float] = Near(REMEMBERED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgettings = 0
        self.unasked = 0
        """Requests that were refused because their limit was known to be over."""

    def spend(
        self,
        limits: tuple[LimitSpec, ...],
        facts: Facts,
        identity: Identity | None,
        rule: str,
        share: Share | None = None,
    ) -> Quotas | Answer[Quotas]:
        """Count one request against all `limits` of `rule`, or none; the quotas, or an answer that will be them."""
        place = self._places.get((rule, id(limits)))
        if place is None:
            place = self._place(limits, rule)
        named = []
        over = self._over
        for limit, prefix, counted_by in place.limits:
            key = prefix + counted_by(facts, identity).encode("utf-8", "surrogatepass")
            if key in over and (left := over[key] - self._now()) > 0.0:
                self.unasked += 1
                return (Quota(limit, False, 0, left, left),)
            rate, burst = limit.rate, limit.burst
            if share is not None and limit.adapt is not None:
                rate, burst = scaled(limit, share(limit))
            named.append((limit, key, rate, burst))
        batch = self._batches.get(place.slot)
        if batch is None or len(batch.keys) >= AT_MOST:
            batch = self._begin(place.slot)
        answer: Answer[Quotas] = Answer()
        batch.add(Asked(place, facts, identity, rule, share, answer), named)
        return answer

    def forget(self) -> None:
        """Believe of no counter that it is over: some may have been reset."""
        self._over.clear()
        self._forgettings += 1

    async def close(self) -> None:
        """Wait for what was asked."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _place(self, limits: tuple[LimitSpec, ...], rule: str) -> Place:
        if len(self._places) >= 4096:
            self._places.clear()
        place = self._places[rule, id(limits)] = place_of(limits, rule, self._prefix, self._clustered)
        return place

    def _begin(self, slot: int) -> Batch:
        self._send(slot)  # a full one, where there is one
        asyncio.get_running_loop().call_soon(self._send, slot)
        batch = self._batches[slot] = Batch()
        return batch

    def _send(self, slot: int) -> None:
        batch = self._batches.pop(slot, None)
        if batch is not None:
            task = asyncio.create_task(self._ask(batch), name="counting")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, batch: Batch) -> None:
        question = orjson.dumps({"l": batch.specs, "q": batch.questions})
        keys = list(batch.keys)
        before = self._forgettings
        try:
            numbers = await self._run(keys, (question,))
            at = 0
            for asked, places in zip(batch.asked, batch.questions, strict=True):
                quotas, at = self._quotas(asked, places, keys, numbers, at, before)
                if not asked.answer.done():
                    asked.answer.set_result(quotas)
        except StoreAway:
            for asked in batch.asked:
                if not asked.answer.done():
                    asked.answer.set_result(
                        self._away.spend(asked.place.held, asked.facts, asked.identity, asked.rule, asked.share)
                    )
        except Exception as error:
            _log.exception("counting failed")
            for asked in batch.asked:
                if not asked.answer.done():
                    asked.answer.set_exception(StoreAway(f"shared: {type(error).__name__} while counting"))
        finally:  # also where this task is ended: who waits for an answer would wait for ever
            for asked in batch.asked:
                if not asked.answer.done():
                    asked.answer.set_exception(StoreAway("shared: nobody counts any more"))

    def _quotas(
        self, asked: Asked, places: list[int], keys: list[bytes], numbers: list[int], at: int, before: int
    ) -> tuple[Quotas, int]:
        quotas = []
        number = 1
        for limit in asked.place.held:
            said, remaining, reset, retry = numbers[at : at + 4]
            at += 4
            if said == 2 and not limit.shadow and before == self._forgettings:  # it may be from before a reset
                wait = min(retry / 1e6, SOON) if limit.adapt is not None else retry / 1e6
                self._over.keep(keys[places[number] - 1], self._now() + wait)
            number += 2
            quotas.append(
                Quota(limit, said == 1, remaining, reset / 1e6, retry / 1e6, "shadow" if limit.shadow else "")
            )
        return tuple(quotas), at


def spec_of(limit: LimitSpec, rate: int, burst: int) -> tuple[object, ...]:
    """A limit as `spend.lua` reads it."""
    whole = int((rate, burst) == (limit.rate, limit.burst))
    spec = (limit.algorithm, rate, round(limit.window * 1e6), burst, int(limit.shadow), whole)
    if (backoff := limit.backoff) is None:
        return spec
    return (*spec, backoff.after, *[round(each * 1e6) for each in (backoff.wait, backoff.longest, backoff.forget)])
