"""The Postgres of a run comes back from every end with all that it had acknowledged."""

from pathlib import Path

import asyncpg
import pytest

from app.errors import StartupError
from tests.torture import keeper
from tests.torture.keeper import Keeper

pytestmark = pytest.mark.anyio


async def _ask(running: Keeper, statement: str) -> object:
    connection = await asyncpg.connect(running.dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_what_was_committed_is_there_after_each_way_of_ending(tmp_path: Path, how: str) -> None:
    async with keeper.running(tmp_path) as running:
        dsn, postmaster = running.dsn, running.postmaster
        await _ask(running, "CREATE TABLE kept AS SELECT 7 AS number")

        await running.end(how)
        is_gone = not postmaster.is_own()
        await running.start()

        assert await _ask(running, "SELECT number FROM kept") == 7
        assert is_gone
        assert running.dsn == dsn
        assert running.deaths == []


async def test_a_full_disk_ends_it_and_room_brings_it_back(tmp_path: Path) -> None:
    async with keeper.running(tmp_path, disk_bytes=256 * 1024**2) as running:
        if not running.can_fill:
            pytest.skip("this user may not mount a file system")
        await _ask(running, "CREATE TABLE kept AS SELECT 7 AS number")

        await running.set_room("full")
        with pytest.raises((asyncpg.DiskFullError, OSError, asyncpg.PostgresConnectionError)):
            await _ask(running, "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
        with pytest.raises((OSError, asyncpg.PostgresError)):
            while True:
                await _ask(running, "SELECT pg_logical_emit_message(true, 'large', repeat('x', 1000000))")
        assert await running.is_down_within(20)
        with pytest.raises(StartupError):
            await running.start()
        await running.set_room("roomy")
        await running.start()

        assert await _ask(running, "SELECT number FROM kept") == 7
        assert len(running.deaths) == 1
