"""The schema: made from nothing, by many at once, and no other than the tables say."""

import asyncio
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from app.db import migrate, walls
from app.db.engine import Database
from app.db.tables import metadata
from app.errors import StartupError
from app.sessions import DEFAULT_REALM

pytestmark = pytest.mark.anyio


async def test_empty_database_is_brought_up_once(empty_database_url: str) -> None:
    database = await connected(empty_database_url)

    first = await migrate.migrate(database, empty_database_url)
    second = await migrate.migrate(database, empty_database_url)

    assert (first, second) == (True, False)
    await database.aclose()


async def test_five_that_start_at_once_on_an_empty_database_all_come_up(empty_database_url: str) -> None:
    databases = [await connected(empty_database_url) for _ in range(5)]

    done = await asyncio.gather(*(migrate.migrate(database, empty_database_url) for database in databases))

    assert sorted(done) == [False, False, False, False, True]
    for database in databases:
        await database.aclose()


async def test_migrated_schema_is_what_the_tables_say(database_url: str) -> None:
    async def connect() -> Any:
        return await asyncpg.connect(database_url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    async with engine.connect() as connection:
        drift = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))
    await engine.dispose()

    assert drift == []


def test_there_is_one_head_and_it_is_the_newest_file() -> None:
    scripts = ScriptDirectory.from_config(Config(toml_file=str(migrate.ROOT / "pyproject.toml")))

    assert scripts.get_heads() == [migrate.head()]


async def test_policies_of_an_older_version_get_the_words_of_this_one_and_others_stay(
    database: Database, database_url: str
) -> None:
    async with database.dedicated("test", role="none") as db:
        of_new = await _policies(db)
        old = "realm_id = (SELECT current_setting('suricate.realm', true))"
        await db.execute(f"ALTER POLICY realm ON sessions USING ({old})")
        await db.execute(f"ALTER POLICY realm_adds ON audit_entries WITH CHECK ({old})")
        await db.execute("CREATE TABLE theirs (realm_id text); CREATE POLICY mine ON theirs USING (realm_id = 'me')")
        await db.execute("UPDATE alembic_version SET version_num = '0015'")

        assert await migrate.migrate(database, database_url) is True

        theirs = {("theirs", "mine"): ("(realm_id = 'me'::text)", None)}
        assert await _policies(db) == of_new | theirs


async def _policies(db: Any) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    rows = await db.fetch("SELECT tablename, policyname, qual, with_check FROM pg_policies")
    return {(row["tablename"], row["policyname"]): (row["qual"], row["with_check"]) for row in rows}


async def test_turn_is_found_by_its_id_where_nearly_all_sessions_have_one_turn(database: Database) -> None:
    async with database.dedicated("test", role="none", **{walls.SETTING: DEFAULT_REALM}) as db:
        await db.execute(
            """INSERT INTO turns (session_id, id, number, status, prompt, overrides, first_seq, created_at)
               SELECT gen_random_uuid(), gen_random_uuid(), 1, 'queued', '{}', '{}', 1, now() FROM generate_series(1, 5000)"""
        )
        await db.execute("ANALYZE turns")
        await db.execute("PREPARE one AS SELECT prompt FROM turns WHERE session_id = $1 AND id = $2")

        plan = await db.fetch("EXPLAIN EXECUTE one(NULL, NULL)")

    assert "turns_pkey" in plan[0][0]


async def test_database_of_a_later_version_is_used_as_it_is(database: Database, database_url: str) -> None:
    async with database.dedicated("test", role="none") as db:
        await db.execute("UPDATE alembic_version SET version_num = '9999'")

    assert await migrate.migrate(database, database_url) is False


async def test_database_that_lacks_what_this_code_needs_is_refused(database: Database, database_url: str) -> None:
    async with database.dedicated("test", role="none") as db:
        await db.execute("UPDATE alembic_version SET version_num = '9999'")
        await db.execute("UPDATE schema_floor SET revision = '9000'")

    with pytest.raises(StartupError, match="code before 9000 cannot use"):
        await migrate.migrate(database, database_url)


async def test_migration_that_cannot_have_its_locks_gives_up_and_leaves_everything(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    database = await connected(empty_database_url)
    async with database.dedicated("test", role="none") as other:
        await other.execute("BEGIN")
        await other.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")

        with pytest.raises(StartupError, match="rolled back"):
            await migrate.migrate(database, empty_database_url)

    assert await migrate.migrate(database, empty_database_url)
    await database.aclose()


async def connected(url: str) -> Database:
    database = Database(url, pool_size=2)
    await database.connect()
    return database
