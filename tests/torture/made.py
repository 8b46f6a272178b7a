"""A small run that never was, whole and without a fault: what tests of the checker break in one place each.

A turn with two calls, the second one's result from the caller, is taken over in its last step; a queued turn is interrupted;
the probe takes one more.
"""

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tests.torture import collect, records
from tests.torture.frames import checksum
from tests.torture.plan import Plan
from tests.torture.records import Asked, Book, Effect, Fault, Operation, Shown

SESSION, FIRST, SECOND, LAST = "s1", "t1", "t2", "t3"
BEGAN, WALL = 1_000.0, 1_700_000_000.0
SECONDS_AN_EVENT = 0.1
PLANS = {
    FIRST: Plan("p1", tokens=2, calls=[["effect", "ask"]]),
    SECOND: Plan("p2", tokens=50),
    LAST: Plan("probe0", tokens=1),
}

Json = dict[str, Any]


def usage(of_input: int, of_output: int) -> Json:
    """Write a usage as the wire does."""
    return {"input_tokens": of_input, "output_tokens": of_output, "cache_creation_tokens": 0, "cache_read_tokens": 0}


def _first() -> list[Json]:
    calls = [("call_1_0", "effect"), ("call_1_1", "ask")]
    return [
        {"type": "turn_started", "number": 1, "prompt": PLANS[FIRST].prompt, "attempt": 1},
        {"type": "step_started", "step": 1},
        *({"type": "tool_call_requested", "step": 1, "id": call, "name": name, "args": {"key": f"p1-0-{place}"}}
          for place, (call, name) in enumerate(calls)),
        {"type": "step_completed", "step": 1, "stop_reason": "tool_use", "usage": usage(10, 2)},
        {"type": "tool_execution_started", "id": "call_1_0", "name": "effect"},
        {"type": "tool_execution_completed", "id": "call_1_0", "name": "effect", "result": "done p1-0-0", "is_error": False},
        {"type": "tool_call_pending", "id": "call_1_1", "name": "ask", "args": {}, "kind": "external"},
        {"type": "tool_execution_completed", "id": "call_1_1", "name": "ask", "result": "yes", "is_error": False},
        *({"type": "tool_result_received", "id": call, "name": name, "is_error": False} for call, name in calls),
        {"type": "step_started", "step": 2},
        {"type": "text_delta", "step": 2, "delta": "2.0 "},
        {"type": "turn_resumed", "attempt": 2, "instance_id": "n2"},
        {"type": "step_discarded", "step": 2, "reason": "resumed"},
        {"type": "step_started", "step": 2},
        {"type": "text_delta", "step": 2, "delta": "3.0 3.1 "},
        {"type": "text_complete", "step": 2, "content": "3.0 3.1 "},
        {"type": "step_completed", "step": 2, "stop_reason": "end_turn", "usage": usage(20, 2)},
        {"type": "turn_completed", "text": "3.0 3.1 ", "usage": usage(30, 4), "steps": 2, "tool_calls": 2},
    ]  # fmt: skip


def _second() -> list[Json]:
    return [
        {"type": "turn_started", "number": 2, "prompt": PLANS[SECOND].prompt, "attempt": 1},
        {"type": "step_started", "step": 1},
        {"type": "text_delta", "step": 1, "delta": "4.0 4.1 "},
        {"type": "turn_interrupted", "reason": "user", "text": "4.0 4.1 ", "usage": usage(0, 0)},
    ]


def _last() -> list[Json]:
    return [
        {"type": "turn_started", "number": 3, "prompt": PLANS[LAST].prompt, "attempt": 1},
        {"type": "step_started", "step": 1},
        {"type": "text_delta", "step": 1, "delta": "5.0 "},
        {"type": "text_complete", "step": 1, "content": "5.0 "},
        {"type": "step_completed", "step": 1, "stop_reason": "end_turn", "usage": usage(5, 1)},
        {"type": "turn_completed", "text": "5.0 ", "usage": usage(5, 1), "steps": 1, "tool_calls": 0},
    ]


