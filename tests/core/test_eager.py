"""Coroutines that are stepped before they become tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.core.eager import Answer, aside, run_eagerly


class Spawner:
    """Makes tasks, and remembers that it did."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))


async def test_what_never_waits_runs_at_once() -> None:
    spawn, done = Spawner(), []

    async def work() -> None:
        done.append(True)

    run_eagerly(work(), spawn)
    assert done == [True]
    assert spawn.tasks == []


async def test_an_answer_is_waited_for_without_a_task() -> None:
    spawn, seen = Spawner(), []
    answer: Answer[int] = Answer()

    async def work() -> None:
        seen.append(await answer)
        seen.append(asyncio.current_task())

    run_eagerly(work(), spawn)
    assert seen == []
    answer.set_result(7)
    await asyncio.sleep(0)
    assert seen == [7, None]
    assert spawn.tasks == []


async def test_an_answer_may_be_an_error() -> None:
    seen = []
    answer: Answer[int] = Answer()

    async def work() -> None:
        try:
            await answer
        except ValueError as error:
            seen.append(str(error))

    run_eagerly(work(), Spawner())
    answer.set_exception(ValueError("away"))
    await asyncio.sleep(0)
    assert seen == ["away"]


async def test_after_an_answer_it_may_still_step_aside_and_be_a_task() -> None:
    spawn, seen = Spawner(), []
    first: Answer[int] = Answer()
    second: Answer[int] = Answer()

    async def work() -> None:
        seen.append(await first)
        await aside()
        seen.append(asyncio.current_task())
        seen.append(await second)

    run_eagerly(work(), spawn)
    first.set_result(1)
    await asyncio.sleep(0)
    (task,) = spawn.tasks
    await asyncio.sleep(0)
    assert seen == [1, task]
    second.set_result(2)
    await task
    assert seen == [1, task, 2]


async def test_waiting_for_anything_else_is_told_to_who_waits() -> None:
    seen = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except RuntimeError as error:
            seen.append(str(error))

    run_eagerly(work(), Spawner())
    assert seen == ["waits without stepping aside"]


async def test_who_does_not_listen_is_ended() -> None:
    async def work() -> None:
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except RuntimeError:
                continue

    with pytest.raises(RuntimeError, match="again"):
        run_eagerly(work(), Spawner())
