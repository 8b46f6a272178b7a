"""Lists of sessions, as the database answers them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app import catalog
from app.catalog import Query
from app.db.engine import Database
from app.sessions import DEFAULT_REALM

pytestmark = pytest.mark.anyio

AFTER = (datetime(2026, 1, 1, tzinfo=UTC), "01998f3e-2a51-7c3d-9b1e-5f2a7c9d0e11")
QUERIES = [
    Query(),
    Query(order="-created_at"),
    Query(archived="true"),
    Query(archived="any"),
    Query(archived="any", order="-created_at", after=AFTER),
    Query(after=AFTER),
    Query(status="idle"),
    Query(status="running"),
    Query(status="archived", archived="any"),
]


class Explainer:
    """Answers every query with no rows, and keeps how the database would have gone about it."""

    realm = DEFAULT_REALM

    def __init__(self, db: Any) -> None:
        self._db = db
        self.plan = ""

    async def fetch(self, statement: str, *args: object) -> list[Any]:
        rows = await self._db.fetch(f"EXPLAIN (COSTS OFF) {statement}", *args)
        self.plan = "\n".join(row[0].strip().removeprefix("->").strip() for row in rows)
        return []


@pytest.mark.parametrize("query", QUERIES, ids=repr)
async def test_a_page_is_read_off_an_index_in_its_order(database: Database, query: Query) -> None:
    async with database.dedicated("test", enable_seqscan="off", enable_bitmapscan="off") as db:
        explainer = Explainer(db)

        await catalog.find(explainer, query)  # type: ignore[arg-type]

    steps = explainer.plan.splitlines()
    assert any(step.startswith("Index Scan") for step in steps)
    assert not {"Sort", "Incremental Sort"} & set(steps)
    assert not any(step.startswith("Seq Scan") for step in steps)
