"""Holds what a run has left against the promises: each log event by event, then everything against everything.

Which invariants there are, and what excuses what, stands in the modules that judge: `logs`, `tries`, `bounds`, `shown`,
`promises` and `rows`. Nothing else is excused.

python -m tests.torture.checker FOLDER
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.bounds import Silence, Silences, judge_interrupts, judge_silences, recoveries
from tests.torture.evidence import Evidence
from tests.torture.logs import Lives, Log, Numbers
from tests.torture.plan import Plan
from tests.torture.promises import Promises, acknowledged
from tests.torture.rows import Rows
from tests.torture.shown import Frames, judge_shown, judge_streams
from tests.torture.tries import Calls, Tries
from tests.torture.verdict import Verdict

OF_PROVIDER = "provider_down"
LEAST_SILENCE_SECONDS = 1.0
READS = frozenset({"read", "list", "messages", "events", "turns", "export"})
__all__ = ["Verdict", "check"]


@dataclass
class Reading:
    """What has been read of all logs."""

    logs: dict[str, Log] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    silences: list[tuple[str, list[Silence]]] = field(default_factory=list)
    resumed: list[Silence] = field(default_factory=list)
    unrecorded: int = 0


def check(folder: Path) -> Verdict:
    """Judge a folder."""
    verdict, evidence = Verdict(), Evidence.read(folder)
    reading = _read_logs(verdict, evidence)
    for session_id, silences in reading.silences:
        judge_silences(verdict, evidence, session_id, silences, reading.plans)
    took = judge_interrupts(verdict, evidence)
    frames = Frames(verdict, evidence, reading.logs)
    connections = judge_shown(frames)
    judge_streams(frames, evidence.operations)
    Promises(verdict, evidence, reading.logs).judge()
    Rows(verdict, evidence, reading.logs).judge()
    verdict.figures |= _load(evidence, reading) | {"frames": frames.count, "connections of watchers": connections}
    verdict.figures |= (
        _spread("recovery", recoveries(evidence, reading.resumed)) | _spread("interrupt", took) | _faults(evidence)
    )
    verdict.figures |= {f"violations of {invariant}": count for invariant, count in verdict.counts.items()}
    return verdict


def _read_logs(verdict: Verdict, evidence: Evidence) -> Reading:
    reading = Reading()
    may_miss = any(fault.kind == OF_PROVIDER for fault in evidence.bites)
    for session_id, events in evidence.events():
        session = evidence.sessions.get(session_id)
        if session is None:
            verdict.add("acknowledged_is_durable", f"events of {session_id}, which has no row")
            continue
        log, silences = Log(session_id), Silences(LEAST_SILENCE_SECONDS)
        numbers, lives, calls = Numbers(session_id, verdict), Lives(session_id, verdict), Calls(session_id, verdict)
        tries = Tries(session_id, verdict, evidence.asked, may_miss=may_miss)
        for event in events:
            plan_id = log.take(event, reading.plans)
            numbers.take(event)
            if event.turn_id:
                lives.take(event)
                tries.take(event)
                calls.take(event)
                silences.take(event, plan_id)
        silences.close(evidence.collected_at)
        numbers.close(session)
        lives.close(evidence.turns.get(session_id, ()))
        log.said = tries.said
        reading.logs[session_id] = log
        reading.silences.append((session_id, silences.found))
        reading.resumed += silences.resumed
        reading.unrecorded += tries.unrecorded
    for session_id in evidence.sessions.keys() - reading.logs.keys():
        verdict.add("gap_free", f"session {session_id} has no event")
    return reading


def _load(evidence: Evidence, reading: Reading) -> dict[str, int]:
    types = Counter[str]()
    for log in reading.logs.values():
        types.update(log.types)
    requests = Counter(one.outcome for one in evidence.operations)
    return {
        "acknowledged operations": acknowledged(evidence.operations),
        "of these not reads": acknowledged([one for one in evidence.operations if one.name not in READS]),
        "refused": requests["fail"],
        "without an answer": requests["unknown"],
        "sessions": len(evidence.sessions),
        "sessions erased": len(evidence.erased),
        "turns": sum(len(turns) for turns in evidence.turns.values()),
        "events": types.total(),
        "turns resumed": types["turn_resumed"],
        "steps discarded": types["step_discarded"],
        "provider requests": len(evidence.asked),
        "steps whose request the provider lost": reading.unrecorded,
        "effects": len(evidence.effects),
    }


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float | int]:
    ordered = sorted(seconds)
    found: dict[str, float | int] = {f"{name}, times measured": len(ordered)}
    for share in (50, 99) if ordered else ():
        found[f"{name} p{share}, s"] = round(ordered[min(len(ordered) * share // 100, len(ordered) - 1)], 2)
    return found


def _faults(evidence: Evidence) -> dict[str, int | str]:
    dealt, bitten = Counter(fault.kind for fault in evidence.faults), Counter(fault.kind for fault in evidence.bites)
    return {"faults": dealt.total(), "faults proven": bitten.total()} | dict(_told(dealt, bitten))


def _told(dealt: Counter[str], bitten: Counter[str]) -> Iterator[tuple[str, str]]:
    for kind in sorted(dealt):
        yield f"  {kind}", f"{bitten[kind]} of {dealt[kind]}"


def main() -> None:
    """Judge a folder and tell; the exit status is 1 where something was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.checker", description=__doc__)
    parser.add_argument("folder", type=Path)
    verdict = check(parser.parse_args().folder)
    for name, figure in verdict.figures.items():
        print(f"{name:<40} {figure}")
    for invariant, text in verdict.violations:
        print(f"{invariant}: {text}")
    raise SystemExit(1 if verdict.violations else 0)


if __name__ == "__main__":
    main()
