"""What journeys share: one double, and one server for those that neither kill nor configure theirs."""

from collections.abc import AsyncIterator

import pytest

from tests.api.databases import fresh_database
from tests.provider_double.client import ProviderDouble
from tests.service import Service


@pytest.fixture(scope="package")
async def lasting_double() -> AsyncIterator[ProviderDouble]:
    """One double for all journeys."""
    async with ProviderDouble() as running:
        yield running


@pytest.fixture(scope="package")
async def lasting_service(
    postgres: str, lasting_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """One server for journeys that leave it as they found it."""
    async with fresh_database(postgres) as url:
        settings = {"SURICATE_DATABASE_URL": url, "SURICATE_OPENAI_COMPATIBLE_BASE_URL": lasting_double.base_url}
        async with Service.started(tmp_path_factory.mktemp("journeys"), settings) as service:
            yield service


@pytest.fixture
async def double(lasting_double: ProviderDouble) -> AsyncIterator[ProviderDouble]:
    """The shared double without scripts and records; the test fails if it had to refuse a transcript."""
    await lasting_double.reset()
    yield lasting_double
    rejected = [request.rejected for request in await lasting_double.requests() if request.rejected]
    assert rejected == []


@pytest.fixture
def service(lasting_service: Service, double: ProviderDouble) -> Service:
    """The shared server."""
    return lasting_service
