"""Server-Sent Events: one subscription on one connection.

Who can end a stream, and what its reader sees:

    the reader leaves            nothing; the subscription is forgotten
    the session is archived      `session_archived`, then the end; a reconnect that has everything gets 204
    the session is erased        the end; a reconnect gets 404
    a turn's stream, its end     the turn's terminal event, then the end; a reconnect that has everything gets 204
    the credential lapses        the end, within 30 seconds; a reconnect gets 401
    this node stops or drains    `stream_draining` without id, then the end; a reconnect goes on elsewhere
    the database is away         the end; a reconnect goes on from the last id
    the reader does not read     cut off after the send timeout; a reconnect goes on from the last id

Frames are ready bytes; those that are at hand together go out as one chunk.
"""

import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.responses import Response
from starlette.types import Message, Send

from app.api.dependencies import House
from app.errors import StoreUnavailable
from app.journal.reader import Filter
from app.journal.subscriptions import Subscription
from app.journal.types import TERMINAL

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
DRAINING = b"event: stream_draining\ndata: {}\n\n"
CHUNK_BYTES = 256 * 1024
GRACE_SECONDS = 1.0  # for the farewell, once the server is told to stop

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stream is to show.

    Args:
        head: the session's last number, where it is known: a cursor beyond it is told so and set back.
        follow: whether to stay open at the head.
        ends_with_turn: whether to end after the terminal event of the turn that `which` names.
    """

    session_id: str
    after: int
    which: Filter
    head: int | None = None
    follow: bool = True
    ends_with_turn: bool = False

    @property
    def reset_to(self) -> int | None:
        """Where a cursor beyond the log is set back to; None where it is not."""
        return self.head if self.head is not None and self.after > self.head else None

    @property
    def needed(self) -> Filter:
        """What must be read: more than is shown where the turn's end is not."""
        if self.ends_with_turn and self.which.types is not None:
            return replace(self.which, types=self.which.types | TERMINAL)
        return self.which


def respond(house: House, reading: Reading, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Stream a session's events from behind a cursor."""
    return _Stream(
        _events(house, reading),
        status_code=status,
        headers=HEADERS | dict(headers or {}),
        sep="\n",
        ping=house.sse_ping_seconds,
        ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
        shutdown_grace_period=GRACE_SECONDS,
    )


class _Stream(EventSourceResponse):
    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send without a timer for each chunk, a third of its cost: `app.api.server` cuts off who does not read."""
        await send(message)


async def _events(house: House, reading: Reading) -> AsyncGenerator[bytes, None]:
    yield _opening(reading.reset_to)
    after = reading.after if reading.reset_to is None else reading.reset_to
    subscribing = house.journal.subscriptions.open(house.caller.realm, reading.session_id, after=after, which=reading.needed)
    watched, counted = house.gate.streaming, house.quotas.stream
    with subscribing as subscription, watched(house.caller, subscription.end), counted(house.caller):
        try:
            async with aclosing(_chunks(subscription, reading)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except StoreUnavailable:
            log.warning("stream_lost_database", session_id=reading.session_id, after=subscription.cursor)


async def _chunks(subscription: Subscription, reading: Reading) -> AsyncGenerator[bytes, None]:
    async with aclosing(subscription.read(follow=reading.follow)) as batches:
        async for batch in batches:
            for chunk in _joined([shown.frame for shown in batch if reading.which.wants(shown.type, shown.turn_id)]):
                yield chunk
            if reading.ends_with_turn and batch[-1].type in TERMINAL:
                return
    if subscription.is_stopped:
        yield DRAINING


def _joined(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Join frames to chunks of some size: between two of them it is seen whether the reader still reads."""
    begin, size = 0, 0
    for end, frame in enumerate(frames, 1):
        size += len(frame)
        if size >= CHUNK_BYTES or end == len(frames):
            yield b"".join(frames[begin:end])
            begin, size = end, 0


def _opening(reset_to: int | None) -> bytes:
    """The first bytes, sent at once; after them, where the cursor was beyond the log, the word that it was set back."""
    opening = f"retry: {random.randint(1000, 3000)}\n: suricate\n\n"  # noqa: S311 - jitter
    if reset_to is not None:
        opening += f'event: stream_reset\ndata: {{"last_seq":{reset_to}}}\n\n'
    return opening.encode()
