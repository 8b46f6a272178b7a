"""The wire breaks at the commit that is wanted, on the side that is wanted, and nowhere else."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.api.databases import fetch
from tests.torture.wire import Point, Side, Trap, Wire, name_of, wire_to

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO kept (number) VALUES ($1)"


@pytest.fixture
async def wire(empty_database_url: str) -> AsyncIterator[Wire]:
    """A wire to a database with one table."""
    await fetch(empty_database_url, "CREATE TABLE kept (number int PRIMARY KEY)")
    async with wire_to(empty_database_url) as laid:
        yield laid


@pytest.fixture
async def client(wire: Wire) -> AsyncIterator[Any]:
    """A client at the wire's end."""
    connection = await asyncpg.connect(wire.dsn, server_settings={"application_name": "suricate writer"})
    wire.count_anew()
    yield connection
    connection.terminate()


async def kept(url: str) -> list[int]:
    """Return what is in the table."""
    return [row["number"] for row in await fetch(url, "SELECT number FROM kept ORDER BY number")]


async def both(client: Any, first: int) -> None:
    """Write two rows in one transaction."""
    async with client.transaction():
        await client.fetch("SELECT number FROM kept FOR NO KEY UPDATE")
        await client.execute(INSERT, first)
        await client.execute(INSERT, first + 1)


async def test_commits_are_counted_by_what_they_write(wire: Wire, client: Any) -> None:
    await client.execute(INSERT, 1)
    await client.execute(INSERT, 2)
    await both(client, 3)
    await client.execute("UPDATE kept SET number = 9 WHERE number = 1")
    await client.fetch("SELECT pg_notify('c', 'x')")
    await client.fetchval("SELECT number FROM kept")
    with pytest.raises(ZeroDivisionError):
        async with client.transaction():
            await client.execute(INSERT, 7)
            raise ZeroDivisionError

    told = {name.partition(" #")[0]: count for name, count in wire.counted.items()}
    assert told == {
        "writer: insert kept": 3,  # one of them is a transaction
        "writer: update kept": 1,
        "writer: notify": 1,
        "writer: read kept": 1,
    }


@pytest.mark.parametrize(("side", "expected"), [("before", [1]), ("after", [1, 2])])
async def test_statement_that_stands_alone_is_cut_on_its_side(
    wire: Wire, client: Any, empty_database_url: str, side: Side, expected: list[int]
) -> None:
    trap = Trap(Point(name_of("writer", [INSERT]), 2), side)
    wire.count_anew(trap)
    await client.execute(INSERT, 1)

    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await client.execute(INSERT, 2)

    assert trap.has_sprung.is_set()
    assert await kept(empty_database_url) == expected


@pytest.mark.parametrize(("side", "expected"), [("before", []), ("after", [1, 2])])
async def test_transaction_is_cut_at_its_commit(
    wire: Wire, client: Any, empty_database_url: str, side: Side, expected: list[int]
) -> None:
    trap = Trap(Point(name_of("writer", [INSERT]), 1), side)
    wire.count_anew(trap)

    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await both(client, 1)

    assert trap.has_sprung.is_set()
    assert await kept(empty_database_url) == expected


async def test_refused_statement_is_no_commit_to_cut_after(wire: Wire, client: Any) -> None:
    await client.execute(INSERT, 1)
    trap = Trap(Point(name_of("writer", [INSERT]), 1), "after")
    wire.count_anew(trap)

    with pytest.raises(asyncpg.UniqueViolationError):
        await client.execute(INSERT, 1)

    assert not trap.has_sprung.is_set()
    assert await client.fetchval("SELECT count(*) FROM kept") == 1


async def test_other_clients_are_not_cut(wire: Wire, client: Any) -> None:
    other = await asyncpg.connect(wire.dsn)
    wire.count_anew(Trap(Point(name_of("writer", [INSERT]), 1), "before"))

    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await client.execute(INSERT, 1)

    assert await other.fetchval("SELECT count(*) FROM kept") == 0
    await other.close()
