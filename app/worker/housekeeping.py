"""Small regular work that nobody waits for: old idempotency keys, ephemeral sessions and nodes that are gone are deleted."""

import asyncio
import random

import structlog

from app import expiry, idempotency, nodes
from app.db.engine import Database
from app.errors import StoreUnavailable
from app.journal.journal import Journal

SWEEP_SECONDS = 600
ERASE_SECONDS = 2.0

log = structlog.get_logger()


async def sweep_always(database: Database) -> None:
    """Sweep for as long as the process lives, at jittered times."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        try:
            async with database.connection() as db:
                keys, lost = await idempotency.sweep(db), await nodes.sweep(db)
        except StoreUnavailable:
            continue
        log.info("swept", idempotency_keys=keys, nodes=lost)


async def erase_always(journal: Journal, *, grace_seconds: float = expiry.GRACE_SECONDS) -> None:
    """Erase ephemeral sessions after their last turn, for as long as the process lives.

    Args:
        grace_seconds: how long such a session stays, once found still, so that readers can finish.
    """
    while True:
        await asyncio.sleep(ERASE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        try:
            async with journal.database.connection() as db:
                await expiry.announce(db, grace_seconds=grace_seconds)
            while await _erase_next(journal):
                pass
        except StoreUnavailable:
            continue


async def _erase_next(journal: Journal) -> bool:
    async with journal.transaction() as tx:
        session_id = await expiry.erase_next(tx)
    if session_id is None:
        return False
    journal.forget(session_id)
    log.info("ephemeral_session_erased", session_id=session_id)
    return True
