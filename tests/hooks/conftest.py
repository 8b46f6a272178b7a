"""What the tests of this room share."""

from collections.abc import AsyncIterator

import pytest

from app.providers.transport import Transport


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport of its own for each test."""
    async with Transport() as opened:
        yield opened
