"""Readers of the log: each has a cursor and a wake-up, and catching up is the same read as following live.

A session that somebody here reads has a channel: a short ring of its newest frames and the set of its readers. The ring is a
cache of the table and never the source: a reader behind it, or in front of a gap in it, reads the table in pages. No queue
grows per reader and no connection is held while one waits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from app import telemetry
from app.db.engine import EVERY_REALM, Database
from app.errors import StoreUnavailable
from app.journal.entry import Appended
from app.journal.frames import frame
from app.journal.reader import EVERYTHING, PAGE_BYTES, Filter, heads, page

RING_EVENTS = 512
RING_BYTES = PAGE_BYTES
POLL_SECONDS = 1.0  # how late an event of another node can be seen while every wake-up is lost


@dataclass(frozen=True, slots=True)
class Shown:
    """One event ready to be sent."""

    seq: int
    type: str
    turn_id: str | None
    frame: bytes


@dataclass(slots=True)
class _Channel:
    """What readers of one session share."""

    head: int = 0
    """The highest number known to be durable; 0 is not known yet."""
    doubts: int = 0
    """Grows when the table should be asked although no number is known to be new."""
    ring: deque[Shown] = field(default_factory=deque)
    ring_bytes: int = 0
    readers: set["Subscription"] = field(default_factory=set)

    def advance(self, head: int | None) -> None:
        self.head = max(self.head, head or 0)
        self.doubts += head is None
        for reader in self.readers:
            reader.wake()

    def extend(self, appended: Appended) -> None:
        if self.ring and self.ring[-1].seq + 1 != appended.first_seq:
            self._drop(len(self.ring))  # two hands wrote and the later told first: what is missing is in the table
        if appended.first_seq > self.head and appended.bodies is not None:
            for shown in _shown(appended):
                self.ring.append(shown)
                self.ring_bytes += len(shown.frame)
        while len(self.ring) > RING_EVENTS or (self.ring_bytes > RING_BYTES and len(self.ring) > 1):
            self._drop(1)
        self.advance(appended.last_seq)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self.ring_bytes -= len(self.ring.popleft().frame)

    def after(self, seq: int) -> list[Shown] | None:
        """Return what the ring has right behind a cursor, or None where the table must be asked."""
        if not self.ring or not self.ring[0].seq <= seq + 1 <= self.ring[-1].seq:
            return None
        newest_first = islice(reversed(self.ring), self.ring[-1].seq - seq)  # from the end: most are there already
        return list(newest_first)[::-1]


_GONE = _Channel()


class Subscription:
    """One reader of one session, at a cursor. Made by `Subscriptions.open`."""

    def __init__(
        self, subscriptions: "Subscriptions", channel: _Channel, realm: str, session_id: str, after: int, which: Filter
    ) -> None:
        self._all = subscriptions
        self._realm = realm
        self._channel = channel
        self._session_id = session_id
        self._which = which
        self._loop = asyncio.get_running_loop()
        self._is_woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._asked = -1
        self._is_ended = False
        self.cursor = after

    def wake(self) -> None:
        """Make a waiting reader look again."""
        self._is_woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """End this reading, whatever there is to read."""
        self._is_ended = True
        self.wake()

    @property
    def is_stopped(self) -> bool:
        """Whether reading ended because this node drains."""
        return self._all.is_stopped

    @property
    def lag(self) -> int:
        """How many events the reader is behind what is known to be durable."""
        return max(0, self._channel.head - self.cursor)

    async def read(self, *, follow: bool = True) -> AsyncGenerator[list[Shown], None]:
        """Yield what passes the filter after the cursor, oldest first, in batches that are never empty.

        Ends when everything was yielded and the session is archived or gone, or this node drains; without `follow`, at the
        head. Never waits with an empty batch in hand, so a caller may stop it between two.

        Raises:
            StoreUnavailable: the table could not be read; the cursor stands where the last batch ended.
        """
        while not self._is_ended:
            self._is_woken = False
            batch, is_over = self._from_ring(), False
            if batch is None and self._must_ask:
                batch, is_over = await self._from_table(follow=follow)
            elif batch is None:
                is_over = self._all.is_stopped
                if not is_over:
                    await self._news()
            if batch:
                yield batch
            if is_over:
                return

    async def _news(self) -> None:
        if not self._is_woken:
            self._waiter = self._loop.create_future()
            await self._waiter

    @property
    def _must_ask(self) -> bool:
        return self._channel.head > self.cursor or self._asked != self._channel.doubts

    def _from_ring(self) -> list[Shown] | None:
        shown = self._channel.after(self.cursor)
        if shown is None:
            return None
        self.cursor = shown[-1].seq
        if shown[-1].type == "session_archived":
            self._asked = -1  # the table knows whether the session still is archived
        return [event for event in shown if self._which.wants(event.type, event.turn_id)]

    async def _from_table(self, *, follow: bool) -> tuple[list[Shown], bool]:
        doubts, head = self._channel.doubts, self._channel.head
        async with self._all.database.transaction(self._realm) as db:
            found = await page(db, self._session_id, self.cursor, self._which)
        if found is None:
            return [], True
        if found.last_seq > self._channel.head:
            self._channel.advance(found.last_seq)  # the others too: the poll tells only of what no reader has seen
        elif found.last_seq < head == self._channel.head:
            # A wake-up told of what there is not; believed, it would be looked for without end.
            self._channel.head = found.last_seq
        self.cursor = found.read_to
        if found.is_last:
            self._asked = doubts
        is_over = found.is_last and (found.archived_at is not None or not follow)
        return [Shown(e.seq, e.type, e.turn_id, frame(e.seq, e.type, e.body)) for e in found.events], is_over


class Subscriptions:
    """All readers of this process."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.is_stopped = False
        self._channels: dict[str, _Channel] = {}

    @contextmanager
    def open(self, realm: str, session_id: str, *, after: int = 0, which: Filter = EVERYTHING) -> Iterator[Subscription]:
        """Read a session's log from behind a cursor; the block's end forgets the reader."""
        channel = self._channels.setdefault(session_id, _Channel())
        subscription = Subscription(self, channel, realm, session_id, after, which)
        channel.readers.add(subscription)
        telemetry.STREAMS.inc()
        try:
            yield subscription
        finally:
            telemetry.STREAMS.dec()
            channel.readers.discard(subscription)
            if not channel.readers and self._channels.get(session_id) is channel:
                del self._channels[session_id]

    def publish(self, appended: Appended) -> None:
        """Show an entry to the readers of its session, after its commit."""
        channel = self._channels.get(appended.entry.session_id)
        if channel is not None:
            channel.extend(appended)

    def advance(self, session_id: str, seq: int | None) -> None:
        """Tell readers of a session that another hand has written up to a number; None: that the table is worth a look."""
        channel = self._channels.get(session_id)
        if channel is not None:
            channel.advance(seq)

    def look_again(self) -> None:
        """Make every reader ask the table: wake-ups may have been missed."""
        for session_id in list(self._channels):
            self.advance(session_id, None)

    def stop(self) -> None:
        """End every reading at the head, those to come too: this node drains."""
        self.is_stopped = True
        self.look_again()

    def resume(self) -> None:
        """Let readings last again."""
        self.is_stopped = False

    def lag(self) -> int:
        """How many events the slowest reader is behind."""
        return max((reader.lag for channel in self._channels.values() for reader in channel.readers), default=0)

    async def poll(self) -> None:
        """Look for what no wake-up told of, for as long as the process lives."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._look_for_news()
            except StoreUnavailable:
                continue

    async def _look_for_news(self) -> None:
        read = list(self._channels)
        if not read:
            return
        async with self.database.transaction(EVERY_REALM) as db:
            found = await heads(db, read)
        for session_id in read:
            if session_id not in found or found[session_id] > self._channels.get(session_id, _GONE).head:
                self.advance(session_id, found.get(session_id))


def _shown(appended: Appended) -> Iterator[Shown]:
    entry = appended.entry
    for seq, (event, text) in enumerate(zip(entry.events, appended.bodies or (), strict=True), appended.first_seq):
        turn_id = None if event.is_of_session else entry.turn_id
        yield Shown(seq, event.type, turn_id, frame(seq, event.type, text))
