"""What the tests of the routes share: one server for all of them, whose `openai_compatible` provider is one double."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.databases import fresh_database
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

MAX_WAIT_SECONDS = 2
PING_SECONDS = 0.2
REQUEST_SECONDS = 0.5


@pytest.fixture(scope="package")
async def api_database_url(postgres: str) -> AsyncIterator[str]:
    """A migrated database for the shared server."""
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="package")
async def shared_double() -> AsyncIterator[ProviderDouble]:
    """The double behind the shared server."""
    async with ProviderDouble() as running:
        yield running


@pytest.fixture(scope="package")
async def shared_service(
    api_database_url: str, shared_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """The shared server; it waits and pings in short times, and its scripted model speaks at full speed."""
    settings = {
        "SURICATE_DATABASE_URL": api_database_url,
        "SURICATE_OPENAI_COMPATIBLE_BASE_URL": shared_double.base_url,
        "SURICATE_MAX_WAIT_SECONDS": str(MAX_WAIT_SECONDS),
        "SURICATE_SSE_PING_SECONDS": str(PING_SECONDS),
        "SURICATE_SCRIPTED_TOKENS_PER_SECOND": "0",
    }
    folder: Path = tmp_path_factory.mktemp("api")
    async with Service.started(folder, settings) as service:
        yield service


@pytest.fixture(scope="package")
async def impatient(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A server that gives its clients half a second for what they owe."""
    async with fresh_database(postgres) as url:
        settings = {
            "SURICATE_DATABASE_URL": url,
            "SURICATE_REQUEST_TIMEOUT_SECONDS": str(REQUEST_SECONDS),
            "SURICATE_MAX_WAIT_SECONDS": "3",
            "SURICATE_SCRIPTED_TOKENS_PER_SECOND": "200",
        }
        async with Service.started(tmp_path_factory.mktemp("impatient"), settings) as service:
            yield service


@pytest.fixture(scope="module")
async def configurable(
    postgres: str, shared_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A server of a module's own, since a realm's configuration holds for everyone who uses it."""
    async with fresh_database(postgres) as url:
        settings = {
            "SURICATE_DATABASE_URL": url,
            "SURICATE_OPENAI_COMPATIBLE_BASE_URL": shared_double.base_url,
            "SURICATE_SCRIPTED_TOKENS_PER_SECOND": "0",
        }
        async with Service.started(tmp_path_factory.mktemp("configurable"), settings) as service:
            yield service


@pytest.fixture
async def double(shared_double: ProviderDouble) -> AsyncIterator[ProviderDouble]:
    """The shared double without scripts and records; the test fails if it had to refuse a transcript."""
    await shared_double.reset()
    yield shared_double
    rejected = [request.rejected for request in await shared_double.requests() if request.rejected]
    assert rejected == []


@pytest.fixture
def service(shared_service: Service, double: ProviderDouble) -> Service:
    """The shared server."""
    return shared_service


@pytest.fixture
async def desk(service: Service) -> Desk:
    """A session that has taken no turn."""
    return Desk(service, (await service.create())["session_id"])


@pytest.fixture
async def busy(service: Service, desk: Desk, double: ProviderDouble) -> Desk:
    """A session whose live turn has shown `Par` and says no more."""
    await double.play([scripts.text("Par"), scripts.hang()])
    await desk.start("Hello", ASYNC)
    await service.frames(f"{desk.path}/events", until=["text_delta"])
    return desk
