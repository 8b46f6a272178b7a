"""How Postgres is reached, and what is said when it is not."""

import asyncpg
import pytest

from app.db.engine import Database
from app.errors import StartupError, StoreUnavailable

pytestmark = pytest.mark.anyio


async def test_database_that_cannot_be_reached_is_told_with_the_setting() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=2)

    with pytest.raises(StartupError, match="SURICATE_DATABASE_URL"):
        await database.connect()


async def test_database_that_does_not_exist_is_named_as_such(database_url: str) -> None:
    database = Database(database_url.replace("/test_", "/gone_"), pool_size=2)

    with pytest.raises(StartupError, match="does not exist"):
        await database.connect()


async def test_postgres_that_may_lose_commits_is_refused(database_url: str) -> None:
    url = f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20synchronous_commit%3Doff"
    database = Database(url, pool_size=2)

    with pytest.raises(StartupError, match="synchronous_commit off"):
        await database.connect()
    await database.aclose()


async def test_transaction_rolls_back_on_any_error(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as db:
            await db.execute("CREATE TABLE left_behind ()")
            raise RuntimeError

    async with database.connection() as db:
        assert await db.fetchval("SELECT to_regclass('left_behind')") is None


async def test_cut_connection_is_the_stores_fault_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(StoreUnavailable):
        async with database.connection() as db:
            await db.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with database.connection() as db:
        assert await db.fetchval("SELECT 1") == 1


async def test_wrong_statement_stays_our_mistake(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.connection() as db:
            await db.execute("SELECT * FROM nowhere")
