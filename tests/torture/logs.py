"""Judges of one session's log, event by event: its numbers, the lives of its turns, and what the other judges ask it for.

gap_free       numbers run from 1 without a hole up to what the session's row says
one_live_turn  from `turn_started` to a terminal event there is one turn, and no other
one_terminal   each turn ends once, as its row says, and nothing of it comes afterwards
queue_order    turns that were queued begin in the order in which they were queued, and only `interrupt` passes them by
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.api.shapes import TERMINAL
from tests.torture.evidence import NO_USAGE, Event, Row, Turn, Usage, added, plan_in, usage_of
from tests.torture.frames import checksum
from tests.torture.plan import Plan
from tests.torture.verdict import Verdict

OF_NO_LIFE = frozenset({"turn_queued", "turn_cancelled"})


@dataclass
class Log:
    """One session's log as far as other judges ask for it.

    Args:
        sums: checksum of each event as it is sent, from number 1.
        ends: type of each turn's terminal event, by turn.
        told_usage: of each turn's terminal event.
        plans: turns in which a plan began or was queued, or steered, by the plan's id.
        started: of those, the plans that a `turn_started` bears, by turn.
        usage: of each turn's steps and summaries, those that failed too; under the empty id of summaries outside turns.
        calls: key of each call that was asked for, by the call's id.
        results: content of each call that was executed, by its id.
        errors: ids of calls whose execution failed.
        said: checksums of the texts that a turn's steps have left, by turn.
        words: titles and times that were set.
    """

    session_id: str
    sums: "array[int]" = field(default_factory=lambda: array("I"))
    ends: dict[str, str] = field(default_factory=dict)
    told_usage: dict[str, Usage] = field(default_factory=dict)
    plans: dict[str, set[str]] = field(default_factory=dict)
    steered: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Usage] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)
    said: Mapping[str, Sequence[int]] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    types: Counter[str] = field(default_factory=Counter)

    def take(self, event: Event, plans: dict[str, Plan]) -> str | None:
        """Gather what one event says; a plan that it bears is put into `plans`, and its id returned."""
        self.types[event.type] += 1
        self.sums.append(checksum(f'{{"seq":{event.seq},{event.stored}'.encode()))
        fields = event.fields
        match event.type:
            case "step_completed" | "compaction_completed" | "compaction_failed":
                self.usage[event.turn_id] = added(self.usage.get(event.turn_id, NO_USAGE), usage_of(fields["usage"]))
            case "turn_queued" | "turn_started" | "turn_steered":
                return self._take_prompt(event, plan_in(fields["prompt"]), plans)
            case "session_updated" | "session_archived":
                self.words.update(str(value) for name, value in fields.items() if name in {"title", "archived_at"})
            case "tool_call_requested" | "tool_execution_completed":
                self._take_call(event)
            case kind if kind in TERMINAL:
                self.ends.setdefault(event.turn_id, kind)
                if "usage" in fields:
                    self.told_usage[event.turn_id] = usage_of(fields["usage"])
            case _:
                pass
        return None

    def _take_prompt(self, event: Event, found: Plan | None, plans: dict[str, Plan]) -> str | None:
        if found is None:
            return None
        plans[found.id] = found
        self.plans.setdefault(found.id, set()).add(event.turn_id)
        if event.type == "turn_steered":
            self.steered[found.id] += 1
        return found.id

    def _take_call(self, event: Event) -> None:
        fields = event.fields
        if event.type == "tool_call_requested":
            self.calls[fields["id"]] = fields["args"]["key"]
            return
        self.results[fields["id"]] = fields["result"]
        if fields["is_error"]:
            self.errors.add(fields["id"])


class Numbers:
    """gap_free."""

    def __init__(self, session_id: str, verdict: Verdict) -> None:
        self._session_id = session_id
        self._verdict = verdict
        self._last = 0

    def take(self, event: Event) -> None:
        """Judge one event's number."""
        wanted = self._last + 1
        self._verdict.claim("gap_free", event.seq == wanted, f"session {self._session_id}: {event.seq} in place of {wanted}")
        self._last = event.seq

    def close(self, session: Row) -> None:
        """Hold the head against the session's row."""
        is_head = self._last == int(session["last_seq"])
        self._verdict.claim("gap_free", is_head, f"session {self._session_id}: {self._last} events of {session['last_seq']}")


