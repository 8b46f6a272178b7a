"""Hooks that no turn waits for: so many at once, and what comes on top is dropped."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from app import telemetry

MOST_AT_ONCE: Final = 64  # each lasts 5 s at most

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Closed(Exception):
    """Ends the task group, and with it what still runs there."""


class Background:
    """Starts work in a task group; the group's owner cancels it at the end.

    Args:
        tasks: outlives the turns.
        most_at_once: pieces of work that run side by side; a further one is not begun.
    """

    def __init__(self, tasks: asyncio.TaskGroup, *, most_at_once: int = MOST_AT_ONCE) -> None:
        self._tasks = tasks
        self._most_at_once = most_at_once
        self._running = 0

    def start(self, hook_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin a piece of work, or drop it with a log line where too much is under way."""
        if self._running >= self._most_at_once:
            work.close()
            telemetry.HOOKS_DROPPED.inc()
            log.warning("background_hook_dropped", hook_id=hook_id)
            return
        self._running += 1
        self._tasks.create_task(self._run(hook_id, work))

    async def _run(self, hook_id: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("background_hook_crashed", hook_id=hook_id)  # the task group, and the server in it, go on
        finally:
            self._running -= 1


@asynccontextmanager
async def opened() -> AsyncIterator[Background]:
    """Run hooks beside the block; those that are still asked at its end are cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield Background(tasks)
            _close()
    except* _Closed:
        pass


def _close() -> None:
    raise _Closed
