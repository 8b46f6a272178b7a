"""Judges of time, and what excuses what: only a fault that is proven, only while it held, and only one that can be the reason.

within_bound        a turn that is neither waiting nor over is never silent for more than the lease and 10 s, counted from its
                    last event or from what came later:
                    - the beginning of a fault of a node (kill, term, pause, clock) or of its link to Postgres: from there on
                      others have to go on; the end of the time in which all nodes had one
                    - the end of a fault of Postgres: before it nobody can write
                    - where the silence is not broken by `turn_resumed`: also the end of a fault of provider or tools or of a
                      link to them, and the patience that nodes have with those
                    - what the plan asks for: silence of the provider
interrupts_in_time  an interrupt `now` that was granted took 2 s at most, unless Postgres, the node that was asked, or a link of
                    its with clients or Postgres was at fault then, or less than a lease before
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.api.shapes import TERMINAL
from tests.torture.evidence import Event, Evidence
from tests.torture.plan import Plan
from tests.torture.provider import SILENT_SECONDS
from tests.torture.records import Fault, Operation
from tests.torture.verdict import Verdict

SLACK_SECONDS = 10.0
PATIENCE_SECONDS = 5.0
INTERRUPT_SECONDS = 2.0
OF_NODES = frozenset({"node_kill", "node_term", "node_pause", "clock"})
OF_POSTGRES = frozenset({
    "postgres_fast", "postgres_immediate", "postgres_kill", "backend_kill", "backend_freeze", "terminate_backends", "long_lock",
    "disk_full",
})  # fmt: skip
AROUND = frozenset({"provider", "tools"})


def node_of(fault: Fault) -> str | None:
    """Return the runner that it takes out of the fleet."""
    node, _, end = fault.target.partition(".")
    return node if fault.kind in OF_NODES or end == "postgres" else None


def is_around(fault: Fault) -> bool:
    """Tell whether it stands between nodes and provider or tools."""
    return fault.target.rpartition(".")[2] in AROUND


@dataclass(frozen=True, slots=True)
class Silence:
    """What a turn did not say between two of its events."""

    turn_id: str
    seq: int
    began: float
    ended: float
    broken_by: str
    plans: frozenset[str]


class Silences:
    """Gathers those of one session that are longer than a lease."""

    def __init__(self, least_seconds: float) -> None:
        self.found: list[Silence] = []
        self.resumed: list[Silence] = []
        self._least_seconds = least_seconds
        self._turn_id: str | None = None
        self._last: float | None = None
        self._pending: set[str] = set()
        self._plans: frozenset[str] = frozenset()

    def take(self, event: Event, plan_id: str | None) -> None:
        """Take an event of a turn."""
        if event.type == "turn_started":
            self._turn_id, self._last, self._plans = event.turn_id, event.at, frozenset()
            self._pending.clear()
        elif event.turn_id != self._turn_id:
            return
        if plan_id is not None:
            self._plans |= {plan_id}
        self._measure(event)
        self._last = event.at
        self._wait(event)

    def close(self, collected_at: float) -> None:
        """Take note of a turn that is silent to the end."""
        if self._turn_id is not None and self._last is not None and not self._pending:
            self.found.append(Silence(self._turn_id, 0, self._last, collected_at, "nothing", self._plans))

    def _measure(self, event: Event) -> None:
        if self._pending or self._last is None or event.at is None:
            return
        silence = Silence(event.turn_id, event.seq, self._last, event.at, event.type, self._plans)
        if event.type == "turn_resumed":
            self.resumed.append(silence)
        if silence.ended - silence.began > self._least_seconds:
            self.found.append(silence)

    def _wait(self, event: Event) -> None:
        match event.type:
            case "tool_call_pending":
                self._pending.add(event.fields["id"])
            case "tool_execution_started" | "tool_execution_completed" | "tool_result_received":
                self._pending.discard(event.fields["id"])
            case kind if kind in TERMINAL:
                self._turn_id = None
            case _:
                pass


class Excuses:
    """The faults of a run, asked for what they explain."""

    def __init__(self, evidence: Evidence) -> None:
        self._bites = evidence.bites
        self._runners = evidence.runners
        self._lease_seconds = evidence.lease_seconds

    def counted_from(self, silence: Silence, plans: Mapping[str, Plan]) -> float:
        """Return the moment from which a silence counts."""
        moments = [silence.began, *self._all_down_until(silence)]
        for fault in self._bites:
            if fault.began > silence.ended or fault.ended < silence.began:
                continue
            if node_of(fault) is not None:
                moments.append(fault.began)
            elif fault.kind in OF_POSTGRES:
                moments.append(fault.ended)
            elif is_around(fault) and silence.broken_by != "turn_resumed":
                moments.append(fault.ended + PATIENCE_SECONDS)
        asked_for = [plans[plan_id].faults.count("silent") * SILENT_SECONDS for plan_id in silence.plans if plan_id in plans]
        return max(moments) + sum(asked_for)

    def is_excused(self, asked: Operation) -> bool:
        """Tell whether an interrupt had a reason to take longer."""
        return any(
            fault.began <= asked.ended
            and fault.ended + self._lease_seconds >= asked.began
            and self._concerns(fault, asked.node)
            for fault in self._bites
        )

    def _concerns(self, fault: Fault, node: str) -> bool:
        return node_of(fault) == node or fault.kind in OF_POSTGRES or fault.target == f"{node}.clients"

    def _all_down_until(self, silence: Silence) -> Iterator[float]:
        """Yield the ends of times at which no runner was in the fleet."""
        faults = [fault for fault in self._bites if node_of(fault) is not None]
        for last in faults:
            together = [fault for fault in faults if fault.began <= last.began <= fault.ended]
            until = min(fault.ended for fault in together)
            if (
                {node_of(fault) for fault in together} >= self._runners
                and last.began <= silence.ended
                and until >= silence.began
            ):
                yield until


def judge_silences(
    verdict: Verdict, evidence: Evidence, session_id: str, silences: Sequence[Silence], plans: Mapping[str, Plan]
) -> None:
    """within_bound."""
    excuses, bound = Excuses(evidence), evidence.lease_seconds + SLACK_SECONDS
    for silence in silences:
        took = silence.ended - excuses.counted_from(silence, plans)
        text = f"session {session_id}, {silence.seq} {silence.broken_by}: turn {silence.turn_id} stood still for {took:.1f} s"
        verdict.claim("within_bound", took <= bound, text)


def recoveries(evidence: Evidence, resumed: Sequence[Silence]) -> list[float]:
    """Return how long turns took to go on after their node's fault, of those that one explains."""
    found: list[float] = []
    for silence in resumed:
        began = [fault.began for fault in evidence.bites if node_of(fault) is not None and fault.began <= silence.ended]
        last = max(began, default=None)
        if last is not None and silence.ended - last < evidence.lease_seconds + 2 * SLACK_SECONDS:
            found.append(silence.ended - max(last, silence.began))
    return found


def judge_interrupts(verdict: Verdict, evidence: Evidence) -> list[float]:
    """interrupts_in_time; returns how long those took that nothing excuses."""
    excuses = Excuses(evidence)
    asked = [one for one in evidence.operations if one.name == "interrupt" and one.facts.get("mode") == "now"]
    took: list[float] = []
    for one in asked:
        if one.outcome == "ok" and not excuses.is_excused(one):
            took.append(one.ended - one.began)
            text = f"turn {one.turn_id} at {one.node} after {took[-1]:.2f} s"
            verdict.claim("interrupts_in_time", took[-1] <= INTERRUPT_SECONDS, text)
    return took
