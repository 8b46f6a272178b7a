"""Small regular work that nobody waits for: what is past its time is deleted, and what was used is booked."""

import asyncio
import random

import structlog

from app import expiry, idempotency, nodes, usage
from app.credentials import tickets
from app.db.engine import EVERY_REALM, Database
from app.errors import StoreUnavailable
from app.journal.journal import Journal
from app.webhooks import deliveries

SWEEP_SECONDS = 600
ERASE_SECONDS = 2.0
BOOK_SECONDS = 60.0

log = structlog.get_logger()


async def sweep_always(database: Database) -> None:
    """Sweep for as long as the process lives, at jittered times."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        try:
            async with database.transaction(EVERY_REALM) as db:
                keys, lost, ended = await idempotency.sweep(db), await nodes.sweep(db), await tickets.sweep(db)
                told = await deliveries.sweep(db)
        except StoreUnavailable:
            continue
        log.info("swept", idempotency_keys=keys, nodes=lost, tickets=ended, webhook_deliveries=told)


async def erase_always(journal: Journal, *, grace_seconds: float = expiry.GRACE_SECONDS) -> None:
    """Erase ephemeral sessions after their last turn, for as long as the process lives.

    Args:
        grace_seconds: how long such a session stays, once found still, so that readers can finish.
    """
    while True:
        await asyncio.sleep(ERASE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        try:
            async with journal.database.transaction(EVERY_REALM) as db:
                await expiry.announce(db, grace_seconds=grace_seconds)
                found = await expiry.due(db)
            for realm, session_id in found:
                await _erase(journal, realm, session_id)
        except StoreUnavailable:
            continue


async def book_always(database: Database) -> None:
    """Book what was used, for as long as the process lives."""
    while True:
        await asyncio.sleep(BOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        try:
            while await _book(database) == usage.BATCH:
                pass
        except StoreUnavailable:
            continue


async def _book(database: Database) -> int:
    async with database.transaction(EVERY_REALM) as db:
        return await usage.book(db)


async def _erase(journal: Journal, realm: str, session_id: str) -> None:
    async with journal.transaction(realm) as tx:
        is_erased = await expiry.erase(tx, session_id)
    if is_erased:
        journal.forget(session_id)
        log.info("ephemeral_session_erased", session_id=session_id)
