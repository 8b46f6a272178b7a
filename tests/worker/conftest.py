"""A journal of its own for each test of this room."""

from collections.abc import AsyncIterator

import pytest

from app.db.engine import Database
from app.journal.journal import Journal
from tests.journal.ledger import writing


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal whose writer runs; nothing listens and nothing polls."""
    async with writing(database) as running:
        yield running