class Lives:
    """one_live_turn, one_terminal, queue_order."""

    def __init__(self, session_id: str, verdict: Verdict) -> None:
        self._where = f"session {session_id}"
        self._verdict = verdict
        self._live: str | None = None
        self._queue: list[str] = []
        self._ended: dict[str, str] = {}
        self._was_superseded = False

    def take(self, event: Event) -> None:
        """Judge one event of a turn."""
        where, claim = f"{self._where}, {event.seq} {event.type}", self._verdict.claim
        if event.turn_id in self._ended:
            self._verdict.add("one_terminal", f"{where}: turn {event.turn_id} has ended already")
            return
        match event.type:
            case "turn_queued":
                self._queue.append(event.turn_id)
            case "turn_started":
                self._begin(event, where)
            case kind if kind in TERMINAL:
                self._end(event, where)
            case _:
                claim("one_live_turn", event.turn_id == self._live, f"{where}: of {event.turn_id} while {self._live} is live")

    def close(self, turns: Sequence[Turn]) -> None:
        """Hold the lives against the turns' rows."""
        rows = {turn.id: turn for turn in turns if not turn.is_copied}
        self._verdict.claim("one_terminal", rows.keys() >= self._ended.keys(), f"{self._where}: events of turns without a row")
        for turn in rows.values():
            end = self._ended.get(turn.id, "none")
            is_so = end == f"turn_{turn.status}"
            self._verdict.claim("one_terminal", is_so, f"{self._where}: turn {turn.id} is {turn.status}, its end is {end}")

    def _begin(self, event: Event, where: str) -> None:
        claim = self._verdict.claim
        claim("one_live_turn", self._live is None, f"{where}: {self._live} is live")
        self._live = event.turn_id
        if event.turn_id in self._queue:
            is_first = self._queue[0] == event.turn_id
            self._queue.remove(event.turn_id)
            claim("queue_order", is_first, f"{where}: {event.turn_id} was not the first of the queue")
        else:
            may_pass = not self._queue or self._was_superseded
            claim("queue_order", may_pass, f"{where}: {event.turn_id} passed by {len(self._queue)} queued turns")

    def _end(self, event: Event, where: str) -> None:
        self._ended[event.turn_id] = event.type
        if event.type == "turn_cancelled":
            is_queued = event.turn_id in self._queue
            self._verdict.claim("one_terminal", is_queued, f"{where}: {event.turn_id} was not queued")
            self._queue = [turn_id for turn_id in self._queue if turn_id != event.turn_id]
            return
        self._verdict.claim("one_live_turn", event.turn_id == self._live, f"{where}: {event.turn_id} was not live")
        self._live = None
        self._was_superseded = event.fields.get("reason") == "superseded"


def plans_of(logs: Mapping[str, Log], turns: Mapping[str, Sequence[Turn]]) -> dict[str, set[tuple[str, str]]]:
    """Return where each plan is, as (session, turn): in logs, and in rows of turns, edited ones too; copies do not count."""
    found: dict[str, set[tuple[str, str]]] = {}
    for session_id, log in logs.items():
        for plan_id, turn_ids in log.plans.items():
            found.setdefault(plan_id, set()).update((session_id, turn_id) for turn_id in turn_ids)
    for session_id, rows in turns.items():
        for turn in rows:
            if not turn.is_copied and turn.plan is not None:
                found.setdefault(turn.plan.id, set()).add((session_id, turn.id))
    return found
