"""Leases: granted with a fence, renewed by their holder alone, judged by the database's clock."""

from dataclasses import replace

import pytest

from app import ids, sessions
from app.db.engine import Database
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import claims
from app.turns.claims import Claim
from tests.journal.ledger import Node, claimed, read_session
from tests.turns.acts import completed, interrupted, read_turn

pytestmark = pytest.mark.anyio


async def seconds_left(database: Database, claim: Claim) -> float | None:
    """Read how long a claim's lease lasts still, by the database's clock."""
    async with database.transaction(DEFAULT_REALM) as db:
        left = await db.fetchval(
            "SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM turns WHERE id = $1", claim.turn_id
        )
    return None if left is None else float(left)


async def due(database: Database, limit: int = 100) -> list[str]:
    """Read whose live turn nobody holds."""
    async with database.transaction(DEFAULT_REALM) as db:
        return [session_id for _, session_id in await claims.due(db, limit)]


async def renewed(database: Database, node: Node, *held: Claim, seconds: float = 30) -> frozenset[str]:
    """Renew."""
    async with database.transaction(DEFAULT_REALM) as db:
        return (await claims.renew(db, replace(node.row, lease_seconds=seconds), held)).renewed


async def test_claim_lasts_for_the_nodes_lease(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, Node(lease_seconds=30))

    left = await seconds_left(database, claim)

    assert left is not None
    assert 25 < left <= 30
    assert await due(database) == []


async def test_renewal_sets_the_lease_anew_and_returns_what_is_held(database: Database, journal: Journal) -> None:
    node = Node(lease_seconds=5)
    held = [await claimed(journal, node) for _ in range(3)]

    kept = await renewed(database, node, *held, seconds=60)

    assert kept == {claim.turn_id for claim in held}
    left = [await seconds_left(database, claim) for claim in held]
    assert all(seconds is not None and seconds > 50 for seconds in left)


async def test_renewal_renews_nothing_that_is_not_held_any_more(database: Database, journal: Journal) -> None:
    node = Node()
    stolen, ended, stopped, erased, kept = [await claimed(journal, node) for _ in range(5)]
    await completed(journal, ended, node)
    await interrupted(journal, stopped.session_id, stopped.turn_id, node)
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, erased.session_id))
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE turns SET owner = $1 WHERE id = $2", ids.node_id(), stolen.turn_id)
    stale = replace(await claimed(journal, node), fence=0)

    assert await renewed(database, node, stolen, ended, stopped, erased, kept, stale) == {kept.turn_id}


async def test_another_node_cannot_renew(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, Node())

    assert await renewed(database, Node(), claim) == set()


async def test_turn_that_another_transaction_holds_is_passed_over_and_the_others_are_renewed(
    database: Database, journal: Journal
) -> None:
    node = Node()
    busy, free = [await claimed(journal, node) for _ in range(2)]

    async with database.transaction(DEFAULT_REALM) as other, database.transaction(DEFAULT_REALM) as db:
        await other.execute("UPDATE turns SET steps = steps WHERE id = $1", busy.turn_id)
        renewal = await claims.renew(db, node.row, [busy, free])
        await claims.release(db, node.node_id, [busy, free])

    assert (renewal.held, renewal.renewed) == (frozenset({busy.turn_id, free.turn_id}), frozenset({free.turn_id}))
    assert await due(database) == [free.session_id]


async def test_renewing_nothing_is_no_harm(database: Database) -> None:
    assert await renewed(database, Node()) == set()


async def test_lease_that_ran_out_is_due_and_still_its_holders_until_another_claims(
    database: Database, journal: Journal
) -> None:
    node = Node(lease_seconds=0)
    claim = await claimed(journal, node)

    assert await due(database) == [claim.session_id]
    assert await renewed(database, node, claim) == {claim.turn_id}
    assert await due(database) == []


async def test_turn_without_an_owner_is_due_at_once(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, node := Node())

    async with database.transaction(DEFAULT_REALM) as db:
        await claims.release(db, node.node_id, [claim])

    found = await read_turn(database, claim.session_id, claim.turn_id)
    assert (found.owner, found.status) == (None, "running")
    assert await due(database) == [claim.session_id]


async def test_only_the_holder_can_give_a_turn_back(database: Database, journal: Journal) -> None:
    claim = await claimed(journal, node := Node())

    async with database.transaction(DEFAULT_REALM) as db:
        await claims.release(db, ids.node_id(), [claim])
        await claims.release(db, node.node_id, [replace(claim, fence=claim.fence + 1)])

    assert (await read_turn(database, claim.session_id, claim.turn_id)).owner == node.node_id
    assert await due(database) == []


async def test_oldest_lease_is_due_first_and_no_more_than_asked_for(database: Database, journal: Journal) -> None:
    held = [await claimed(journal, Node(lease_seconds=0)) for _ in range(4)]

    assert await due(database, 3) == [claim.session_id for claim in held[:3]]


async def test_turn_that_is_over_is_never_due(database: Database, journal: Journal) -> None:
    node = Node(lease_seconds=0)
    claim = await claimed(journal, node)

    await completed(journal, claim, node)

    assert await due(database) == []
    assert await seconds_left(database, claim) is None


async def test_at_the_start_of_a_lone_server_every_lease_runs_out(database: Database, journal: Journal) -> None:
    node = Node()
    live, ended = await claimed(journal, node), await claimed(journal, node)
    await completed(journal, ended, node)

    async with database.transaction(DEFAULT_REALM) as db:
        await claims.expire_all(db)

    assert await due(database) == [live.session_id]
    assert (await read_turn(database, live.session_id, live.turn_id)).owner == node.node_id
    assert (await read_session(database, live.session_id)).instance_id is None
