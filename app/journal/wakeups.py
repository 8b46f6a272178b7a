"""Wake-ups between nodes: a session's id and its newest number, never the event. Losing all of them costs time, nothing else.

One connection listens and tells. What is to be told is collected per tick, since a NOTIFY in each commit takes a global lock
and halves throughput. The connection proves itself alive by a heartbeat, because a frozen one raises nothing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import structlog

from app import clock
from app.db.engine import Database
from app.errors import StoreUnavailable

CHANNEL = "suricate"
TICK_SECONDS = 0.01
HEARTBEAT_SECONDS = 5.0
HEARTBEAT_LIMIT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 5.0
PAYLOAD_BYTES = 7_900  # Postgres refuses 8,000

log = structlog.get_logger()


class Wakeups(Protocol):
    """What carries wake-ups between nodes."""

    def tell(self, session_id: str, seq: int) -> None:
        """Tell the other nodes, soon, that a session's log has grown to a number; 0: that it is gone."""

    async def run(self) -> None:
        """Carry wake-ups for as long as the process lives."""

    @property
    def is_listening(self) -> bool:
        """Whether wake-ups of others arrive now."""


class PostgresWakeups:
    """Wake-ups over LISTEN and NOTIFY.

    Args:
        node_id: what marks this node's own, so that it can pass them over.
        on_wakeup: called with a session's id and number, told by another node.
        on_gap: called after each (re)connect: what came before may have been missed.
    """

    def __init__(
        self, database: Database, node_id: str, on_wakeup: Callable[[str, int], None], on_gap: Callable[[], None]
    ) -> None:
        self._database = database
        self._node_id = node_id
        self._on_wakeup = on_wakeup
        self._on_gap = on_gap
        self._news: dict[str, int] = {}
        self._has_news = asyncio.Event()
        self.is_listening = False

    def tell(self, session_id: str, seq: int) -> None:
        """Tell the other nodes, within a tick, that a session's log has grown to a number; 0: that it is gone."""
        self._news[session_id] = max(seq, self._news.get(session_id, 0)) if seq else 0
        self._has_news.set()

    async def run(self) -> None:
        """Listen and tell until cancelled; reconnect with growing pauses."""
        pause = 0.1
        while True:
            began = clock.monotonic()
            try:
                await self._listen_and_tell()
            except (StoreUnavailable, TimeoutError) as error:
                self.is_listening = False
                log.warning("wakeups_lost_database", error=str(error.__cause__ or error))
            pause = 0.1 if clock.monotonic() - began > HEARTBEAT_SECONDS else min(pause * 2, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _listen_and_tell(self) -> None:
        async with self._database.dedicated("wakeups") as db:
            await db.add_listener(CHANNEL, self._on_notification)
            self.is_listening = True
            self._on_gap()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._has_news.wait()
                await self._tell(db)
                await asyncio.sleep(TICK_SECONDS)

    async def _tell(self, db: Any) -> None:
        news, self._news = self._news, {}
        self._has_news.clear()
        async with asyncio.timeout(HEARTBEAT_LIMIT_SECONDS):
            for payload in _payloads(self._node_id, news) or [""]:
                await db.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)

    def _on_notification(self, _db: object, _pid: int, _channel: str, payload: str) -> None:
        sender, *told = payload.split(",")
        if sender == self._node_id:
            return
        for item in told:
            session_id, _, seq = item.partition(":")
            self._on_wakeup(session_id, int(seq))


def _payloads(node_id: str, news: dict[str, int]) -> list[str]:
    payloads: list[str] = []
    for session_id, seq in news.items():
        item = f",{session_id}:{seq}"
        if not payloads or len(payloads[-1]) + len(item) > PAYLOAD_BYTES:
            payloads.append(node_id)
        payloads[-1] += item
    return payloads
