"""Erased is erased: of a session or a realm no table has anything left, whichever tables there are."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Date, DateTime, Float, Integer, LargeBinary, Table, Text, Uuid

from app import erasure, ids, sessions
from app.credentials import keys
from app.credentials.keys import NewKey
from app.db import walls
from app.db.engine import EVERY_REALM, Database
from app.db.tables import metadata
from app.errors import StartupError
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from tests.journal.ledger import LIMIT_SECONDS, Node, claimed, open_session, pen, said, start, writing
from tests.turns.acts import completed

pytestmark = pytest.mark.anyio

MAY_NAME_WHAT_IS_GONE = {"audit_entries"}
"""Tables that may go on naming a session: they tell who erased it."""
VALUES: dict[type[Any], Any] = {
    ARRAY: [],
    BigInteger: 1,
    Boolean: False,
    Date: date(2026, 1, 1),
    DateTime: datetime(2026, 1, 1, tzinfo=UTC),
    Float: 1.0,
    Integer: 1,
    Text: "{}",
}


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal whose writer runs."""
    async with writing(database) as running:
        yield running


def walled() -> list[Table]:
    """Return every table that holds rows of realms."""
    return [table for table in metadata.sorted_tables if "realm_id" in table.columns]


def value(column: Column[Any], realm: str, session_id: str) -> Any:
    """Make up what a row of a realm and a session could have in a column."""
    match column.name:
        case "realm_id":
            return realm
        case "session_id":
            return session_id
        case "path":
            return f"/v1/sessions/{session_id}/fork"
        case _:
            unique = ids.uuid7()
            return {Uuid: unique, LargeBinary: unique.encode()}.get(type(column.type)) or VALUES[type(column.type)]


async def fill(database: Database, realm: str, session_id: str) -> None:
    """Put a row of a session into each table of realms that has none yet, whatever the table is."""
    async with database.transaction(realm) as db:
        for table in walled():
            if not await db.fetchval(f"SELECT count(*) FROM {table.name}"):
                columns = [
                    c for c in table.columns if c.name == "session_id" or not (c.nullable or c.server_default or c.identity)
                ]
                columns += [c for c in table.columns if c.name == "realm_id" and c not in columns]
                places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
                names = ", ".join(c.name for c in columns)
                made = [value(c, realm, session_id) for c in columns]
                await db.execute(f"INSERT INTO {table.name} ({names}) VALUES ({places})", *made)


async def moved(database: Database, realm: str) -> None:
    """Give every row that there is to a realm."""
    async with database.dedicated("move", role="none") as db:
        for table in walled():
            await db.execute(f"UPDATE {table.name} SET realm_id = $1", realm)


async def counted(database: Database, condition: str, *args: object) -> dict[str, int]:
    """Count rows in every table, where there are any."""
    names = [table.name for table in walled()]
    async with database.transaction(EVERY_REALM) as db:
        found = {name: await db.fetchval(f"SELECT count(*) FROM {name} t WHERE {condition}", *args) for name in names}
    return {name: count for name, count in found.items() if count}


async def talked(journal: Journal) -> str:
    """Hold a session with a turn that is over and one that is live."""
    node = Node()
    claim = await claimed(journal, node)
    await pen(journal, claim).write(said("a", "b"))
    await completed(journal, claim, node)
    await start(journal, claim.session_id, node)
    return claim.session_id


async def erased(database: Database, realm: str) -> int:
    """Erase a realm, and return how many rows that were."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return sum([rows async for rows in erasure.erase(database, realm, believed_seconds=0)])


async def test_no_table_names_an_erased_session_and_others_keep_theirs(database: Database, journal: Journal) -> None:
    session_id, other_id = await talked(journal), await open_session(journal)
    await fill(database, DEFAULT_REALM, session_id)
    of_session = "t::text LIKE '%' || $1 || '%'"
    before, others = await counted(database, of_session, session_id), await counted(database, of_session, other_id)

    async with journal.transaction(DEFAULT_REALM) as tx:
        rows = await sessions.erase(tx, await sessions.lock(tx, session_id))

    assert {table.name for table in walled() if "session_id" in table.columns} <= before.keys()
    assert (await counted(database, of_session, session_id)).keys() <= MAY_NAME_WHAT_IS_GONE
    assert rows == sum(count for name, count in before.items() if name not in MAY_NAME_WHAT_IS_GONE)
    assert await counted(database, of_session, other_id) == others


async def test_no_table_has_a_row_of_an_erased_realm_and_others_keep_theirs(database: Database, journal: Journal) -> None:
    await fill(database, DEFAULT_REALM, await talked(journal))
    await moved(database, "acme")
    await fill(database, DEFAULT_REALM, await talked(journal))
    before, others = [await counted(database, "realm_id = $1", realm) for realm in ("acme", DEFAULT_REALM)]

    rows = await erased(database, "acme")

    assert before.keys() == others.keys() == {table.name for table in walled()}
    assert rows == sum(before.values())
    assert await counted(database, "realm_id = $1", "acme") == {}
    assert await counted(database, "realm_id = $1", DEFAULT_REALM) == others


async def test_large_realm_goes_in_bounded_steps(database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "ROWS", 10)
    monkeypatch.setattr(erasure, "SESSIONS", 2)
    for _ in range(5):
        await open_session(journal)
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute(
            """INSERT INTO idempotency_keys (realm_id, path, key, body_hash, created_at)
               SELECT 'default', '/', n::text, '', now() FROM generate_series(1, 25) n"""
        )

    steps = [rows async for rows in erasure.erase(database, DEFAULT_REALM, believed_seconds=0)]

    assert steps == [4, 4, 2, 10, 10, 5]


async def test_last_keys_are_not_erased(database: Database, journal: Journal) -> None:
    async with database.transaction("acme") as db:
        await keys.create(db, NewKey("k", ["admin"], None), by="test")
    with pytest.raises(StartupError, match="Make one there first"):
        await erased(database, "acme")
    async with database.transaction(DEFAULT_REALM) as db:
        await keys.create(db, NewKey("k", ["admin"], None), by="test")

    assert await erased(database, "acme") == 1


async def test_worker_of_an_erased_realm_writes_nothing_more(database: Database, journal: Journal) -> None:
    failures: list[str] = []
    claim = await claimed(journal)
    recorder = pen(journal, claim, failures)
    await erased(database, DEFAULT_REALM)

    recorder.put(*said("late"))

    async with asyncio.timeout(LIMIT_SECONDS):
        while not failures:
            await asyncio.sleep(0.002)
    assert await counted(database, "realm_id = $1", DEFAULT_REALM) == {}


async def test_tables_that_an_erasure_does_not_go_through_go_with_their_sessions(database: Database) -> None:
    async with database.transaction(EVERY_REALM) as db:
        found = await walls.tables(db)

    assert {table.name for table in walled()} - set(found) - {"sessions"} <= set(sessions.OF_SESSION)
