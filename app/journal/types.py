"""Every event type and its payload: the public vocabulary of the log.

How an event is stored and sent is in `app/journal/frames.py`. `docs/events.md` is held against this file by a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias

import orjson

from app.messages import StopReason, Usage

Prompt: TypeAlias = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have in common. A subclass's fields are its payload, in order."""

    type: ClassVar[str]
    is_of_session: ClassVar[bool] = False
    """Whether it stands outside any turn."""
    is_terminal: ClassVar[bool] = False
    """Whether its turn has ended with it."""

    def payload(self) -> bytes:
        """Write the own fields as a JSON object."""
        return orjson.dumps(self)


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
        return _without_none(self, "note")


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
        return _without_none(self, "name")


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
class ToolResultReceived(Event):
    """The result entered the transcript, in request order."""

    type = "tool_result_received"
    id: str
    name: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A model call failed and is tried again; `attempt` is the try that failed."""

    type = "retrying"
    attempt: int
    max_attempts: int
    reason: str
    delay_ms: int


@dataclass(frozen=True, slots=True)
class HookStarted(Event):
    """A hook that the turn waits for was asked."""

    type = "hook_started"
    hook_id: str
    point: str


@dataclass(frozen=True, slots=True)
class HookCompleted(Event):
    """The hook gave a decision that it may give."""

    type = "hook_completed"
    hook_id: str
    point: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class HookFailed(Event):
    """The hook gave no decision, or one that it may not give; the turn ends with it unless the hook only observes."""

    type = "hook_failed"
    hook_id: str
    point: str
    error: str


@dataclass(frozen=True, slots=True)
class HookDenied(Event):
    """The hook said no; the hooks after it are not asked."""

    type = "hook_denied"
    hook_id: str
    point: str
    reason: str


@dataclass(frozen=True, slots=True)
class HookRewriteApplied(Event):
    """The hook changed what the turn goes on with; `fields` names what, not how."""

    type = "hook_rewrite_applied"
    hook_id: str
    point: str
    fields: list[str]


Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta

EVENTS: dict[str, type[Event]] = {event.type: event for event in Event.__subclasses__()}
"""Every type that this version writes."""

RESERVED = frozenset({
    "turn_steered", "tool_call_pending", "budget_warning",
    "compaction_started", "compaction_completed", "compaction_failed",
    "skills_resolved", "skill_resolution_failed",
})  # fmt: skip
"""Types of the contract that a filter may name already, though nothing writes them yet."""

TERMINAL = frozenset(name for name, event in EVENTS.items() if event.is_terminal)


def _without_none(event: Event, name: str) -> bytes:
    own = {field.name: getattr(event, field.name) for field in fields(event)}
    if own[name] is None:
        del own[name]
    return orjson.dumps(own)
