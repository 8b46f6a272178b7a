"""One attempt's pen: keeps the order of what its turn says and decides when it goes to the writer.

Deltas that come faster than the interval are joined into one event; the first of a step goes at once. One entry is under way
at a time, what comes meanwhile makes the next. Nothing here is shown to anyone: that is for after the commit.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from app import clock
from app.journal.entry import Appended, Entry, TurnChange
from app.journal.event import Event
from app.journal.types import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from app.journal.writer import Writer
from app.messages import Message
from app.pace import Pace

MOST_CHARACTERS = 256 * 1024  # of deltas not yet under way; past it, who speaks waits


@dataclass(slots=True)
class _Joined:
    """Deltas of one kind that will be one event."""

    first: Delta
    parts: list[str] = field(default_factory=list)

    def event(self) -> Event:
        text = "".join(self.parts)
        match self.first:
            case TextDelta(step):
                return TextDelta(step, text)
            case ReasoningDelta(step):
                return ReasoningDelta(step, text)
            case ToolCallDelta(step, id_, name):
                return ToolCallDelta(step, id_, name, text)


class Recorder:
    """Writes one attempt's events, in the order they are put.

    Args:
        fence: what every entry names; a stale one ends the recorder.
        pace: how long deltas are gathered.
        on_failure: called once when an entry could not be written, from the event loop.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        session_id: str,
        turn_id: str,
        fence: int,
        pace: Pace,
        on_failure: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._session_id, self._turn_id, self._fence = session_id, turn_id, fence
        self._pace = pace
        self._on_failure = on_failure
        self._pending: list[Event | _Joined] = []
        self._characters = 0
        self._last: Event | None = None
        self._number = 0
        self._due_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: asyncio.Future[Appended] | None = None
        self.failure: BaseException | None = None
        self.unwritten: Sequence[Event] = []

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the database that the speaker should wait too."""
        return self._characters > MOST_CHARACTERS

    def take_number(self) -> int:
        """Give the number of an entry that another hand writes for this attempt."""
        self._number += 1
        return self._number

    def put_delta(self, event: Delta, text: str) -> None:
        """Take one delta; it is joined with those before it that have not left yet.

        Args:
            text: the delta's own words, as the event bears them.
        """
        last = self._pending[-1] if self._pending else None
        if isinstance(last, _Joined) and _belongs(last.first, event):
            last.parts.append(text)
        else:
            self._pending.append(_Joined(event, [text]))
        self._characters += len(text)
        if self._timer is None:
            self._flush_when_due(is_first=type(self._last) is not type(event))
        self._last = event

    def put(self, *events: Event) -> None:
        """Take events that are to go at once, behind what waits already."""
        self._pending.extend(events)
        self._last = None
        self._flush()

    async def write(
        self,
        events: Sequence[Event],
        messages: Sequence[Message] = (),
        change: TurnChange | None = None,
        *,
        is_boundary: bool = False,
    ) -> Appended:
        """Write everything put so far and then these, and return when they are durable.

        Raises:
            Fenced: another owns the turn, or something waits for what would end; nothing was written, and what had been put
                before is in `unwritten`.
        """
        while self._under_way is not None:
            await asyncio.wait([self._under_way])
        if self.failure is not None:
            raise self.failure
        self.unwritten = self._take_pending()
        appended = await self._submit([*self.unwritten, *events], messages, change, is_boundary=is_boundary)
        self.unwritten = []
        self._last = None
        return appended

    async def settle(self) -> None:
        """Return when everything put so far is durable.

        Raises:
            Fenced: another owns the turn; what was not written yet never will be.
        """
        while self._pending or self._under_way is not None:
            self._flush()
            if self._under_way is not None:
                await asyncio.wait([self._under_way])
            if self.failure is not None:
                break
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Drop what has not left yet and stop the timer."""
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_when_due(self, *, is_first: bool) -> None:
        now = clock.monotonic()
        if is_first or now >= self._due_at:
            self._flush()
        elif self._under_way is None:
            self._timer = self._loop.call_later(self._due_at - now, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        if not self._pending or self._under_way is not None or self.failure is not None:
            return
        self._submit(self._take_pending(), (), None)

    def _take_pending(self) -> list[Event]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending and isinstance(self._pending[-1], _Joined):
            self._due_at = clock.monotonic() + self._pace.gathering_seconds
        events = [item.event() if isinstance(item, _Joined) else item for item in self._pending]
        self._pending, self._characters = [], 0
        return events

    def _submit(
        self, events: Sequence[Event], messages: Sequence[Message], change: TurnChange | None, *, is_boundary: bool = False
    ) -> asyncio.Future[Appended]:
        self._number += 1
        entry = Entry(self._session_id, self._fence, self._turn_id, events, messages, change, self._number, is_boundary)
        self._under_way = self._writer.submit(entry)
        self._under_way.add_done_callback(partial(self._on_written, entry))
        return self._under_way

    def _on_written(self, entry: Entry, outcome: asyncio.Future[Appended]) -> None:
        self._under_way = None
        if outcome.cancelled() or ((entry.ends or entry.is_boundary) and outcome.exception() is not None):
            return  # an end that was refused is its writer's to settle: something may wait for it
        self.failure = outcome.exception()
        if self.failure is not None:
            self.close()
            self._on_failure()
        elif self._pending:
            is_plain = any(not isinstance(item, _Joined) for item in self._pending)
            self._flush_when_due(is_first=is_plain)


def _belongs(first: Delta, event: Delta) -> bool:
    if isinstance(first, ToolCallDelta):
        return isinstance(event, ToolCallDelta) and event.id == first.id
    return type(first) is type(event) and first.step == event.step
