"""Looking for turns that nobody holds: accepted where there was no room, handed over, or left by a node that died.

Every node looks, at jittered times and when it hears of news; who finds a turn claims it the ordinary way.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import structlog

from app import telemetry
from app.db.engine import EVERY_REALM
from app.errors import StoreUnavailable
from app.journal.journal import Journal, Transaction
from app.turns import claims, takeover, waiting
from app.turns.claims import Claimant

LOOK_SECONDS = 1.0
MOST_AT_ONCE = 100

Act: TypeAlias = Callable[[Transaction, str, Claimant], Awaitable[bool]]

log = structlog.get_logger()


class Recovery:
    """Claims what is due for this node."""

    def __init__(self, journal: Journal, claimant: Claimant) -> None:
        self._journal = journal
        self._claimant = claimant
        self._is_nudged = asyncio.Event()

    def nudge(self) -> None:
        """Look soon: there may be something to claim."""
        self._is_nudged.set()

    async def run(self) -> None:
        """Look for as long as the process lives."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("recovery_lost_database", error=str(error.__cause__))
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.05, 0.15))  # noqa: S311 - jitter
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                    await self._is_nudged.wait()
            self._is_nudged.clear()

    async def look(self) -> int:
        """Claim every turn that is due while there is room.

        Returns:
            How many were claimed or ended.
        """
        await self._expire()
        if not self._claimant.has_room():
            return 0
        async with self._journal.database.transaction(EVERY_REALM) as db:
            found = await claims.due(db, MOST_AT_ONCE)
        taken = 0
        for realm, session_id in found:
            taken += await self._act(takeover.take_over, realm, session_id)
        if taken:
            telemetry.RECOVERED.inc(taken)
            log.info("turns_taken", turns=taken)
        return taken

    async def _expire(self) -> None:
        """Answer calls whose caller has not, in time."""
        async with self._journal.database.transaction(EVERY_REALM) as db:
            found = await waiting.overdue(db, MOST_AT_ONCE)
        for realm, session_id in found:
            await self._act(waiting.expire, realm, session_id)

    async def _act(self, act: Act, realm: str, session_id: str) -> bool:
        """Do something for one session; what is wrong with it must not stop the others."""
        try:
            async with self._journal.transaction(realm) as tx:
                return await act(tx, session_id, self._claimant)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("takeover_failed", session_id=session_id)  # a turn of a later version, say; the others go on
            return False
