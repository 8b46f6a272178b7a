"""Small regular work."""

import asyncio

import pytest

from app import clock, expiry, idempotency, ids, sessions
from app.credentials import tickets
from app.credentials.caller import OPEN
from app.db.engine import Database
from app.idempotency import Request
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import claims
from app.worker import housekeeping
from tests.journal.ledger import LIMIT_SECONDS, Node, open_session, running, start
from tests.turns.acts import completed

pytestmark = pytest.mark.anyio


async def test_keys_and_nodes_past_their_time_are_swept_and_the_others_stay(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_SECONDS", 0.01)
    for key in ("old", "new"):
        async with journal.transaction(DEFAULT_REALM) as tx:
            await idempotency.keep(tx, Request.of("/v1/sessions", key, {}), session_id=ids.session_id())
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
        await claims.renew(db, Node().row, [])
        await db.execute("UPDATE nodes SET seen_at = now() - interval '2 hours'")
        await tickets.issue(db, tickets.make(), ids.session_id(), OPEN, expires_at=clock.now())

    async with running(housekeeping.sweep_always(database)), asyncio.timeout(LIMIT_SECONDS):
        while await _left(database) > 1:
            await asyncio.sleep(0.002)

    async with database.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT key FROM idempotency_keys") == "new"


async def _left(database: Database) -> int:
    tables = ("idempotency_keys", "nodes", "stream_tickets")
    async with database.transaction(DEFAULT_REALM) as db:
        return sum([await db.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


async def test_ephemeral_session_is_erased_and_its_readers_are_told(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "ERASE_SECONDS", 0.01)
    node, session_id = Node(), await open_session(journal)
    async with journal.transaction(DEFAULT_REALM) as tx:
        await expiry.mark(tx, await sessions.lock(tx, session_id))
    await start(journal, session_id, node)
    await completed(journal, node.claims[-1], node)

    with journal.subscriptions.open(DEFAULT_REALM, session_id, after=0) as subscription:
        async with running(housekeeping.erase_always(journal, grace_seconds=0)), asyncio.timeout(LIMIT_SECONDS):
            seen = [shown.type async for batch in subscription.read() for shown in batch]

    assert seen[-1] == "turn_completed"
