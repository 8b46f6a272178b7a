"""What must be true of a session at rest, whatever befell it; the checks are those of the tests."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.api import shapes
from tests.torture import plan, records
from tests.torture.asker import Asker
from tests.torture.scenario import Told

Events = Sequence[Mapping[str, Any]]
BEGINNINGS = ("turn_started", "turn_steered")


async def inspect(asker: Asker, told: Told) -> None:
    """Hold a session against the promises.

    Raises:
        AssertionError: one of them is broken.
    """
    state = (await asker.read(told.path))["state"]
    turns = (await asker.read(f"{told.path}/turns?limit=200"))["turns"]
    log = await _log(asker, told)
    assert (state["status"], state["queued_turns"], state["last_seq"]) == ("idle", 0, len(log))
    shapes.assert_log(log)
    messages = (await asker.read(f"{told.path}/messages?limit=200"))["messages"]
    shapes.assert_transcript([{name: value for name, value in one.items() if name != "summary"} for one in messages])
    assert [frame.data for frame in told.frames] == log[: len(told.frames)], "a reader was shown something else"
    _assert_turns(told, turns, log)
    _assert_usage(turns, log)
    assert [event["type"] for event in log].count("compaction_completed") == told.compactions


def assert_doubles_saw_nothing_wrong(folder: Path, mark: str) -> None:
    """Hold the records of provider and tools against the promises: no transcript was refused, no effect came twice."""
    assert [asked.rejected for asked in records.read(folder, "asked-*.jsonl", records.Asked) if asked.rejected] == []
    effects = Counter(
        effect.key
        for effect in records.read(folder, "effects*.jsonl", records.Effect)
        if effect.tool != "lookup" and effect.key.startswith(mark)
    )
    assert [key for key, count in effects.items() if count > 1] == [], "an effect came twice"


async def _log(asker: Asker, told: Told) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while page := (await asker.read(f"{told.path}/events?limit=1000&after={len(events)}"))["events"]:
        events += page
    return events


def _assert_turns(told: Told, turns: Sequence[Mapping[str, Any]], log: Events) -> None:
    """What was acknowledged is there, once, and has ended as it was told to."""
    own = {turn["turn_id"]: turn for turn in turns[told.copied_turns :]}
    assert own.keys() == told.turns.keys(), "turns are missing, or there are more than were acknowledged"
    plans: dict[str, list[str]] = defaultdict(list)
    for event in log:
        if event["type"] in BEGINNINGS and (found := plan.last_in(event["prompt"])):
            plans[event["turn_id"]].append(found.id)
    for turn_id, kept in told.turns.items():
        assert own[turn_id]["status"] in kept.ends, f"{own[turn_id]} was to end {set(kept.ends)}"
        assert plans[turn_id] == ([] if own[turn_id]["status"] == "cancelled" else kept.plans)


def _assert_usage(turns: Sequence[Mapping[str, Any]], log: Events) -> None:
    """A turn's usage is the sum of its steps'."""
    spent: Counter[str] = Counter()
    for event in log:
        if event["type"] == "step_completed":
            spent[event["turn_id"]] += event["usage"]["output_tokens"]
    for turn in turns:
        if turn["status"] == "completed" and turn["turn_id"] in spent:
            assert turn["usage"]["output_tokens"] == spent[turn["turn_id"]]
