"""The list of nodes: who is alive by the database's clock, what each holds, and what each is told."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app import nodes
from app.db.engine import Database
from app.errors import NodeNotFound
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import claims
from app.turns.claims import Claim
from tests.journal.ledger import Node, claimed, writing

pytestmark = pytest.mark.anyio


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal whose writer runs."""
    async with writing(database) as running:
        yield running


async def renewed(database: Database, row: nodes.Node, *held: Claim, is_stopping: bool = False) -> bool:
    """Renew a node, and return whether it is to drain."""
    async with database.transaction(DEFAULT_REALM) as db:
        return (await claims.renew(db, row, held, is_stopping=is_stopping)).is_draining


async def listed(database: Database) -> dict[str, dict[str, Any]]:
    """Read the list, by id."""
    async with database.transaction(DEFAULT_REALM) as db:
        return {one["instance_id"]: one for one in await nodes.find(db)}


async def told(database: Database, node_id: str, *, is_draining: bool) -> dict[str, Any]:
    """Tell a node to drain, or not to."""
    async with database.transaction(DEFAULT_REALM) as db:
        return await nodes.tell(db, node_id, is_draining=is_draining)


async def test_node_is_listed_from_its_first_renewal_with_the_turns_it_holds(database: Database, journal: Journal) -> None:
    busy, idle = Node(), Node()
    held = [await claimed(journal, busy) for _ in range(2)]
    await renewed(database, busy.row, *held)
    await renewed(database, idle.row)
    first = (await listed(database))[busy.node_id]
    await renewed(database, busy.row, *held)

    found = await listed(database)

    assert list(found) == [busy.node_id, idle.node_id]
    assert [one["live_turns"] for one in found.values()] == [2, 0]
    assert {one["status"] for one in found.values()} == {"ready"}
    assert found[busy.node_id]["started_at"] == first["started_at"]
    assert found[busy.node_id]["seen_at"] >= first["seen_at"]
    assert 0 <= found[busy.node_id]["lease_age_seconds"] < 5


async def test_node_that_was_not_seen_within_its_lease_is_lost_until_it_is_seen_again(database: Database) -> None:
    node = Node()
    await renewed(database, replace(node.row, lease_seconds=0))
    lost = (await listed(database))[node.node_id]["status"]

    await renewed(database, node.row)

    assert lost == "lost"
    assert (await listed(database))[node.node_id]["status"] == "ready"


async def test_holder_of_turns_without_a_row_is_listed_and_lost_once_its_leases_have_run_out(
    database: Database, journal: Journal
) -> None:
    node = Node()
    await claimed(journal, node)
    before = (await listed(database))[node.node_id]
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE turns SET lease_expires_at = clock_timestamp()")

    after = (await listed(database))[node.node_id]

    assert [(one["status"], one["live_turns"], one["kind"], one["seen_at"]) for one in (before, after)] == [
        ("ready", 1, None, None),
        ("lost", 1, None, None),
    ]


async def test_node_hears_with_its_renewals_that_it_is_to_drain_until_it_is_told_otherwise(database: Database) -> None:
    node, other = Node(), Node()
    before = [await renewed(database, one.row) for one in (node, other)]

    drained = await told(database, node.node_id, is_draining=True)
    heard = [await renewed(database, one.row) for one in (node, node, other)]
    undrained = await told(database, node.node_id, is_draining=False)

    assert (before, heard) == ([False, False], [True, True, False])
    assert (drained["status"], undrained["status"]) == ("draining", "ready")
    assert await renewed(database, node.row) is False


@pytest.mark.parametrize("node_id", ["0199c0de-0000-7000-8000-000000000000", "no-id", "a\0"])
async def test_who_is_not_on_the_list_cannot_be_told(database: Database, node_id: str) -> None:
    with pytest.raises(NodeNotFound):
        await told(database, node_id, is_draining=True)


async def test_node_that_stops_says_so_and_leaves(database: Database) -> None:
    node = Node()
    await renewed(database, node.row)
    await renewed(database, node.row, is_stopping=True)
    stopping = (await listed(database))[node.node_id]["status"]

    async with database.transaction(DEFAULT_REALM) as db:
        await nodes.leave(db, node.node_id)

    assert stopping == "draining"
    assert await listed(database) == {}


async def test_rows_that_were_not_renewed_for_long_are_swept(database: Database) -> None:
    old, new = Node(), Node()
    async with database.transaction(DEFAULT_REALM) as db:
        for node in (old, new):
            await claims.renew(db, node.row, [])
        await db.execute("UPDATE nodes SET seen_at = seen_at - interval '61 minutes' WHERE id = $1", old.node_id)

        assert await nodes.sweep(db) == 1

    assert list(await listed(database)) == [new.node_id]


async def test_at_the_start_of_a_lone_server_no_earlier_node_is_left(database: Database) -> None:
    await renewed(database, Node().row)

    async with database.transaction(DEFAULT_REALM) as db:
        await claims.expire_all(db)

    assert await listed(database) == {}
