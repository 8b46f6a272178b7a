"""Bring a database to the schema that this code needs.

Alembic is heavy and rarely needed, so it is imported only where the database is behind. Nodes that start together take turns
at an advisory lock; the first migrates, the others find it done. Two versions run side by side while a new one goes in: a
migration only adds, and what no version uses any more is taken away by a later one, which raises the floor (`schema_floor`).
"""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import structlog

from app.db import walls
from app.db.engine import Database
from app.errors import StartupError

ROOT = Path(__file__).resolve().parents[2]
LOCK_KEY = 0x5375_7269_6361_7465  # "Suricate"; any constant that nothing else on the database uses
LOCK_TIMEOUT = "10s"  # a migration that cannot get its locks gives up rather than stop all traffic

log = structlog.get_logger()


def head() -> str:
    """Return the newest revision, read off the migrations' file names."""
    return max(path.name.partition("_")[0] for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py"))


async def migrate(database: Database, dsn: str) -> bool:
    """Upgrade to the newest schema; safe to call from any number of nodes at once.

    Returns:
        Whether anything was done.

    Raises:
        StartupError: the database is too far ahead of this code, or a migration failed; it is then as it was before.
        StoreUnavailable: Postgres could not be reached.
    """
    async with database.dedicated("migrate", statement_timeout="0", lock_timeout="0", role="none") as db:
        await db.execute("SELECT pg_advisory_lock($1)", LOCK_KEY, timeout=600)
        is_behind = await _is_behind(db)
        if is_behind:
            await asyncio.to_thread(_upgrade, dsn)
        await walls.grant(db)
        return is_behind


async def _is_behind(db: Any) -> bool:
    version = await _version(db)
    if version is not None and version > head():
        await _check_floor(db, version)
        return False
    return version != head()


async def _version(db: Any) -> str | None:
    if await db.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    version: str | None = await db.fetchval("SELECT version_num FROM alembic_version")
    return version


async def _check_floor(db: Any, version: str) -> None:
    """Let code run on a newer schema that still has all it needs."""
    floor: str = await db.fetchval("SELECT max(revision) FROM schema_floor")
    if head() < floor:
        raise StartupError(
            f"The database is at revision {version}, which code before {floor} cannot use; this is {head()}. Upgrade the code."
        )
    log.info("database_is_newer", revision=version)


def _upgrade(dsn: str) -> None:
    asyncio.run(_run_alembic(dsn))


async def _run_alembic(dsn: str) -> None:
    command = importlib.import_module("alembic.command")
    config = importlib.import_module("alembic.config").Config(toml_file=str(ROOT / "pyproject.toml"))
    engines = importlib.import_module("sqlalchemy.ext.asyncio")
    pool = importlib.import_module("sqlalchemy.pool")
    asyncpg = importlib.import_module("asyncpg")

    async def connect() -> Any:
        return await asyncpg.connect(dsn, server_settings={"lock_timeout": LOCK_TIMEOUT, "timezone": "UTC"})

    engine = engines.create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=pool.NullPool)

    def upgrade(connection: Any) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    except Exception as error:
        raise StartupError(f"A migration failed and was rolled back: {error}") from error
    finally:
        await engine.dispose()