def _log() -> list[Json]:
    queued = {"type": "turn_queued", "turn_id": SECOND, "number": 2, "prompt": PLANS[SECOND].prompt}
    first = [{"turn_id": FIRST, **event} for event in _first()]
    log = [{"type": "session_created"}, *first[:8], queued, *first[8:]]
    log += [{"turn_id": SECOND, **event} for event in _second()] + [{"turn_id": LAST, **event} for event in _last()]
    return [*log, {"type": "session_updated", "title": "New"}, {"type": "session_archived", "archived_at": "then"}]


def _messages() -> list[Json]:
    text = [{"type": "text", "text": "words"}]
    uses: list[Json] = [{"type": "tool_use", "id": call, "name": "effect", "args": {}} for call in ("call_1_0", "call_1_1")]
    results = [{"type": "tool_result", "tool_use_id": use["id"], "content": "", "is_error": False} for use in uses]
    return [
        {"role": "user", "turn_id": FIRST, "content": text},
        {"role": "assistant", "turn_id": FIRST, "content": uses},
        {"role": "tool", "turn_id": FIRST, "content": results},
        {"role": "assistant", "turn_id": FIRST, "content": [{"type": "text", "text": "3.0 3.1 "}]},
        {"role": "user", "turn_id": SECOND, "content": text},
        {"role": "assistant", "turn_id": SECOND, "content": [{"type": "text", "text": "4.0 4.1 "}]},
        {"role": "user", "turn_id": LAST, "content": text},
        {"role": "assistant", "turn_id": LAST, "content": [{"type": "text", "text": "5.0 "}]},
    ]


def operation(name: str, **given: Any) -> Operation:
    """Make one that was granted."""
    whole: Json = {"client": "c0", "node": "n2", "began": BEGAN, "ended": BEGAN + 0.5, "outcome": "ok", "status": 200} | given
    return Operation(name=name, session_id=whole.pop("session_id", SESSION), **whole)


def _operations() -> list[Operation]:
    start: Json = {"on_busy": "queue", "way": "plain"}
    done = {"turn_status": "completed", "last_seq": 23}
    return [
        operation("create", key="k0"),
        operation("start_turn", key="k1", plan="p1", turn_id=FIRST, facts=start | done),
        operation("start_turn", key="k2", plan="p2", outcome="unknown", status=None),
        operation("start_turn", key="k2", plan="p2", turn_id=SECOND, facts=start | {"turn_status": "queued"}),
        operation("tool_results", key="k3", turn_id=FIRST, facts={"results": {"call_1_1": "yes"}}),
        operation("interrupt", key="k4", turn_id=SECOND, facts={"mode": "now", "turn_status": "interrupted"}),
        operation("patch", facts={"title": "New"}),
        operation("archive", key="k5", facts={"archived_at": "then"}),
        operation(
            "start_turn", client="probe", key="probe0", plan="probe0", turn_id=LAST, facts=start | {"turn_status": "completed"}
        ),
    ]


def _asked() -> list[Asked]:
    def one(number: int, plan_id: str, step: int, reported: tuple[int, int] | None) -> Asked:
        told = dict(zip(("prompt_tokens", "completion_tokens"), reported, strict=True)) if reported else None
        return Asked(number, plan_id, step, "whole", told, None, BEGAN)

    return [
        one(1, "p1", 0, (10, 2)),
        one(2, "p1", 1, None),
        one(3, "p1", 1, (20, 2)),
        one(4, "p2", 0, None),
        one(5, "probe0", 0, (5, 1)),
    ]


