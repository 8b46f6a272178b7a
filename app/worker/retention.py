"""What an operator wants kept for some time only, deleted after it: in short transactions, by any node, in nobody's way."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import structlog

from app import audit, clock, expiry
from app.db.engine import EVERY_REALM
from app.errors import StoreUnavailable
from app.journal import retention
from app.journal.journal import Journal

RETAIN_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 0.1  # between two batches, for others who want the disk
TOLD_SECONDS: Final = 10.0  # between two words about work that goes on
AUDIT_ENTRIES: Final = 1_000  # of one batch

Batch: TypeAlias = Callable[[Journal, datetime], Awaitable[tuple[int, bool]]]
"""Deletes some of what is from before a moment; how many it were, and whether there may be more."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days things are kept; None is for ever.

    Args:
        delta_days: deltas of finished steps, after the end of their turn.
        archived_days: sessions, after they were archived.
        audit_days: entries of the audit trail.
    """

    delta_days: int | None = None
    archived_days: int | None = None
    audit_days: int | None = None


async def retain_always(journal: Journal, kept: Retention) -> None:
    """Delete what is past its days, for as long as the process lives, at jittered times."""
    while True:
        await asyncio.sleep(RETAIN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        with contextlib.suppress(StoreUnavailable):
            await retain(journal, kept)


async def retain(journal: Journal, kept: Retention) -> None:
    """Delete all that is past its days.

    Raises:
        StoreUnavailable: Postgres could not be reached; what is left is for the next time.
    """
    works: list[tuple[str, int | None, Batch]] = [
        ("deltas", kept.delta_days, _deltas),
        ("archived_sessions", kept.archived_days, _archived),
        ("audit_entries", kept.audit_days, _audit_entries),
    ]
    for what, days, batch in works:
        if days is not None:
            await _all(journal, what, clock.now() - timedelta(days=days), batch)


async def _all(journal: Journal, what: str, before: datetime, batch: Batch) -> None:
    total, is_more, told_at = 0, True, clock.monotonic()
    while is_more:
        count, is_more = await batch(journal, before)
        total += count
        if total and (not is_more or clock.monotonic() - told_at > TOLD_SECONDS):
            log.info("retained", deleted=what, total=total, is_done=not is_more)
            told_at = clock.monotonic()
        if is_more:
            await asyncio.sleep(PAUSE_SECONDS)


async def _deltas(journal: Journal, before: datetime) -> tuple[int, bool]:
    async with journal.database.transaction(EVERY_REALM) as db:
        trimmed = await retention.trim(db, before=before)
    return trimmed.events, not trimmed.is_last


async def _archived(journal: Journal, before: datetime) -> tuple[int, bool]:
    async with journal.database.transaction(EVERY_REALM) as db:
        found = await expiry.archived(db, before=before)
    count = 0
    for realm, session_id in found:
        async with journal.transaction(realm) as tx:
            is_erased = await expiry.erase_archived(tx, session_id, before=before)
        if is_erased:
            journal.forget(session_id)
            count += 1
    return count, count > 0 and len(found) == expiry.BATCH


async def _audit_entries(journal: Journal, before: datetime) -> tuple[int, bool]:
    async with journal.database.transaction(EVERY_REALM) as db:
        count = await audit.sweep(db, before=before, limit=AUDIT_ENTRIES)
    return count, count == AUDIT_ENTRIES
