"""Every event type and its payload: the public vocabulary of the log.

How an event is stored and sent is in `app/journal/frames.py`. `docs/events.md` is held against this file by a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import orjson

from app.journal import asides  # noqa: F401 - their types belong to the vocabulary
from app.journal.event import Event, without_none
from app.messages import StopReason, Usage

Prompt: TypeAlias = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SessionCreated(Event):
    """First event of every log."""

    type = "session_created"
    is_of_session = True
    model: str
    provider: str
    title: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SessionUpdated(Event):
    """A session's fields were changed; the payload is the changed fields with their new values."""

    type = "session_updated"
    is_of_session = True
    changes: Mapping[str, Any]

    def payload(self) -> bytes:
        """Write the changed fields themselves."""
        return orjson.dumps(self.changes)


@dataclass(frozen=True, slots=True)
class SessionArchived(Event):
    """The session was archived; streams end with it."""

    type = "session_archived"
    is_of_session = True
    archived_at: str


@dataclass(frozen=True, slots=True)
class SessionUnarchived(Event):
    """The session takes turns again."""

    type = "session_unarchived"
    is_of_session = True


@dataclass(frozen=True, slots=True)
class TurnQueued(Event):
    """A turn was accepted behind a live one."""

    type = "turn_queued"
    number: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class TurnStarted(Event):
    """A turn is the session's live one now."""

    type = "turn_started"
    number: int
    prompt: Prompt
    attempt: int


@dataclass(frozen=True, slots=True)
class TurnSteered(Event):
    """Words of a caller entered the live turn, before its next step."""

    type = "turn_steered"
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class TurnResumed(Event):
    """Another attempt took the turn over."""

    type = "turn_resumed"
    attempt: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class TurnUsage:
    """Tokens of a turn over all its attempts, as the providers reported them."""

    input_tokens: int
    output_tokens: int
    cache_creation_tokens: int
    cache_read_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "TurnUsage":
        """Add the total to a usage."""
        return cls(
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_creation_tokens,
            usage.cache_read_tokens,
            usage.total_tokens,
        )


@dataclass(frozen=True, slots=True)
class TurnCompleted(Event):
    """Terminal: the answer is whole."""

    type = "turn_completed"
    is_terminal = True
    text: str
    usage: TurnUsage
    steps: int
    tool_calls: int
    structured_output: Any = None

    def payload(self) -> bytes:
        """Leave `structured_output` out where no schema asked for one."""
        return without_none(self, "structured_output")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn failed: `code` is always `AGENT_ERROR`, `reason` is finer."""

    code: Literal["AGENT_ERROR"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnFailed(Event):
    """Terminal: the turn could not go on; `text` is what there was so far."""

    type = "turn_failed"
    is_terminal = True
    error: Failure
    text: str
    usage: TurnUsage


@dataclass(frozen=True, slots=True)
class TurnInterrupted(Event):
    """Terminal: someone stopped the turn; `text` is what was streamed, `note` the caller's words where there were any."""

    type = "turn_interrupted"
    is_terminal = True
    reason: Literal["user", "archived", "superseded"]
    note: str | None
    text: str
    usage: TurnUsage

    def payload(self) -> bytes:
        """Leave `note` out where there is none."""
        return without_none(self, "note")


@dataclass(frozen=True, slots=True)
class TurnCancelled(Event):
    """Terminal: a queued turn that never ran."""

    type = "turn_cancelled"
    is_terminal = True
    reason: Literal["user", "archived"]


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A model is asked."""

    type = "step_started"
    step: int


@dataclass(frozen=True, slots=True)
class StepCompleted(Event):
    """The model's answer of this step is whole."""

    type = "step_completed"
    step: int
    stop_reason: StopReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class StepDiscarded(Event):
    """What this step showed since `from_seq` is void; the step is asked again."""

    type = "step_discarded"
    step: int
    reason: str
    from_seq: int


@dataclass(frozen=True, slots=True)
class ReasoningDelta(Event):
    """A piece of reasoning."""

    type = "reasoning_delta"
    step: int
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningComplete(Event):
    """All reasoning of the step."""

    type = "reasoning_complete"
    step: int
    content: str


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """A piece of the answer."""

    type = "text_delta"
    step: int
    delta: str


@dataclass(frozen=True, slots=True)
class TextComplete(Event):
    """All text of the step: its deltas joined."""

    type = "text_complete"
    step: int
    content: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta(Event):
    """A piece of a call's arguments; `name` comes with the first piece."""

    type = "tool_call_delta"
    step: int
    id: str
    name: str | None
    args_delta: str

    def payload(self) -> bytes:
        """Leave `name` out after the first piece."""
        return without_none(self, "name")


@dataclass(frozen=True, slots=True)
class ToolCallRequested(Event):
    """The model asks for a call; on record before the tool runs."""

    type = "tool_call_requested"
    step: int
    id: str
    name: str
    args: Any


@dataclass(frozen=True, slots=True)
class ToolExecutionStarted(Event):
    """The tool runs; on record before it does."""

    type = "tool_execution_started"
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolExecutionTimedOut(Event):
    """The tool took too long and was stopped; its error result follows."""

    type = "tool_execution_timed_out"
    id: str
    name: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class ToolExecutionCompleted(Event):
    """One tool ended; told as each ends."""

    type = "tool_execution_completed"
    id: str
    name: str
    result: str
    is_error: bool
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ToolCallPending(Event):
    """The turn waits for a caller: for a call's result (`external`), or for leave to run it (`approval`)."""

    type = "tool_call_pending"
    id: str
    name: str
    args: Any
    kind: Literal["external", "approval"]
    expires_at: str


@dataclass(frozen=True, slots=True)
class ToolResultReceived(Event):
    """The result entered the transcript, in request order."""

    type = "tool_result_received"
    id: str
    name: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A model call failed and is tried again; `model` and `provider` name the fallback that is asked next, if any."""

    type = "retrying"
    attempt: int
    max_attempts: int
    reason: str
    delay_ms: int
    model: str | None = None
    provider: str | None = None

    def payload(self) -> bytes:
        """Leave `model` and `provider` out where the same model is asked again."""
        return without_none(self, "model", "provider")


Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta

DELTAS = frozenset(delta.type for delta in get_args(Delta))
"""Types of events that bear a piece of what a later one holds whole."""

EVENTS: dict[str, type[Event]] = {event.type: event for event in Event.__subclasses__()}
"""Every type that this version writes."""

RESERVED = frozenset({"skills_resolved", "skill_resolution_failed"})
"""Types of the contract that a filter may name already, though nothing writes them yet."""

TERMINAL = frozenset(name for name, event in EVENTS.items() if event.is_terminal)
