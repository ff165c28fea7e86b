"""Step a coroutine at once, and only make a task of it when it has to wait.

Python 3.12 has eager tasks; this does the same on 3.11, and without any task for a coroutine that never waits, or
waits for nothing but an `Answer`. A coroutine run this way says `await aside()` before its first real wait: what needs
a current task (timeouts, database drivers) then finds one, and the half-run coroutine can simply be handed to the loop.

An `Answer` is something on its way already: others asked for it together with what they want. Waiting for it needs no
task of one's own; the coroutine is stepped on when it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")
Work = Coroutine[Any, Any, None]
Spawn = Callable[[Work], object]


class Answer(asyncio.Future[T]):
    """A future that may be awaited without a task."""


@coroutine
def aside() -> Generator[None, None, None]:
    """From here on, in a task: lets the loop turn once."""
    yield


def run_eagerly(work: Work, spawn: Spawn) -> None:
    """Run `work` to its first `aside()`, over any `Answer`; `spawn` gets it there, if it comes there.

    Whatever `work` raises before its first wait is raised here. Where it waits for something else, a RuntimeError is
    raised in `work`.
    """
    _go_on(work, spawn, None)


def _go_on(work: Work, spawn: Spawn, _: Answer[Any] | None) -> None:
    try:
        waits_for = work.send(None)
        if waits_for is not None and type(waits_for) is not Answer:
            waits_for = work.throw(RuntimeError("waits without stepping aside"))
            work.close()
            raise RuntimeError("waits without stepping aside, again")
    except StopIteration:
        return
    if waits_for is None:
        spawn(work)
    else:
        waits_for._asyncio_future_blocking = False  # as a task does: taken note of
        waits_for.add_done_callback(partial(_go_on, work, spawn))
