"""Judges of what clients were told, held against the database.

acknowledged_is_durable  what a 2xx named is there, with the state that it was told to have, unless its session was erased
once_per_key             all answers to one key name the same; each plan is in one place; there is no session that nobody made
answers_true             no answer said what the contract forbids, and no refusal was without ground
usable                   after healing each session took one more turn to its end
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.torture.evidence import STORE_ERROR, Evidence, Turn
from tests.torture.logs import Log, plans_of
from tests.torture.records import Operation
from tests.torture.verdict import Verdict

LIVE = frozenset({"queued", "running", "waiting"})
MAKES_SESSIONS = frozenset({"create", "fork", "import"})
DURABLE = "acknowledged_is_durable"


@dataclass
class Promises:
    """Holds operations against logs and rows."""

    verdict: Verdict
    evidence: Evidence
    logs: Mapping[str, Log]

    def judge(self) -> None:
        """All four."""
        self._places = plans_of(self.logs, self.evidence.turns)
        self._turns = {(key, turn.id): turn for key, rows in self.evidence.turns.items() for turn in rows}
        self._edits = self._edits_by_turn()
        by_key = defaultdict[str, list[Operation]](list)
        for one in self.evidence.operations:
            where = f"{one.client}'s {one.name} at {one.node}, {one.ended:.3f}"
            self.verdict.claim(
                "answers_true", "wrong" not in one.facts, f"{where}: {one.facts.get('wrong')} ({one.status} {one.code})"
            )
            if one.outcome == "ok":
                self._judge_durable(one, where)
                if one.key is not None:
                    by_key[one.key].append(one)
        for key, answers in by_key.items():
            named = {(one.session_id, one.turn_id) for one in answers if one.turn_id or one.name in MAKES_SESSIONS}
            self.verdict.claim(
                "once_per_key", len(named) <= 1, f"{answers[0].name} with key {key} was {sorted(map(str, named))}"
            )
        self._judge_plans()
        self._judge_sessions()
        self._judge_usable()

    def _judge_durable(self, one: Operation, where: str) -> None:
        if one.session_id is None or one.session_id in self.evidence.erased:
            gone = one.name != "delete" or one.session_id not in self.evidence.sessions
            self.verdict.claim(DURABLE, gone, f"{where}: {one.session_id} is there still")
            return
        log = self.logs.get(one.session_id)
        if log is None:
            self.verdict.add(DURABLE, f"{where}: session {one.session_id} is lost")
            return
        text = f"{where}: session {one.session_id}, turn {one.turn_id}"
        turn = self._turns.get((one.session_id, one.turn_id or ""))
        self.verdict.claim(DURABLE, turn is not None or one.turn_id is None, f"{text} is lost")
        for fact, holds in HOLDS.items():
            if fact in one.facts:
                is_so = holds(one, log, turn)
                self.verdict.claim(DURABLE, is_so, f"{text}: {fact} was {str(one.facts[fact])[:80]}, and is not")
        if one.plan is not None and "on_busy" in one.facts:
            self.verdict.claim(DURABLE, one.plan in self._places, f"{text}: its plan {one.plan} is lost")
        if "replaces" in one.facts and turn is not None and turn.plan is not None:
            is_edit = turn.plan.id in self._edits[one.session_id, turn.id]
            self.verdict.claim(DURABLE, is_edit, f"{text}: its prompt is {turn.plan.id}, and not {one.facts['replaces']}")

    def _edits_by_turn(self) -> Mapping[tuple[str, str], set[str]]:
        """Return the prompts that a queued turn may have been given, by session and turn."""
        found = defaultdict[tuple[str, str], set[str]](set)
        for one in self.evidence.operations:
            if one.name == "edit" and (one.outcome != "fail" or one.status == STORE_ERROR):
                found[one.session_id or "", one.turn_id or ""].add(one.facts["replaces"])
        return found

    def _judge_plans(self) -> None:
        steered = defaultdict[str, int](int)
        for log in self.logs.values():
            for plan_id, times in log.steered.items():
                steered[plan_id] += times
        for plan_id, places in self._places.items():
            is_once = len(places) == 1 and steered[plan_id] <= 1
            text = f"plan {plan_id} is in {sorted(places)}, and was steered {steered[plan_id]} times"
            self.verdict.claim("once_per_key", is_once, text)

    def _judge_sessions(self) -> None:
        """Find sessions that no key and no answer explains; each act without a key and without an answer may have made one."""
        made = {row["session_id"] for row in self.evidence.kept_keys()}
        made |= {one.session_id or "" for one in self.evidence.operations if one.name in MAKES_SESSIONS and one.outcome == "ok"}
        may_have = [
            one
            for one in self.evidence.operations
            if one.name in MAKES_SESSIONS and one.key is None and (one.outcome == "unknown" or one.status == STORE_ERROR)
        ]
        unexplained = sorted(self.evidence.sessions.keys() - made)
        is_few = len(unexplained) <= len(may_have)
        self.verdict.claim(
            "once_per_key", is_few, f"nobody made sessions {unexplained[:5]}; {len(may_have)} acts may have made some"
        )

    def _judge_usable(self) -> None:
        probed = {
            one.session_id
            for one in self.evidence.operations
            if one.client == "probe" and one.outcome == "ok" and one.facts.get("turn_status") == "completed"
        }
        for session_id in self.evidence.sessions:
            self.verdict.claim("usable", session_id in probed, f"session {session_id} took no turn after healing")


def _has_status(one: Operation, _log: Log, turn: Turn | None) -> bool:
    status: str = one.facts["turn_status"]
    return turn is None or status in LIVE or turn.status == status


def _has_reached(one: Operation, log: Log, _turn: Turn | None) -> bool:
    last_seq: int = one.facts["last_seq"]
    return len(log.sums) >= last_seq


def _has_words(fact: str) -> Callable[[Operation, Log, Turn | None], bool]:
    return lambda one, log, _turn: one.facts[fact] in log.words


def _has_results(one: Operation, log: Log, _turn: Turn | None) -> bool:
    given: Mapping[str, str] = one.facts["results"]
    return all(log.results.get(call_id) == content for call_id, content in given.items())


def _has_decided(one: Operation, log: Log, turn: Turn | None) -> bool:
    call_id = one.facts["call"]
    if one.facts["decision"] == "deny":
        return call_id in log.errors
    return turn is None or call_id in turn.allowed


HOLDS: Mapping[str, Callable[[Operation, Log, Turn | None], bool]] = {
    "turn_status": _has_status,
    "last_seq": _has_reached,
    "title": _has_words("title"),
    "archived_at": _has_words("archived_at"),
    "results": _has_results,
    "decision": _has_decided,
}
"""What a fact of an answer says of the database."""


def acknowledged(operations: Sequence[Operation]) -> int:
    """Count the operations that were granted."""
    return sum(one.outcome == "ok" for one in operations)
