"""The wall in Postgres: what one realm writes no other sees, whatever the statement says, and nobody sees without a realm."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app import audit, clock, ids
from app.audit import Act
from app.credentials import keys
from app.credentials.keys import NewKey
from app.db import walls
from app.db.engine import EVERY_REALM, Database
from app.db.tables import metadata
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from tests.journal.ledger import claimed, writing

pytestmark = pytest.mark.anyio

SHARED = {"nodes", "schema_floor"}
"""Tables that hold nothing of a tenant."""
TENANT_TABLES = sorted(metadata.tables.keys() - SHARED)


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal whose writer runs."""
    async with writing(database) as running:
        yield running


async def filled(database: Database, journal: Journal) -> None:
    """Put rows of the default realm into the tables."""
    await claimed(journal)
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("INSERT INTO realms (realm_id, config) VALUES ('default', '{}')")
        await keys.create(db, NewKey("k", ["read"], None), by="test")
        await audit.record(db, Act("open", "test", {}))


async def test_every_table_of_tenants_is_walled_and_bears_a_realm(database: Database) -> None:
    async with database.transaction(EVERY_REALM) as db:
        walled = await db.fetch(
            """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind = 'r' AND n.nspname = 'public' AND c.relrowsecurity AND c.relforcerowsecurity
                 AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)"""
        )

    assert sorted(row["relname"] for row in walled) == TENANT_TABLES
    assert all("realm_id" in metadata.tables[name].columns for name in TENANT_TABLES)


async def test_service_works_under_a_role_that_policies_bind(database: Database) -> None:
    async with database.transaction(DEFAULT_REALM) as db:
        role = await db.fetchrow("SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")

    assert tuple(role or ()) == (walls.ROLE, False, False)


@pytest.mark.parametrize("table", ["realms", "sessions", "turns", "messages", "events", "api_keys", "audit_entries"])
async def test_rows_of_another_realm_are_not_there_without_any_filter(database: Database, journal: Journal, table: str) -> None:
    await filled(database, journal)

    async with database.transaction(DEFAULT_REALM) as db:
        own = await db.fetchval(f"SELECT count(*) FROM {table}")
    async with database.transaction("other") as db:
        seen = await db.fetchval(f"SELECT count(*) FROM {table}")
        changed = await db.execute(f"UPDATE {table} SET realm_id = 'other'")
        deleted = await db.execute(f"DELETE FROM {table}")

    assert own > 0
    assert (seen, changed, deleted) == (0, "UPDATE 0", "DELETE 0")


async def test_nothing_is_seen_without_a_realm(database: Database, journal: Journal) -> None:
    await filled(database, journal)

    async with database.dedicated("test", **{walls.SETTING: ""}) as db:
        seen = [await db.fetchval(f"SELECT count(*) FROM {table}") for table in TENANT_TABLES]

    assert seen == [0] * len(TENANT_TABLES)


async def test_row_for_another_realm_is_refused(database: Database) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction("one") as db:
            await db.execute("INSERT INTO realms (realm_id, config) VALUES ('other', '{}')")


async def test_realm_lasts_no_longer_than_its_transaction(database: Database, journal: Journal) -> None:
    await filled(database, journal)
    one = Database(database._dsn, pool_size=2)
    await one.connect()

    async with one.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT count(*) FROM sessions") == 1
    async with one._pool.acquire() as bare:
        assert await bare.fetchval("SELECT count(*) FROM sessions") == 0
    await one.aclose()


@pytest.mark.parametrize("name", ["", "*x", "a'b", "Ä", "A", "-a", "a" * 64, "a b", "a\n", "a;b"])
async def test_name_that_is_no_realms_opens_nothing(database: Database, name: str) -> None:
    with pytest.raises(ValueError, match="not a realm's name"):
        async with database.transaction(name):
            pass


async def test_audit_trail_is_added_to_and_never_changed(database: Database) -> None:
    async with database.transaction(DEFAULT_REALM) as db:
        await audit.record(db, Act("open", "test", {"session_id": ids.uuid7()}))
        changed = await db.execute("UPDATE audit_entries SET credential = 'nobody'")
        deleted = await db.execute("DELETE FROM audit_entries")
    async with database.transaction(EVERY_REALM) as db:
        swept = await audit.sweep(db, before=clock.now(), limit=10)

    assert (changed, deleted, swept) == ("UPDATE 0", "DELETE 0", 1)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction(EVERY_REALM) as db:
            await audit.record(db, Act("open", "test", {}))
            await db.execute("UPDATE audit_entries SET credential = 'nobody'")
