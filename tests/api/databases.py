"""Databases for servers that outlive one test, and a look into them from behind."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg

TEMPLATE = "suricate_template"
TABLES = ("realms", "sessions", "turns", "events", "messages", "idempotency_keys", "api_keys", "stream_tickets")


@asynccontextmanager
async def fresh_database(dsn: str) -> AsyncIterator[str]:
    """Make a migrated database beside the one of a DSN; it is dropped at the end of the block."""
    name = f"test_{uuid.uuid4().hex}"  # noqa: TID251 - a name, not an id of ours
    await fetch(dsn, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield urlsplit(dsn)._replace(path=f"/{name}").geturl().replace("postgresql:/", "postgresql:///", 1)
    await fetch(dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def fetch(dsn: str, query: str, *args: object) -> list[Any]:
    """Run one statement."""
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[Any] = await connection.fetch(query, *args)
    finally:
        await connection.close()
    return rows


async def counted(connection: Any) -> Mapping[str, int]:
    """Count the rows of every table."""
    row = await connection.fetchrow("SELECT " + ", ".join(f"(SELECT count(*) FROM {name}) AS {name}" for name in TABLES))
    return dict(row)
