"""What the log says of a step that was cut, and how to leave a valid transcript behind it.

The one fold that interrupt, failure and recovery share. A transcript is valid when every tool use has exactly one result, in
the next message, in request order, and no assistant message is empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from app.journal.event import Event
from app.journal.reader import Stored
from app.journal.types import ToolResultReceived
from app.messages import Block, Message, Reasoning, Text, ToolResult

UNKNOWN_OUTCOME = "The server stopped while this call was running. Whether it took effect is unknown; it was not run again."
NOT_RUN = "The turn ended before this call was finished; it has no result."


@dataclass(slots=True)
class Call:
    """A tool call as far as the log knows it.

    Args:
        args: the model's, or what a hook has made of them.
        pending: what it waits for, or waited for last.
        is_allowed: whether a caller has approved it.
    """

    id: str
    name: str
    args: Any
    pending: Literal["external", "approval"] | None = None
    is_allowed: bool = False
    is_started: bool = False
    result: ToolResult | None = None


@dataclass(slots=True)
class StepState:
    """A step as far as the log knows it.

    Args:
        from_seq: number of its `step_started`.
        is_complete: whether the model's answer was whole and entered the transcript.
        is_over: whether nothing of it is open: discarded, or its results entered the transcript.
    """

    step: int
    from_seq: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    is_complete: bool = False
    is_over: bool = False

    @property
    def open_calls(self) -> list[Call]:
        """The calls whose results have not entered the transcript."""
        return list(self.calls.values()) if self.is_complete and not self.is_over else []

    @property
    def is_cut(self) -> bool:
        """Whether the model's answer broke off."""
        return not self.is_complete and not self.is_over


def fold(events: Sequence[Stored]) -> StepState | None:
    """Read a step's state off its events, the first of which is its `step_started`.

    Returns:
        The state, or None where there are no events.
    """
    state: StepState | None = None
    for event in events:
        fields = orjson.loads("{" + event.body)
        if event.type == "step_started":
            state = StepState(fields["step"], event.seq)
        elif state is not None:
            _apply(state, event.type, fields)
    return state


@dataclass(frozen=True, slots=True)
class Closing:
    """What to write so that a cut turn leaves a valid transcript.

    Args:
        text: what the cut step had said; empty where it had said nothing.
    """

    events: Sequence[Event]
    messages: Sequence[Message]
    text: str


def close(state: StepState | None) -> Closing:
    """Keep the text that was streamed, and answer every open call."""
    if state is None or state.is_over:
        return Closing([], [], "")
    if state.is_complete:
        return _close_calls(state.open_calls)
    text = "".join(state.text)
    if not text:
        return Closing([], [], "")
    blocks: list[Block] = [Text(text)]
    if state.reasoning:
        blocks.insert(0, Reasoning("".join(state.reasoning)))
    return Closing([], [Message("assistant", tuple(blocks), "interrupted")], text)


def results(calls: Sequence[Call]) -> tuple[list[Event], Message]:
    """Make the one message that answers a step's calls, in request order, and its events."""
    found = [call.result or ToolResult(call.id, _missing(call), is_error=True) for call in calls]
    told: list[Event] = [
        ToolResultReceived(call.id, call.name, result.is_error) for call, result in zip(calls, found, strict=True)
    ]
    return told, Message("tool", tuple(found))


def _close_calls(calls: Sequence[Call]) -> Closing:
    if not calls:
        return Closing([], [], "")
    events, message = results(calls)
    return Closing(events, [message], "")


def _missing(call: Call) -> str:
    return UNKNOWN_OUTCOME if call.is_started else NOT_RUN


def _apply(state: StepState, kind: str, fields: dict[str, Any]) -> None:
    match kind:
        case "text_delta":
            state.text.append(fields["delta"])
        case "reasoning_delta":
            state.reasoning.append(fields["delta"])
        case "step_completed":
            state.is_complete = True
            state.is_over = not state.calls
        case "step_discarded" | "tool_result_received":
            state.is_over = True
        case "tool_call_requested":
            state.calls[fields["id"]] = Call(fields["id"], fields["name"], fields["args"])
        case _:
            _apply_to_call(state.calls.get(fields.get("id", "")), kind, fields)


def _apply_to_call(call: Call | None, kind: str, fields: dict[str, Any]) -> None:
    if call is None:
        return
    match kind:
        case "tool_call_pending":
            call.pending, call.args = fields["kind"], fields["args"]
        case "tool_execution_started":
            call.is_started = True
        case "tool_execution_completed":
            call.result = ToolResult(call.id, fields["result"], fields["is_error"])
        case _:
            pass
