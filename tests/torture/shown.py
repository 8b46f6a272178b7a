"""Judges of what readers saw, held against the logs.

shown_is_stored   each frame is the stored event of its number, byte for byte; of an erased session all readers saw the same
streams_in_order  each connection goes on right behind its cursor, without hole or double; a turn's own stream in order
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.torture import records
from tests.torture.evidence import Evidence
from tests.torture.logs import Log
from tests.torture.records import Operation, Shown
from tests.torture.verdict import Verdict

BROKEN_ENDS = frozenset({"reset", "malformed", "400", "422", "500"})


@dataclass
class Frames:
    """Holds frames against logs, and counts them."""

    verdict: Verdict
    evidence: Evidence
    logs: Mapping[str, Log]
    count: int = 0
    _erased: dict[tuple[str, int], int] = field(default_factory=dict)

    def judge(self, session_id: str, frames: Sequence[Sequence[int]], where: str) -> None:
        """shown_is_stored."""
        self.count += len(frames)
        log = self.logs.get(session_id)
        if log is None and session_id not in self.evidence.erased:
            self.verdict.claim("shown_is_stored", not frames, f"{where}: session {session_id} is gone, and nobody erased it")
            return
        for seq, shown in frames:
            stored = self._stored(log, session_id, seq, shown)
            text = f"{where}: session {session_id} showed {seq}, " + (
                "which is not stored" if stored is None else "which differs"
            )
            self.verdict.claim("shown_is_stored", stored == shown, text)

    def _stored(self, log: Log | None, session_id: str, seq: int, shown: int) -> int | None:
        if log is None:
            return self._erased.setdefault((session_id, seq), shown)
        return log.sums[seq - 1] if 0 < seq <= len(log.sums) else None


def judge_shown(frames: Frames) -> int:
    """Judge all watchers; returns how many connections they had."""
    connections, cursors = 0, dict[tuple[str, int], int]()
    for shown in records.read(frames.evidence.folder, "shown-*.jsonl", Shown):
        where = f"{shown.watcher}'s connection {shown.connection} to {shown.node}"
        frames.judge(shown.session_id, shown.frames, where)
        key = (shown.watcher, shown.connection)
        _judge_order(frames.verdict, shown, cursors.get(key, shown.after), where)
        is_there = shown.end != "404" or shown.session_id in frames.evidence.erased
        frames.verdict.claim("streams_in_order", is_there, f"{where}: {shown.session_id} is gone, and nobody erased it")
        if shown.frames:
            cursors[key] = shown.frames[-1][0]
        if shown.end != "more":
            connections += 1
            cursors.pop(key, None)
    return connections


def judge_streams(frames: Frames, operations: Sequence[Operation]) -> None:
    """Judge the streams that answered who started a turn."""
    for one in operations:
        shown = one.facts.get("frames", ())
        if one.session_id is not None and shown:
            frames.judge(one.session_id, shown, f"{one.client}'s {one.plan} at {one.node}")


def _judge_order(verdict: Verdict, shown: Shown, cursor: int, where: str) -> None:
    for seq, _ in shown.frames:
        verdict.claim("streams_in_order", seq == cursor + 1, f"{where}: {seq} behind {cursor} of {shown.session_id}")
        cursor = seq
    verdict.claim("streams_in_order", shown.end not in BROKEN_ENDS, f"{where}: ended with {shown.end}, {shown.session_id}")
