"""What all tests share: one Postgres for the run, a fresh database for each test, servers as processes of their own."""

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from app.db import embedded
from app.db.engine import Database
from app.db.migrate import migrate
from tests import nats_server, nursery
from tests.provider_double.client import ProviderDouble
from tests.service import Service

TEMPLATE = "suricate_template"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no process of a run is left with one at its end."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on uvloop, as the server does."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A Postgres in memory where there is room for one, with a migrated template database; the DSN of its first database."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="suricate-", dir=memory if memory.is_dir() else None) as home,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(embedded.running(Path(home))) as server,
    ):
        portal.call(_make_template, server.dsn)
        yield server.dsn


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    """Where servers are born, for as long as tests run."""
    with nursery.opened():
        yield


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    name = f"test_{uuid.uuid4().hex}"  # noqa: TID251 - a name, not an id of ours
    await _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield _named(postgres, name)
    await _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_database_url(postgres: str) -> AsyncIterator[str]:
    """A fresh database without any table."""
    name = f"test_{uuid.uuid4().hex}"  # noqa: TID251 - a name, not an id of ours
    await _execute(postgres, f"CREATE DATABASE {name} TEMPLATE template0")
    yield _named(postgres, name)
    await _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database, connected."""
    database = Database(database_url, pool_size=5)
    await database.connect()
    yield database
    await database.aclose()


@pytest.fixture(scope="session")
def nats_program() -> str:
    """The program of NATS; the test is skipped where there is no way to have it."""
    try:
        return nats_server.found()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
async def double() -> AsyncIterator[ProviderDouble]:
    """A provider double in a process of its own; the test fails if it had to refuse a transcript."""
    async with ProviderDouble() as running:
        yield running
        rejected = [request.rejected for request in await running.requests() if request.rejected]
        assert rejected == []


@pytest.fixture
async def serve(database_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., "asyncio.Future[Service]"]]:
    """Start nodes on one fresh database: `await serve(SURICATE_LEASE_SECONDS="2")`; all are ended after the test."""
    async with AsyncExitStack() as stack:

        async def start(command: str = "serve", **settings: str) -> Service:
            return await stack.enter_async_context(
                Service.started(tmp_path, {"SURICATE_DATABASE_URL": database_url} | settings, command)
            )

        yield start  # type: ignore[misc] # a coroutine function is a callable of awaitables


@pytest.fixture
async def service(serve: Callable[..., "asyncio.Future[Service]"], double: ProviderDouble) -> Service:
    """One server whose `openai_compatible` provider is the double."""
    return await serve(SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url)


async def _make_template(dsn: str) -> None:
    await _execute(dsn, f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    url = _named(dsn, TEMPLATE)
    database = Database(url, pool_size=2)
    await database.connect()
    await migrate(database, url)
    await database.aclose()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _named(dsn: str, name: str) -> str:
    head, _, query = dsn.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{query}" if query else f"{head.rpartition('/')[0]}/{name}"
