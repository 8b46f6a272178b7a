"""One double for all tests of this room: it is cleared before each."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.providers.openai_compatible import OpenAICompatible
from tests.provider_double.client import ProviderDouble


@pytest.fixture(scope="session")
def running_double() -> Iterator[ProviderDouble]:
    """The process."""
    with ProviderDouble() as running:
        yield running


@pytest.fixture
async def double(running_double: ProviderDouble) -> AsyncIterator[ProviderDouble]:
    """The double with nothing to play; the test fails if it had to refuse a transcript."""
    await running_double.reset()
    yield running_double
    assert [request.rejected for request in await running_double.requests() if request.rejected] == []


@pytest.fixture
async def provider(double: ProviderDouble) -> AsyncIterator[OpenAICompatible]:
    """The real adapter, pointed at the double."""
    adapter = OpenAICompatible(double.base_url, "sk-canary")
    yield adapter
    await adapter.aclose()
