"""Wake-ups between nodes: a session's id and its newest number, never the event. Losing all of them costs time, nothing else.

What is to be told is collected per tick, however many commits fall into it, and goes to the other nodes over a carrier. Knows
nothing of what the carrier is. Its connection has to prove itself alive at each tick and by a heartbeat, because a frozen one
raises nothing.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol, TypeAlias

import structlog

from app import clock
from app.errors import StoreUnavailable

TICK_SECONDS = 0.01
HEARTBEAT_SECONDS = 5.0
HEARTBEAT_LIMIT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 5.0
LAST_WORDS_SECONDS = 0.5
PAYLOAD_BYTES = 7_900  # a NOTIFY of 8,000 is refused
MOST_NEWS = 10_000  # sessions that are remembered while nothing can be told; of others the poll tells

_ITEM = re.compile(r",([\w-]+):([0-9]{1,18})(?=,|$)", re.ASCII)

Send: TypeAlias = Callable[[Sequence[str]], Awaitable[None]]
"""Sends one or more payloads, and waits for a sign of life from the other side."""

log = structlog.get_logger()


class Carrier(Protocol):
    """What brings payloads from one node to all that listen, the sender perhaps among them."""

    name: str
    is_needed: bool
    """Whether a node that is cut off from it should get no traffic."""

    def connected(self, on_payload: Callable[[str], None]) -> AbstractAsyncContextManager[Send]:
        """Connect for the length of the block. What is sent from its beginning on arrives.

        Raises:
            StoreUnavailable, OSError: the connection could not be opened, or broke inside the block.
        """


class Wakeups:
    """One node's word to the others, and theirs to it.

    Args:
        node_id: what marks this node's own, so that it can pass them over.
        on_wakeup: called with a session's id and number, told by another node.
        on_gap: called after each (re)connect: what came before may have been missed.
    """

    def __init__(
        self, carrier: Carrier, node_id: str, on_wakeup: Callable[[str, int], None], on_gap: Callable[[], None]
    ) -> None:
        self._carrier = carrier
        self._node_id = node_id
        self._on_wakeup = on_wakeup
        self._on_gap = on_gap
        self._news: dict[str, int] = {}
        self._has_news = asyncio.Event()
        self._is_told = asyncio.Event()
        self._is_told.set()
        self.is_needed = carrier.is_needed
        self.is_listening = False
        """Whether wake-ups of others arrive now."""

    def tell(self, session_id: str, seq: int) -> None:
        """Tell the other nodes, within a tick, that a session's log has grown to a number; 0: to look what became of the id."""
        if len(self._news) >= MOST_NEWS and session_id not in self._news:
            return
        self._news[session_id] = max(seq, self._news.get(session_id, 0)) if seq else 0
        self._has_news.set()
        self._is_told.clear()

    async def flush(self) -> None:
        """Return once all that was told has left, or half a second later: what is not told by then, polling finds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._is_told.wait()

    async def run(self) -> None:
        """Listen and tell until cancelled; reconnect with growing pauses."""
        pause = 0.1
        while True:
            began = clock.monotonic()
            try:
                await self._listen_and_tell()
            except (StoreUnavailable, OSError) as error:
                log.warning("wakeups_lost", carrier=self._carrier.name, error=_words(error.__cause__ or error))
            self.is_listening = False
            pause = 0.1 if clock.monotonic() - began > HEARTBEAT_SECONDS else min(pause * 2, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _listen_and_tell(self) -> None:
        async with self._carrier.connected(self._on_payload) as send:
            self.is_listening = True
            self._on_gap()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._has_news.wait()
                news, self._news = self._news, {}
                self._has_news.clear()
                async with asyncio.timeout(HEARTBEAT_LIMIT_SECONDS):
                    await send(_payloads(self._node_id, news) or [self._node_id])
                if not self._news:
                    self._is_told.set()
                await asyncio.sleep(TICK_SECONDS)

    def _on_payload(self, payload: str) -> None:
        """Hear what is of the form of a payload; the rest is passed over, since others may be able to send."""
        if payload.partition(",")[0] != self._node_id:
            for session_id, seq in _ITEM.findall(payload):
                self._on_wakeup(session_id, int(seq))


def _payloads(node_id: str, news: dict[str, int]) -> list[str]:
    payloads: list[str] = []
    for session_id, seq in news.items():
        item = f",{session_id}:{seq}"
        if not payloads or len(payloads[-1]) + len(item) > PAYLOAD_BYTES:
            payloads.append(node_id)
        payloads[-1] += item
    return payloads


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
