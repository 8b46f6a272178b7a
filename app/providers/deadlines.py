"""How long a model call may take, and a watch that holds each of its waits to that.

A read timeout alone never fires against a vendor that sends a byte now and then; the watch knows the end of the whole
call too. It costs one timer per call, not one per read: the timer looks again when it comes too early.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The limits of one model call, in seconds.

    Args:
        connect_seconds: until the connection stands, TLS included.
        first_byte_seconds: until the response's headers are there, connecting included.
        idle_seconds: between two reads of the body. Pings are bytes too, so it is `total_seconds` that bounds them.
        total_seconds: for the whole call, whatever the vendor sends.
    """

    connect_seconds: float = 10.0
    first_byte_seconds: float = 60.0
    idle_seconds: float = 60.0
    total_seconds: float = 600.0


class Watch:
    """Bounds the waits of one call, which are made one after the other; leaving its block lets the timer go."""

    def __init__(self, total_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + total_seconds
        self._due_at = self._ends_at
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._has_fired = False

    @property
    def is_over(self) -> bool:
        """Whether the time for the whole call is up."""
        return self._loop.time() >= self._ends_at

    async def wait(self, awaitable: Awaitable[T], seconds: float) -> T:
        """Wait so long at most, and never past the end of the whole call.

        Raises:
            TimeoutError: its time, or the whole call's, is up; the awaitable was cancelled or its outcome is dropped.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        self._due_at = min(self._loop.time() + seconds, self._ends_at)
        if self._timer is None or self._timer_at > self._due_at:
            self._arm()
        self._waiting = task
        try:
            outcome = await awaitable
        except asyncio.CancelledError:
            if self._has_fired and task.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
            self._has_fired = False
        if self.is_over:
            raise TimeoutError  # a stream that never makes its reader wait is cut off here
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._disarm()
        self._timer_at = self._due_at
        self._timer = self._loop.call_at(self._due_at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait arms it again
        if self._loop.time() < self._due_at:
            self._arm()
        elif not self._has_fired:
            self._has_fired = True
            self._waiting.cancel()