@dataclass
class Made:
    """The run; change what is to be wrong, then `write`.

    Args:
        log: events without envelopes; those of turns have a `turn_id`.
        numbers: of events where they do not simply count.
        gaps: seconds of silence before an event of this place.
    """

    log: list[Json] = field(default_factory=_log)
    numbers: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, float] = field(default_factory=dict)
    messages: list[Json] = field(default_factory=_messages)
    operations: list[Operation] = field(default_factory=_operations)
    asked: list[Asked] = field(default_factory=_asked)
    effects: list[Effect] = field(default_factory=lambda: [Effect("p1-0-0", "effect", "call_1_0", BEGAN)])
    faults: list[Fault] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    session: Json = field(default_factory=dict)
    used: Json = field(default_factory=lambda: usage(35, 5))
    keys: dict[str, str] = field(default_factory=lambda: {"k0": SESSION})
    statuses: dict[str, str] = field(default_factory=lambda: {FIRST: "completed", SECOND: "interrupted", LAST: "completed"})
    usages: dict[str, Json] = field(default_factory=lambda: {FIRST: usage(30, 4), SECOND: usage(0, 0), LAST: usage(5, 1)})
    prompts: dict[str, str] = field(default_factory=lambda: {turn: plan.prompt for turn, plan in PLANS.items()})

    def place(self, kind: str, nth: int = 0) -> int:
        """Return where an event of this type is."""
        return [place for place, event in enumerate(self.log) if event["type"] == kind][nth]

    def frames(self) -> list[tuple[int, int]]:
        """Return what a reader of the whole log sees."""
        return [
            (number, checksum(f'{{"seq":{number},{stored}'.encode())) for number, _, _, stored in self._events()
        ]  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write the folder of such a run."""
        events = self._events()
        self._write_table(folder, "sessions", [self._session_row(len(events))])
        self._write_table(folder, "turns", [self._turn_row(number, turn) for number, turn in enumerate(self.statuses, 1)])
        rows = [
            {"session_id": SESSION, "seq": seq, "turn_id": turn, "type": kind, "payload": stored}
            for seq, turn, kind, stored in events
        ]
        self._write_table(folder, "events", rows)
        told = [
            {
                "session_id": SESSION,
                "ordinal": ordinal,
                "is_summary": "f",
                **one,
                "content": orjson.dumps(one["content"]).decode(),
            }
            for ordinal, one in enumerate(self.messages, 1)
        ]
        self._write_table(folder, "messages", told)
        kept = [
            {"path": "/v1/sessions", "key": key, "session_id": session, "turn_id": ""} for key, session in self.keys.items()
        ]
        self._write_table(folder, "idempotency_keys", kept)
        self._write_table(folder, "usage", [self.used])
        (folder / collect.CLOCKS).write_bytes(orjson.dumps({"wall": WALL, "monotonic": BEGAN + 20}))
        self._write_records(folder)

    def _write_records(self, folder: Path) -> None:
        books: dict[str, list[records.Kept]] = {
            "operations-c0": [*self.operations],
            "asked-0": [*self.asked],
            "effects": [*self.effects],
            "faults": [*self.faults],
            "shown-w0": [*self.shown] or [Shown("w0", SESSION, "n1", 1, 0, self.frames(), "ended", BEGAN)],
        }
        for name, kept in books.items():
            with Book(folder / f"{name}.jsonl") as book:
                for record in kept:
                    book.write(record)

    def _events(self) -> list[tuple[int, str, str, str]]:
        found, moment, started = [], WALL - 20, 0
        for place, event in enumerate(self.log):
            moment += self.gaps.get(place, SECONDS_AN_EVENT)
            if event["type"] == "step_started":
                started = place + 1
            at = datetime.fromtimestamp(moment, UTC).isoformat()
            more = {"from_seq": started} if event["type"] == "step_discarded" else {}
            stored = orjson.dumps({"session_id": SESSION, "at": at, **more, **event}).decode()[1:]
            found.append((self.numbers.get(place, place + 1), event.get("turn_id", ""), event["type"], stored))
        return found

    def _session_row(self, events: int) -> Json:
        counts = {"last_seq": events, "message_count": len(self.messages), "turn_count": len(self.statuses), "queued_turns": 0}
        return {"id": SESSION, "status": "idle", "current_turn_id": "", **counts, **usage(35, 5), **self.session}

    def _turn_row(self, number: int, turn: str) -> Json:
        own = [place for place, event in enumerate(self.log, 1) if event.get("turn_id") == turn] or [1]
        return {
            "session_id": SESSION, "id": turn, "number": number, "status": self.statuses[turn], "attempt": 1,
            "prompt": orjson.dumps(self.prompts[turn]).decode(), "first_seq": own[0], "last_seq": own[-1], "allowed": "",
            **self.usages[turn],
        }  # fmt: skip

    def _write_table(self, folder: Path, name: str, rows: list[Json]) -> None:
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["session_id"])
            writer.writeheader()
            writer.writerows(rows)
