"""Small regular work that nobody waits for: keys past their time are deleted."""

import asyncio
import random

import structlog

from app import idempotency
from app.db.engine import Database
from app.errors import StoreUnavailable

SWEEP_SECONDS = 600

log = structlog.get_logger()


async def sweep_always(database: Database) -> None:
    """Sweep for as long as the process lives, at jittered times."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        try:
            async with database.connection() as db:
                swept = await idempotency.sweep(db)
        except StoreUnavailable:
            continue
        log.info("idempotency_keys_swept", keys=swept)
