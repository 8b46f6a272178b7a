"""What the tests of this room share."""

from collections.abc import AsyncIterator

import pytest

from app.hooks.base import MAX_BODY_BYTES
from app.outbound.addresses import EVERYWHERE
from app.outbound.door import Door, Policy


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A door of its own for each test, that leads anywhere."""
    door = Door(Policy(EVERYWHERE, allows_http=True, max_response_bytes=MAX_BODY_BYTES))
    yield door
    await door.aclose()
