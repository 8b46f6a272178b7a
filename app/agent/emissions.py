"""What the loop tells its caller; the caller makes it durable before it asks for the next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.agent.compaction import Compacted
from app.agent.transcript import Call
from app.journal.entry import TurnChange
from app.journal.event import Event
from app.journal.types import Delta
from app.messages import Message


@dataclass(frozen=True, slots=True)
class Say:
    """A delta; `text` is its own words."""

    event: Delta
    text: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Events that are to go at once; the loop does not wait for them."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Record:
    """Events, messages and counters that must be durable before the loop goes on.

    Args:
        is_boundary: whether a step is over with it, so that what waits for that moment comes in.
        steered: filled by the caller: words that entered the transcript behind it. A turn that would have ended goes on.
    """

    events: Sequence[Event]
    messages: Sequence[Message] = ()
    change: TurnChange | None = None
    is_boundary: bool = False
    steered: list[Message] = field(default_factory=list)

    @property
    def ends(self) -> bool:
        """Whether the turn is over with it, unless something steers it on."""
        return self.change is not None and self.change.ending is not None


@dataclass(frozen=True, slots=True)
class Wish:
    """A call that somebody outside is to answer.

    Args:
        seconds: how long it may wait; None is the server's limit.
    """

    call: Call
    kind: Literal["external", "approval"]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Pend:
    """Calls begin to wait for callers; the loop goes on with what else there is to do."""

    wishes: Sequence[Wish]


@dataclass(frozen=True, slots=True)
class SumUp:
    """A summary stands in for all but the last messages that the model reads."""

    compacted: Compacted


@dataclass(frozen=True, slots=True)
class Await:
    """Nothing is left to do but wait for callers. The loop goes on once no call is pending, with their answers in its calls."""

    calls: Sequence[Call]


@dataclass(frozen=True, slots=True)
class Discard:
    """What the step has shown so far is void."""

    step: int
    reason: str


Emission: TypeAlias = Say | Tell | Record | Pend | Await | SumUp | Discard
