"""What the double was asked: one record per request, and a way to wait for the next thing that happens to one."""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Record:
    """One request to the completions endpoint. Times are of the machine's monotonic clock, in seconds.

    Args:
        number: from 1 since the last reset.
        connection: the client's port; requests with the same one came over one connection.
        rejected: why the transcript is invalid; None where it was taken.
        usage: what was reported to the client.
        events: how many events were sent.
        closed_by_client_at: when the client went away before the answer was complete.
    """

    number: int
    received_at: float
    connection: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    rejected: str | None = None
    usage: Any = None
    events: int = 0
    first_byte_at: float | None = None
    ended_at: float | None = None
    closed_by_client_at: float | None = None

    def reached(self, stage: str) -> bool:
        """Whether it is `received`, `started` (first byte sent) or `ended`, by whom ever."""
        moments = {"received": self.received_at, "started": self.first_byte_at}
        return moments.get(stage, self.ended_at or self.closed_by_client_at) is not None


@dataclass(slots=True)
class Counts:
    """Of all requests since the last reset, also of those whose records are gone."""

    received: int = 0
    rejected: int = 0
    completed: int = 0
    closed_by_client: int = 0


class Ledger:
    """The last `kept` records and the counts of all."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._waiters: list[tuple[Callable[[], Record | None], asyncio.Future[Record]]] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything; numbers start at 1 again."""
        self.records: deque[Record] = deque(maxlen=self._kept)
        self.counts = Counts()

    def open(self, headers: dict[str, str], connection: int, now: float) -> Record:
        """Begin a record."""
        self.counts.received += 1
        record = Record(self.counts.received, now, connection, headers)
        self.records.append(record)
        return record

    def changed(self) -> None:
        """Tell those who wait that a record has moved on."""
        for found, waiter in self._waiters:
            if (record := found()) is not None and not waiter.done():
                waiter.set_result(record)
        self._waiters = [entry for entry in self._waiters if not entry[1].done()]

    async def wait(self, number: int, stage: str) -> Record:
        """Return the record with this number once it has reached the stage."""

        def found() -> Record | None:
            return next((r for r in self.records if r.number == number and r.reached(stage)), None)

        waiter: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiters.append((found, waiter))
        self.changed()
        return await waiter

    def dump(self) -> dict[str, Any]:
        """Write everything as JSON values."""
        return {
            "requests": [dataclasses.asdict(record) for record in self.records],
            "counts": dataclasses.asdict(self.counts),
        }
