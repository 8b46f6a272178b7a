"""Judges of tables against each other and against what doubles have seen.

settled             at the end no turn is live or queued, and the session's row counts what is there
said_is_kept        what the steps of a turn have shown is in its transcript, and no more; that of a step that was cut too
transcripts_valid   ordinals without holes; each tool use has one result, in the next message, in order; none was refused
usage_adds_up       a turn's usage is the sum of its steps and summaries, a session's of its turns and summaries, and what was
                    used by day of all sessions
effects_once        no effect happened twice
effects_on_record   none happened without its call on record or without leave, and each that was told has happened
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from tests.torture import tools
from tests.torture.evidence import NO_USAGE, Evidence, Row, Turn, Usage, added, subtracted, usage_of
from tests.torture.frames import checksum
from tests.torture.logs import Log
from tests.torture.verdict import Verdict

ONCE = frozenset({"effect", "guarded"})
LIVE = frozenset({"queued", "running", "waiting"})


@dataclass
class Rows:
    """Holds the tables against logs and doubles."""

    verdict: Verdict
    evidence: Evidence
    logs: Mapping[str, Log]

    def judge(self) -> None:
        """All of them."""
        bases = self._bases()
        for session_id, row in self.evidence.sessions.items():
            turns = self.evidence.turns.get(session_id, ())
            self._judge_settled(session_id, row, turns)
            log = self.logs.get(session_id)
            if log is not None:
                self._judge_usage(session_id, row, turns, log, bases.get(session_id, NO_USAGE))
        self._judge_used(bases)
        seen = {session_id: self._judge_messages(session_id, rows) for session_id, rows in self.evidence.messages()}
        for session_id, row in self.evidence.sessions.items():
            is_counted = int(row["message_count"]) == seen.get(session_id, 0)
            self.verdict.claim("settled", is_counted, f"session {session_id}: {row['message_count']} messages counted")
        for asked in self.evidence.asked.values():
            self.verdict.claim("transcripts_valid", asked.rejected is None, f"request {asked.number}: {asked.rejected}")
        self._judge_effects()

    def _judge_settled(self, session_id: str, row: Row, turns: Sequence[Turn]) -> None:
        live = [f"{turn.id} is {turn.status}" for turn in turns if turn.status in LIVE]
        self.verdict.claim("settled", not live, f"session {session_id}: {live}")
        is_still = row["status"] == "idle" and not row["current_turn_id"] and row["queued_turns"] == "0"
        self.verdict.claim("settled", is_still, f"session {session_id} is {row['status']}, {row['queued_turns']} turns queued")
        numbers = [turn.number for turn in turns]
        is_counted = numbers == list(range(1, int(row["turn_count"]) + 1))
        self.verdict.claim("settled", is_counted, f"session {session_id}: {row['turn_count']} turns counted")

    def _judge_usage(self, session_id: str, row: Row, turns: Sequence[Turn], log: Log, base: Usage) -> None:
        total = added(base, log.usage.get("", NO_USAGE))
        for turn in turns:
            if turn.is_copied:
                continue
            summed = log.usage.get(turn.id, NO_USAGE)
            told = log.told_usage.get(turn.id, summed)
            text = f"session {session_id}: turn {turn.id} has {turn.usage}, told {told}, its steps {summed}"
            self.verdict.claim("usage_adds_up", turn.usage == summed == told, text)
            total = added(total, summed)
        text = f"session {session_id} has {usage_of(row)}, its turns and summaries {total}"
        self.verdict.claim("usage_adds_up", usage_of(row) == total, text)

    def _judge_used(self, bases: Mapping[str, Usage]) -> None:
        """Hold the sums by day against the bills of the sessions that are left; those that were erased have used more."""
        billed = NO_USAGE
        for session_id, row in self.evidence.sessions.items():
            billed = added(billed, subtracted(usage_of(row), bases.get(session_id, NO_USAGE)))
        rest = subtracted(self.evidence.used, billed)
        is_whole = self.evidence.erased <= self.evidence.sessions.keys()
        is_right = rest == NO_USAGE if is_whole else min(rest) >= 0
        self.verdict.claim("usage_adds_up", is_right, f"used by day {self.evidence.used}, billed {billed}")

    def _bases(self) -> Mapping[str, Usage]:
        """Return what imported sessions had used before."""
        brought = [one for one in self.evidence.operations if one.name == "import"]
        return {one.session_id or "": usage_of(one.facts["base_usage"]) for one in brought}

    def _judge_messages(self, session_id: str, rows: Iterator[Row]) -> int:
        """Judge one transcript; returns how many messages it has."""
        open_ids: list[str] = []
        said = defaultdict[str, list[int]](list)
        ordinal = 0
        for ordinal, row in enumerate(rows, 1):
            blocks = orjson.loads(row["content"])
            where = f"session {session_id}, message {row['ordinal']}"
            results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            is_whole = int(row["ordinal"]) == ordinal and bool(blocks) and (row["role"] == "tool") == bool(results)
            self.verdict.claim("transcripts_valid", is_whole, f"{where} is out of place")
            self.verdict.claim("transcripts_valid", results == open_ids, f"{where} answers {results} and not {open_ids}")
            open_ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
            if row["role"] == "assistant":
                text = "".join(block["text"] for block in blocks if block["type"] == "text")
                said[row["turn_id"]].append(checksum(text.encode()))
        self.verdict.claim("transcripts_valid", not open_ids, f"session {session_id}: {open_ids} have no answer")
        self._judge_said(session_id, said)
        return ordinal

    def _judge_said(self, session_id: str, kept: Mapping[str, Sequence[int]]) -> None:
        log = self.logs.get(session_id)
        for turn in self.evidence.turns.get(session_id, ()):
            if log is not None and not turn.is_copied:
                is_so = list(log.said.get(turn.id, ())) == list(kept.get(turn.id, ()))
                self.verdict.claim("said_is_kept", is_so, f"session {session_id}: turn {turn.id} has said something else")

    def _judge_effects(self) -> None:
        happened = Counter(effect.key for effect in self.evidence.effects if effect.tool in ONCE)
        for key, times in happened.items():
            self.verdict.claim("effects_once", times == 1, f"{key} happened {times} times")
        calls = {call_id: key for log in self.logs.values() for call_id, key in log.calls.items()}
        allowed = {one.facts["call"] for one in self.evidence.operations if one.facts.get("decision") == "allow"}
        erased = self._erased_plans()
        for effect in self.evidence.effects:
            is_asked_for = calls.get(effect.tool_call_id) == effect.key or effect.key.partition("-")[0] in erased
            self.verdict.claim("effects_on_record", is_asked_for, f"{effect.key}: {effect.tool_call_id} is on no log")
            has_leave = effect.tool != "guarded" or effect.tool_call_id in allowed
            self.verdict.claim("effects_on_record", has_leave, f"{effect.key}: nobody allowed {effect.tool_call_id}")
        done = {effect.tool_call_id for effect in self.evidence.effects}
        for log in self.logs.values():
            for call_id, result in log.results.items():
                is_true = result != tools.result(log.calls.get(call_id, "")) or call_id in done
                self.verdict.claim("effects_on_record", is_true, f"session {log.session_id}: {call_id} was told to be done")

    def _erased_plans(self) -> frozenset[str]:
        """Plans of turns whose session may be erased."""
        erased = self.evidence.erased - self.evidence.sessions.keys()
        asked = [one for one in self.evidence.operations if one.session_id in erased]
        return frozenset(plan for one in asked if (plan := one.plan or one.facts.get("replaces")))
