"""Work that no turn waits for."""

import asyncio

import pytest

from app import telemetry
from app.hooks.background import Background

pytestmark = pytest.mark.anyio


async def test_work_above_the_bound_is_dropped_and_counted_and_there_is_room_again_later() -> None:
    done: list[str] = []
    go_on, all_done = asyncio.Event(), asyncio.Event()
    dropped = telemetry.HOOKS_DROPPED._value.get()

    async def work(name: str) -> None:
        await go_on.wait()
        done.append(name)
        if name in {"b", "d"}:
            all_done.set()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        background = Background(tasks, most_at_once=2)
        for name in ("a", "b", "c"):
            background.start(name, work(name))
        go_on.set()
        await all_done.wait()
        background.start("d", work("d"))

    assert done == ["a", "b", "d"]
    assert telemetry.HOOKS_DROPPED._value.get() == dropped + 1


async def test_work_that_crashes_leaves_the_rest_alone() -> None:
    done: list[str] = []

    async def crash() -> None:
        raise RuntimeError("a mistake")

    async def work() -> None:
        done.append("work")

    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        background.start("crash", crash())
        background.start("work", work())

    assert done == ["work"]
