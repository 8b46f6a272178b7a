"""What is kept for some days only: what goes, what stays, and that nobody waits for it."""

import asyncio

import pytest
from structlog.testing import capture_logs

from app import audit
from app.audit import Act
from app.db.engine import EVERY_REALM, Database
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.worker import retention
from app.worker.retention import Retention
from tests.journal.ledger import LIMIT_SECONDS, Node, claimed, locked, open_session, pen, running, said
from tests.turns.acts import archived, completed

pytestmark = pytest.mark.anyio

ALL_FOR_A_WEEK = Retention(7, 7, 7)


async def age(database: Database, table: str, column: str, days: float, where: str = "true") -> None:
    """Move a time into the past."""
    async with database.dedicated("age", role="none") as db:
        await db.execute(f"UPDATE {table} SET {column} = {column} - make_interval(hours => $1) WHERE {where}", round(days * 24))


async def counted(database: Database, table: str) -> int:
    """Count the rows of a table."""
    async with database.transaction(EVERY_REALM) as db:
        count: int = await db.fetchval(f"SELECT count(*) FROM {table}")
    return count


async def test_what_is_older_than_its_days_goes_and_is_told(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await pen(journal, claim).write(said("a"))
    await completed(journal, claim, node)
    old, young, open_one = [await open_session(journal) for _ in range(3)]
    for session_id in (old, young):
        await archived(journal, session_id)
    async with database.transaction(DEFAULT_REALM) as db:
        for action in ("old", "young"):
            await audit.record(db, Act("open", action, {}))
    await age(database, "sessions", "archived_at", 7.1, f"id = '{old}'")
    await age(database, "sessions", "archived_at", 6.9, f"id = '{young}'")
    await age(database, "audit_entries", "at", 7.1, "action = 'old'")
    await age(database, "turns", "ended_at", 6.9)

    with capture_logs() as told:
        await retention.retain(journal, ALL_FOR_A_WEEK)

    async with database.transaction(DEFAULT_REALM) as db:
        sessions = {str(row["id"]) for row in await db.fetch("SELECT id FROM sessions")}
        assert await db.fetchval("SELECT action FROM audit_entries") == "young"
    assert sessions == {claim.session_id, young, open_one}
    assert [(line["deleted"], line["total"], line["is_done"]) for line in told] == [
        ("archived_sessions", 1, True),
        ("audit_entries", 1, True),
    ]


async def test_without_days_everything_stays(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)
    await archived(journal, session_id)
    await age(database, "sessions", "archived_at", 10_000)
    before = await counted(database, "events")

    await retention.retain(journal, Retention())

    assert await counted(database, "events") == before


async def test_archived_session_that_another_hand_has_is_passed_over_and_taken_later(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RETAIN_SECONDS", 0.01)
    held, other = await open_session(journal), await open_session(journal)
    for session_id in (held, other):
        await archived(journal, session_id)
    await age(database, "sessions", "archived_at", 8)

    async with running(retention.retain_always(journal, ALL_FOR_A_WEEK)), asyncio.timeout(LIMIT_SECONDS):
        async with locked(database, held):
            while await counted(database, "sessions") > 1:
                await asyncio.sleep(0.002)
        while await counted(database, "sessions"):
            await asyncio.sleep(0.002)


async def test_readers_of_an_archived_session_are_told_that_it_is_gone(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)
    await archived(journal, session_id)
    await age(database, "sessions", "archived_at", 8)
    woken: list[str] = []
    journal.watch(lambda told, _: woken.append(told))

    await retention.retain(journal, ALL_FOR_A_WEEK)

    assert woken == [session_id]


async def test_deltas_go_in_as_many_batches_as_it_takes(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.001)
    session_id = await open_session(journal)
    async with database.transaction(DEFAULT_REALM) as db:  # more turns than one batch takes
        await db.execute(
            """INSERT INTO turns (session_id, id, number, status, prompt, overrides, first_seq, last_seq, created_at, ended_at)
               SELECT $1, gen_random_uuid(), n, 'completed', '', '{}', 2, 1, now(), now() - interval '8 days'
               FROM generate_series(1, 120) n""",
            session_id,
        )

    await retention.retain(journal, ALL_FOR_A_WEEK)

    assert await counted(database, "turns WHERE has_deltas") == 0
