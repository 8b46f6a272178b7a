"""Holding turns: renewal, the trust window, and giving up.

A lease is granted and judged by the database's clock. This node cannot read that clock while it is cut off or frozen, so it
trusts a lease only for 0.8 of its term by its own monotonic clock, counted from *before* it asked for it: by the time the
database lets another claim, this node has stopped by itself. And if it has not, because it was frozen and wakes up late, its
fence is stale and it can write nothing. Clocks only make it stop sooner; the fence makes it safe.

Renewals have a connection of their own, so that no burst of other work can starve them. All turns of a node are renewed in one
statement with the node's own row, which says whether it is to drain.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from app import clock, nodes, telemetry
from app.db.engine import EVERY_REALM, Connection, Database
from app.errors import StoreUnavailable
from app.nodes import Node
from app.turns import claims
from app.turns.claims import Claim

TRUSTED_SHARE = 0.8
RENEWALS_PER_TERM = 3
CHECKS_PER_TERM = 30
LEAVE_SECONDS = 2.0  # for the last word to a database that may be frozen

log = structlog.get_logger()


@dataclass(slots=True)
class Held:
    """A claim that is being worked on, and what ends the work at once."""

    claim: Claim
    renewed_at: float
    stop: Callable[[], None]


class Keeper:
    """Renews the leases of this node's turns, and stops those that it can no longer trust.

    Args:
        held: what is held now, asked each time.
        heed: told after each renewal whether this node is to drain.
    """

    def __init__(
        self, database: Database, node: Node, held: Callable[[], Iterable[Held]], heed: Callable[[bool], None]
    ) -> None:
        self._database = database
        self._node = node
        self._lease_seconds = node.lease_seconds
        self._held = held
        self._heed = heed
        self._is_stopping = False
        self._is_due = asyncio.Event()
        self.renewed_at = clock.monotonic()

    @property
    def is_trusted(self) -> bool:
        """Whether renewals have gone through lately."""
        return clock.monotonic() - self.renewed_at < self._lease_seconds * TRUSTED_SHARE

    def hasten(self) -> None:
        """Renew now: there may be something to learn."""
        self._is_due.set()

    def announce_stop(self) -> None:
        """Let the node's row say, soon, that it is about to leave."""
        self._is_stopping = True
        self.hasten()

    async def join(self) -> None:
        """Put this node on the list, before it does anything.

        Raises:
            StoreUnavailable: the database could not be reached.
        """
        async with self._database.transaction(EVERY_REALM) as db:
            await self._renew(db)

    async def leave(self) -> None:
        """Take this node off the list, when it renews no more; where the database is away, the row shows that it is lost."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS), self._database.dedicated("leave") as db:  # a pooled one is not cut short
                await nodes.leave(db, self._node.id)

    async def run(self) -> None:
        """Renew and watch for as long as the process lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_always())
            tasks.create_task(self._watch())

    async def _renew_always(self) -> None:
        while True:
            try:
                async with self._database.dedicated("leases") as db:
                    while True:
                        is_whole = await self._renew(db)
                        await self._until_due(self._lease_seconds / (RENEWALS_PER_TERM if is_whole else CHECKS_PER_TERM))
            except (StoreUnavailable, TimeoutError) as error:
                log.warning("lease_renewal_failed", error=str(error.__cause__ or error))
                await asyncio.sleep(self._lease_seconds / CHECKS_PER_TERM)

    async def _until_due(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_due.wait()
        self._is_due.clear()

    async def _renew(self, db: Connection) -> bool:
        """Renew what is held; tell whether all of it was renewed."""
        asked_at = clock.monotonic()
        asked = list(self._held())
        async with asyncio.timeout(self._lease_seconds / RENEWALS_PER_TERM):
            renewal = await claims.renew(db, self._node, [held.claim for held in asked], is_stopping=self._is_stopping)
        for held in asked:
            if held.claim.turn_id in renewal.renewed:
                held.renewed_at = asked_at
            elif held.claim.turn_id not in renewal.held:
                held.stop()
        self.renewed_at = asked_at
        self._heed(renewal.is_draining)
        return renewal.renewed == renewal.held

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / CHECKS_PER_TERM)
            now = clock.monotonic()
            telemetry.LEASE_AGE_SECONDS.set(now - self.renewed_at)
            for held in list(self._held()):
                if now - held.renewed_at >= self._lease_seconds * TRUSTED_SHARE:
                    log.warning("lease_not_trusted", session_id=held.claim.session_id, turn_id=held.claim.turn_id)
                    held.stop()
