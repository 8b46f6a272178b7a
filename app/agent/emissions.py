"""What the loop tells its caller; the caller makes it durable before it asks for the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from app.journal.entry import TurnChange
from app.journal.types import Delta, Event
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
    """Events, messages and counters that must be durable before the loop goes on."""

    events: Sequence[Event]
    messages: Sequence[Message] = ()
    change: TurnChange | None = None


@dataclass(frozen=True, slots=True)
class Discard:
    """What the step has shown so far is void."""

    step: int
    reason: str


Emission: TypeAlias = Say | Tell | Record | Discard
