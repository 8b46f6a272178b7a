"""Small regular work."""

import asyncio

import pytest

from app import idempotency, ids
from app.db.engine import Database
from app.idempotency import Request
from app.journal.journal import Journal
from app.worker import housekeeping
from tests.journal.ledger import LIMIT_SECONDS, running

pytestmark = pytest.mark.anyio


async def test_keys_past_their_time_are_swept_and_the_others_stay(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_SECONDS", 0.01)
    for key in ("old", "new"):
        async with journal.transaction() as tx:
            await idempotency.keep(tx, Request.of("/v1/sessions", key, {}), session_id=ids.session_id())
    async with database.connection() as db:
        await db.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")

        async with running(housekeeping.sweep_always(database)), asyncio.timeout(LIMIT_SECONDS):
            while await db.fetchval("SELECT count(*) FROM idempotency_keys") == 2:
                await asyncio.sleep(0.002)

        assert await db.fetchval("SELECT key FROM idempotency_keys") == "new"
