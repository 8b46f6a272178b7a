"""Ephemeral sessions: which are to go, and when, by the database's clock."""

from collections.abc import AsyncIterator

import pytest

from app import expiry, sessions
from app.db.engine import Database
from app.errors import SessionNotFound
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from tests.journal.ledger import Node, log_of, open_session, read_session, start, writing
from tests.turns.acts import completed, interrupted

pytestmark = pytest.mark.anyio


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal whose writer runs."""
    async with writing(database) as running:
        yield running


async def ephemeral(journal: Journal) -> str:
    """Open an ephemeral session and return its id."""
    session_id = await open_session(journal)
    async with journal.transaction(DEFAULT_REALM) as tx:
        await expiry.mark(tx, await sessions.lock(tx, session_id))
    return session_id


async def swept(journal: Journal, grace_seconds: float = 0.0) -> list[str]:
    """Sweep once, and return the ids of the sessions that were erased."""
    async with journal.database.transaction(DEFAULT_REALM) as db:
        await expiry.announce(db, grace_seconds=grace_seconds)
        due = await expiry.due(db)
    for realm, session_id in due:
        async with journal.transaction(realm) as tx:
            assert await expiry.erase(tx, session_id)
    return [session_id for _, session_id in due]


async def test_session_goes_after_its_turn_and_others_stay(database: Database, journal: Journal) -> None:
    node, session_id, other_id = Node(), await ephemeral(journal), await open_session(journal)
    for one in (session_id, other_id):
        await start(journal, one, node)
        await completed(journal, node.claims[-1], node)

    assert await swept(journal) == [session_id]
    with pytest.raises(SessionNotFound):
        await read_session(database, session_id)
    assert await log_of(database, session_id) == []
    assert (await read_session(database, other_id)).turn_count == 1


async def test_session_without_a_turn_stays(journal: Journal) -> None:
    await ephemeral(journal)

    assert await swept(journal) == []


async def test_session_with_a_live_or_queued_turn_stays(journal: Journal) -> None:
    node, session_id = Node(), await ephemeral(journal)
    first = await start(journal, session_id, node)
    await start(journal, session_id, node, on_busy="queue")

    live = await swept(journal)
    await interrupted(journal, session_id, first, node)
    promoted = await swept(journal)
    await completed(journal, node.claims[-1], node)

    assert (live, promoted, await swept(journal)) == ([], [], [session_id])


async def test_session_stays_through_the_grace(journal: Journal) -> None:
    node, session_id = Node(), await ephemeral(journal)
    await start(journal, session_id, node)
    await completed(journal, node.claims[-1], node)

    assert await swept(journal, 60) == []
    assert await swept(journal) == []  # the time stands from the first sweep that found it still
    async with journal.database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE sessions SET erase_at = erase_at - interval '61 seconds'")
    assert await swept(journal) == [session_id]


async def test_turn_within_the_grace_sets_the_time_anew(journal: Journal) -> None:
    node, session_id = Node(), await ephemeral(journal)
    await start(journal, session_id, node)
    await completed(journal, node.claims[-1], node)
    await swept(journal, 60)
    async with journal.database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE sessions SET erase_at = erase_at - interval '61 seconds'")

    await start(journal, session_id, node)
    during = await swept(journal)
    await completed(journal, node.claims[-1], node)

    assert (during, await swept(journal, 60)) == ([], [])
