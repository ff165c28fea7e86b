"""Step a coroutine at once, and only make a task of it when it has to wait.

Python 3.12 has eager tasks; this does the same on 3.11, and without any task for a coroutine that never waits. A
coroutine run this way says `await aside()` before its first real wait: what needs a current task (timeouts, database
drivers) then finds one, and the half-run coroutine can simply be handed to the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any


@coroutine
def aside() -> Generator[None, None, None]:
    """From here on, in a task: lets the loop turn once."""
    yield


def run_eagerly(work: Coroutine[Any, Any, None], spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
    """Run `work` to its first `aside()`; `spawn` gets it there, if it comes there.

    Whatever `work` raises before is raised here. RuntimeError where it waits for something without stepping aside.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return
    if waits_for is not None:
        work.close()
        raise RuntimeError("waits without stepping aside")
    spawn(work)
