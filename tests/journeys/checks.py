"""What holds of a session at rest, whatever has happened to it: its log, its transcript and its usage, read over HTTP."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tests.api import shapes
from tests.api.talk import history, state
from tests.journeys.talks import Talk
from tests.providers.behaviours import KEY

Log: TypeAlias = Sequence[Mapping[str, Any]]

_TRY = r"step_started( (reasoning|text|tool_call)_delta)*"
_STEP = (
    rf"{_TRY}( (retrying|turn_resumed) step_discarded {_TRY})*"
    r"( reasoning_complete)?( text_complete)?( tool_call_requested)* step_completed"
)
_CALLS = r"( tool_call_pending)*( tool_execution_(started|completed))*( tool_result_received)*"
TURN = re.compile(rf"turn_started( {_STEP}{_CALLS})*( turn_completed| {_TRY} turn_interrupted)")
CALL = ("tool_call_requested", "tool_call_pending", "tool_execution_started", "tool_execution_completed",
        "tool_result_received")  # fmt: skip


async def assert_sound(talk: Talk) -> None:
    """Hold everything of a session against the promises; nobody had to refuse a request, and no key is told."""
    log, messages, view = await talk.service.log_of(talk.id), await history(talk.desk), await state(talk.desk)
    turns = (await talk.desk.turns("limit=200"))["turns"]

    shapes.assert_log(log)
    assert_order(log)
    shapes.assert_transcript(messages)
    shapes.assert_shaped(view, shapes.SESSION)
    assert (view["state"]["message_count"], view["state"]["last_seq"]) == (len(messages), len(log))
    assert_usage(talk, log, turns, view["billing"])
    assert list(await talk.rejected()) == []
    assert KEY not in json.dumps([log, messages, turns]) + talk.service.log.read_text()


def assert_order(log: Log) -> None:
    """Hold the order of each turn's events, of its steps and of each call's events against what can follow what."""
    for turn_id in {event["turn_id"]: None for event in log if event["turn_id"]}:
        own = [event for event in log if event["turn_id"] == turn_id]
        kinds = " ".join(event["type"] for event in own)
        assert TURN.fullmatch(kinds), kinds
        steps = [event["step"] for event in own if event["type"] == "step_completed"]
        assert steps == list(range(1, len(steps) + 1))
        for call_id in {event["id"]: None for event in own if event["type"] == "tool_call_requested"}:
            told = [event["type"] for event in own if event["type"] in CALL and event["id"] == call_id]
            assert told == [kind for kind in CALL if kind in told]
            assert (told[0], told[-1]) == (CALL[0], CALL[-1])


def assert_usage(talk: Talk, log: Log, turns: Log, billing: Mapping[str, Any]) -> None:
    """Hold sums against their parts: answers, cut ones too, are as reported, a turn is their sum, the session that of turns."""
    steps = [event for event in log if event["type"] == "step_completed"]
    ends = {event["turn_id"]: event["usage"] for event in log if event["type"] in shapes.TERMINAL}
    own = [turn for turn in turns if turn["turn_id"] in ends]  # those that were copied have no events

    assert talk.reported is None or [event["usage"] for event in steps] == talk.reported
    for turn in own:
        whole = [event["usage"] for event in steps if event["turn_id"] == turn["turn_id"]]
        asked = sum(event["type"] == "step_started" and event["turn_id"] == turn["turn_id"] for event in log)
        counted = total([*whole, *[talk.reported_early] * (asked - len(whole))])
        assert turn["usage"] == ends[turn["turn_id"]] == counted
    spent = total([turn["usage"] for turn in (own if talk.is_fork else turns)])
    assert {**billing["usage"], "total_tokens": billing["total_tokens"]} == spent


def total(usages: Sequence[Mapping[str, int]]) -> Mapping[str, int]:
    """Add up usages; the total is that of input and output."""
    sums = {name: sum(usage[name] for usage in usages) for name in shapes.USAGE}
    return {**sums, "total_tokens": sums["input_tokens"] + sums["output_tokens"]}
