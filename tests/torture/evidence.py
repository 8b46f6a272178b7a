"""What a run has left in its folder, read for the checker: records, and the database as `collect` copied it.

Times are turned into those of the machine's monotonic clock; one of a node whose clock was wrong is no time at all.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from tests.torture import collect, plan, records
from tests.torture.collect import USAGE
from tests.torture.plan import Plan
from tests.torture.records import Asked, Effect, Fault, Operation

Row: TypeAlias = dict[str, str]
Usage: TypeAlias = tuple[int, int, int, int]

NO_USAGE: Usage = (0, 0, 0, 0)
STORE_ERROR = 503  # what was asked for may have happened all the same
MOST_FIELD_BYTES = 64 * 1024 * 1024
BEYOND_SECONDS = 600.0  # before and after the run no clock that is right can stand
CIRCUMSTANCES = "run.json"


def usage_of(source: Mapping[str, Any]) -> Usage:
    """Read the four counts off a row or an event."""
    return (int(source[USAGE[0]]), int(source[USAGE[1]]), int(source[USAGE[2]]), int(source[USAGE[3]]))


def added(one: Usage, other: Usage) -> Usage:
    """Add usages."""
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def subtracted(one: Usage, other: Usage) -> Usage:
    """Take usages away."""
    return (one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3])


@dataclass(slots=True)
class Event:
    """A stored event.

    Args:
        stored: its text, from `session_id` on.
        fields: the same, parsed.
        at: when it was written; None where that clock was wrong.
    """

    seq: int
    turn_id: str
    type: str
    stored: str
    fields: Mapping[str, Any]
    at: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn's row; one that a fork or an import has copied has no events of its own."""

    id: str
    number: int
    status: str
    prompt: str
    attempt: int
    usage: Usage
    first_seq: int
    last_seq: int | None
    allowed: frozenset[str]

    @classmethod
    def of(cls, row: Row) -> "Turn":
        """Read a row."""
        last_seq = int(row["last_seq"]) if row["last_seq"] else None
        allowed = frozenset(orjson.loads(row["allowed"] or "[]"))
        return cls(
            row["id"], int(row["number"]), row["status"], row["prompt"], int(row["attempt"]), usage_of(row),
            int(row["first_seq"]), last_seq, allowed,
        )  # fmt: skip

    @property
    def is_copied(self) -> bool:
        """Whether it happened elsewhere."""
        return self.last_seq is not None and self.last_seq < self.first_seq

    @property
    def plan(self) -> Plan | None:
        """What its prompt asks for."""
        return plan_in(orjson.loads(self.prompt))


def plan_in(prompt: Any) -> Plan | None:
    """Find the plan of a prompt, a string or blocks."""
    return plan.last_in(prompt if isinstance(prompt, str) else " ".join(block.get("text", "") for block in prompt))


@dataclass
class Evidence:
    """All of it; tables of events and messages are read through, never held.

    Args:
        asked: the provider's book, by number.
        lease_seconds, runners: as `run.json` says; else 3 s, and all nodes that were asked or hit.
        wall_offset: what the wall clock is ahead of the monotonic one.
    """

    folder: Path
    sessions: Mapping[str, Row]
    turns: Mapping[str, Sequence[Turn]]
    operations: Sequence[Operation]
    faults: Sequence[Fault]
    asked: Mapping[int, Asked]
    effects: Sequence[Effect]
    lease_seconds: float
    runners: frozenset[str]
    collected_at: float
    wall_offset: float

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        """Read a folder."""
        csv.field_size_limit(MOST_FIELD_BYTES)
        operations = sorted(records.read(folder, "operations-*.jsonl", Operation), key=lambda one: one.ended)
        clocks = orjson.loads((folder / collect.CLOCKS).read_bytes())
        path = folder / CIRCUMSTANCES
        told = orjson.loads(path.read_bytes()) if path.exists() else {}
        faults = list(records.read(folder, "faults*.jsonl", Fault))
        hit = {fault.target for fault in faults if fault.kind.startswith("node_")}
        return cls(
            folder,
            {row["id"]: row for row in _table(folder, "sessions")},
            {key: [Turn.of(row) for row in rows] for key, rows in _by_session(folder, "turns")},
            operations,
            faults,
            {one.number: one for one in records.read(folder, "asked-*.jsonl", Asked)},
            list(records.read(folder, "effects*.jsonl", Effect)),
            told.get("lease_seconds", 3.0),
            frozenset(told.get("runners", hit | {one.node for one in operations})),
            clocks["monotonic"],
            clocks["wall"] - clocks["monotonic"],
        )

    @cached_property
    def erased(self) -> frozenset[str]:
        """Sessions whose end was asked for, and perhaps came."""
        asked = [one for one in self.operations if one.name == "delete"]
        return frozenset(one.session_id or "" for one in asked if one.outcome != "fail" or one.status == STORE_ERROR)

    @cached_property
    def bites(self) -> Sequence[Fault]:
        """The faults that are proven: only they excuse anything."""
        return [fault for fault in self.faults if fault.has_bitten]

    def events(self) -> Iterator[tuple[str, Iterator[Event]]]:
        """Yield each session's events in order."""
        for session_id, rows in _by_session(self.folder, "events"):
            yield session_id, map(self._event, rows)

    def messages(self) -> Iterator[tuple[str, Iterator[Row]]]:
        """Yield each session's messages in order."""
        return _by_session(self.folder, "messages")

    @cached_property
    def used(self) -> Usage:
        """What all sessions have used, as it is told by day."""
        [row] = _table(self.folder, "usage")
        return usage_of(row)

    def kept_keys(self) -> Iterator[Row]:
        """Yield the idempotency keys."""
        return _table(self.folder, "idempotency_keys")

    def monotonic(self, at: str) -> float | None:
        """Turn a wall time into the machine's monotonic one; None for one that cannot be of this run."""
        moment = datetime.fromisoformat(at).timestamp() - self.wall_offset
        return moment if self._span[0] <= moment <= self._span[1] else None

    @cached_property
    def _span(self) -> tuple[float, float]:
        began = min((one.began for one in self.operations), default=0.0)
        return began - BEYOND_SECONDS, max((one.ended for one in self.operations), default=0.0) + BEYOND_SECONDS

    def _event(self, row: Row) -> Event:
        fields = orjson.loads("{" + row["payload"])
        return Event(int(row["seq"]), row["turn_id"], row["type"], row["payload"], fields, self.monotonic(fields["at"]))


def _table(folder: Path, name: str) -> Iterator[Row]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _by_session(folder: Path, name: str) -> Iterator[tuple[str, Iterator[Row]]]:
    return groupby(_table(folder, name), key=lambda row: row["session_id"])
