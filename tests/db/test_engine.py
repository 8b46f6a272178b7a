"""How Postgres is reached, and what is said when it is not."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from app.db import engine
from app.db.engine import Database
from app.errors import StartupError, StoreUnavailable
from app.sessions import DEFAULT_REALM
from tests.freezing import frozen
from tests.journal.cable import cable_to

pytestmark = pytest.mark.anyio

LIMITS = {"statement_timeout": "15s", "lock_timeout": "8s", "idle_in_transaction_session_timeout": "5s"}


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


async def test_role_that_is_above_policies_and_cannot_be_left_is_refused(database: Database, database_url: str) -> None:
    async with database.dedicated("roles", role="none") as db:
        await db.execute("CREATE ROLE above LOGIN BYPASSRLS")
        as_above = Database(f"{database_url}{'&' if '?' in database_url else '?'}user=above", pool_size=2)

        with pytest.raises(StartupError, match="grant it to that role"):
            await as_above.connect()

        await db.execute("DROP ROLE above")


async def test_transaction_rolls_back_on_any_error(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction(DEFAULT_REALM) as db:
            await db.execute("INSERT INTO realms (realm_id, config) VALUES ('default', '{}')")
            raise RuntimeError

    async with database.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT count(*) FROM realms") == 0


async def test_transaction_that_had_failed_is_not_told_to_be_committed(database: Database) -> None:
    with pytest.raises(RuntimeError, match="nothing of it was kept"):
        async with database.transaction(DEFAULT_REALM) as db:
            with suppress(asyncpg.UndefinedTableError):
                await db.execute("SELECT * FROM nowhere")


async def test_cut_connection_is_the_stores_fault_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(StoreUnavailable):
        async with database.transaction(DEFAULT_REALM) as db:
            pid = await db.fetchval("SELECT pg_backend_pid()")
            async with database.dedicated("test", role="none") as owner:
                await owner.execute("SELECT pg_terminate_backend($1)", pid)
            await db.fetchval("SELECT 1")

    async with database.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT 1") == 1


async def test_wrong_statement_stays_our_mistake(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.transaction(DEFAULT_REALM) as db:
            await db.execute("SELECT * FROM nowhere")


@pytest.mark.parametrize("is_pooled", [True, False])
async def test_every_connection_has_limits_and_notices_a_dead_peer(database_url: str, *, is_pooled: bool) -> None:
    async with cable_to(database_url) as cable:
        database = Database(cable.dsn, pool_size=2)
        await database.connect()
        async with database.transaction(DEFAULT_REALM) if is_pooled else database.dedicated("test") as db:
            limits = [await db.fetchval(f"SHOW {name}") for name in LIMITS]
            bare: Any = getattr(
                getattr(db, "_db", db), "_con", db
            )  # asyncpg shows the socket of a pooled connection nowhere else
            sock = bare._transport.get_extra_info("socket")
            is_kept_alive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await database.aclose()

    assert limits == [*LIMITS.values()]
    assert is_kept_alive


async def test_statement_on_a_frozen_backend_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "COMMAND_SECONDS", 0.2)
    async with database.transaction(DEFAULT_REALM) as other:
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(10), database.dedicated("frozen") as db:
                with frozen(await db.fetchval("SELECT pg_backend_pid()")):
                    await db.fetchval("SELECT 1")

        assert await other.fetchval("SELECT 1") == 1


async def test_transaction_that_is_left_open_lets_go_of_what_it_locked(database: Database) -> None:
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("INSERT INTO realms (realm_id, config) VALUES ('default', '{}')")

    with pytest.raises(StoreUnavailable):
        async with database.dedicated("frozen", idle_in_transaction_session_timeout="100ms") as frozen:
            await frozen.execute("BEGIN; UPDATE realms SET generation = 2")
            async with asyncio.timeout(10), database.transaction(DEFAULT_REALM) as db:
                await db.execute("UPDATE realms SET generation = 3")
            await frozen.execute("COMMIT")

    async with database.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT generation FROM realms") == 3
