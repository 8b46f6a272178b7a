"""Events of what happens beside a turn's own work: hooks, budgets, compaction."""

from dataclasses import dataclass
from typing import Literal

from app.journal.event import Event
from app.messages import Usage


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


@dataclass(frozen=True, slots=True)
class BudgetWarning(Event):
    """Four fifths of a limit are used up; told once for each limit."""

    type = "budget_warning"
    budget_type: Literal["tokens", "time", "tool_calls"]
    used: float
    limit: float
    percent: int


@dataclass(frozen=True, slots=True)
class CompactionStarted(Event):
    """Older messages are being summed up for the model."""

    type = "compaction_started"
    input_tokens: int
    message_count: int


@dataclass(frozen=True, slots=True)
class CompactionCompleted(Event):
    """A summary stands in for older messages from now on; none of them is deleted."""

    type = "compaction_completed"
    summary_tokens: int
    messages_before: int
    messages_after: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class CompactionFailed(Event):
    """The summary could not be had, or did not shrink what the model reads."""

    type = "compaction_failed"
    error: str
    usage: Usage
