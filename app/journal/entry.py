"""What is asked of the ledger: one entry is all that one hand wants to write to one session at once, whole or not at all."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.journal.event import Event
from app.journal.types import Failure
from app.messages import NO_USAGE, Message, StopReason, Usage

EndStatus: TypeAlias = Literal["completed", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a live turn ends; it frees the session and makes the fence that wrote it stale."""

    status: EndStatus
    stop_reason: StopReason | None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Who was asked, as bills name it."""

    provider: str
    name: str


@dataclass(frozen=True, slots=True)
class TurnChange:
    """What an entry adds to its turn, and the session's sums with it.

    Args:
        steps, tool_calls, usage: added to what is there.
        text: the turn's text from now on; None leaves it.
        assistant_text: the session's last assistant text from now on; None leaves it.
        spent_tokens, running_ms: counted against budgets.
        structured_output: JSON text of the answer as a value; None leaves it.
        schema_warnings: sentences; empty leaves them.
        calls: model calls that the usage is of and that were not counted before.
        model: whose calls and usage these are; None where there are none.
        credential: who asked for them outside a turn; those of a turn are its starter's.
    """

    steps: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    text: str | None = None
    assistant_text: str | None = None
    ending: Ending | None = None
    spent_tokens: int = 0
    running_ms: int = 0
    structured_output: str | None = None
    schema_warnings: Sequence[str] = ()
    calls: int = 0
    model: Model | None = None
    credential: str | None = None

    @classmethod
    def of(cls, usage: Usage, model: Model) -> "TurnChange":
        """Return what a model call adds that is no step; nothing where it has used nothing."""
        if usage == NO_USAGE:
            return cls()
        return cls(usage=usage, spent_tokens=usage.total_tokens, calls=1, model=model)


@dataclass(frozen=True, slots=True)
class Entry:
    """Events, messages and changes for one session, written in one statement under one fence.

    Args:
        fence: the session's fence as the writer of this entry knows it; stale means that nothing is written.
        number: from 1 for each fence of a worker, growing; 0 where a transaction writes, which needs no reconciling.
        turn_id: the turn of all events that stand in one and of all messages; None outside a turn.
        is_boundary: whether the turn's step is over with it, so that it is refused while something waits for that moment.
        is_settled: whether the caller, under the session's lock, deals with what waits: queued turns, words for the live one.
    """

    session_id: str
    fence: int
    turn_id: str | None
    events: Sequence[Event]
    messages: Sequence[Message] = ()
    change: TurnChange | None = None
    number: int = 0
    is_boundary: bool = False
    is_settled: bool = False

    @property
    def ends(self) -> bool:
        """Whether the turn is over with this entry."""
        return self.change is not None and self.change.ending is not None

    @property
    def is_held(self) -> bool:
        """Whether it is refused while something waits for the moment that it brings."""
        return (self.ends or self.is_boundary) and not self.is_settled


@dataclass(frozen=True, slots=True)
class Appended:
    """An entry that is durable.

    Args:
        first_seq, last_seq: numbers of its events; `last_seq` is one less where it had none.
        fence: the session's fence after it.
        bodies: the stored JSON texts, in order; None where an unknown commit was found to be kept.
    """

    entry: Entry
    first_seq: int
    last_seq: int
    fence: int
    bodies: Sequence[str] | None


@dataclass(slots=True)
class Waiting:
    """An entry on its way to the commit, and who waits for it."""

    entry: Entry
    outcome: asyncio.Future[Appended]
