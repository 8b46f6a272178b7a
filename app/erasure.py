"""A realm erased: every row of every table behind the wall, in small transactions that each commit.

Which tables those are is asked of Postgres, so that a new one is covered as it is. An erasure that was stopped half-way is
begun again and goes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from app import sessions
from app.credentials import keys
from app.db import walls
from app.db.engine import EVERY_REALM, Database
from app.errors import SessionNotFound, StartupError
from app.journal.journal import Transaction

ROWS: Final = 1_000  # of one transaction
SESSIONS: Final = 100  # looked up at once; each is erased in a transaction of its own


async def erase(database: Database, realm: str, *, believed_seconds: float) -> AsyncIterator[int]:
    """Erase a realm, its keys first, and yield how many rows went with each transaction or few.

    Args:
        believed_seconds: how long nodes go on to believe a key that is gone; what it makes meanwhile goes, too.

    Raises:
        StartupError: no other realm has a key: without any, the service might be open to all. Nothing was done.
        StoreUnavailable: what was yielded is gone, the rest is there.
        ValueError: this is no realm's name.
    """
    async with database.transaction(realm) as db:
        tables = await walls.tables(db)
    async with database.transaction(EVERY_REALM) as db:
        if await keys.are_the_only_ones(db, realm):
            raise StartupError("No other realm has an API key, and without any the service is open. Make one there first.")
    ended = 0
    async for rows in _rows(database, "api_keys", realm):
        ended += rows
        yield rows
    await asyncio.sleep(believed_seconds if ended else 0)
    is_empty = False
    while not is_empty:  # another round for what was being written while the last one went by
        is_empty = True
        async for rows in _round(database, realm, tables):
            is_empty = False
            yield rows


async def _round(database: Database, realm: str, tables: list[str]) -> AsyncIterator[int]:
    async for rows in _sessions(database, realm):
        yield rows
    for table in tables:
        async for rows in _rows(database, table, realm):
            yield rows


async def _sessions(database: Database, realm: str) -> AsyncIterator[int]:
    rows = -1
    while rows:
        rows = 0
        async with database.transaction(realm) as db:
            found = await db.fetch(f"SELECT id FROM sessions WHERE realm_id = $1 LIMIT {SESSIONS}", realm)
        for row in found:
            async with database.transaction(realm) as db:
                tx = Transaction(db)
                with suppress(SessionNotFound):  # its caller was quicker
                    rows += await sessions.erase(tx, await sessions.lock(tx, str(row["id"])))
        if rows:
            yield rows


async def _rows(database: Database, table: str, realm: str) -> AsyncIterator[int]:
    """Delete a table's rows of a realm; for those of the audit trail, as the service's own work."""
    rows = -1
    while rows:
        async with database.transaction(EVERY_REALM) as db:
            found = f"SELECT ctid FROM {table} WHERE realm_id = $1 LIMIT {ROWS}"
            tag = await db.execute(f"DELETE FROM {table} WHERE ctid = ANY (ARRAY({found}))", realm)
        rows = int(tag.rpartition(" ")[2])
        if rows:
            yield rows
