"""One timer for a thousand paced streams: callbacks wait in slots of a millisecond."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable

SLOTS_PER_SECOND = 1000


class Wheel:
    """Calls back at given times with one timer of the loop, at most a slot late."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: defaultdict[int, list[Callable[[], None]]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def at(self, moment: float, callback: Callable[[], None]) -> None:
        """Call back at this time of the loop's clock."""
        slot = math.ceil(moment * SLOTS_PER_SECOND)
        self._slots[slot].append(callback)
        if self._timer is None or slot < self._armed_for:
            self._arm(slot)

    def _arm(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = slot
        self._timer = self._loop.call_at(slot / SLOTS_PER_SECOND, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = math.floor(self._loop.time() * SLOTS_PER_SECOND)
        for slot in sorted(slot for slot in self._slots if slot <= now):
            for callback in self._slots.pop(slot):
                callback()
        if self._slots:
            self._arm(min(self._slots))
