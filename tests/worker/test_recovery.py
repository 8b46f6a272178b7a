"""Looking for turns that nobody holds."""

import asyncio

import pytest

from app import telemetry
from app.db.engine import Database
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.worker import recovery
from app.worker.recovery import Recovery
from tests.journal.cable import cable_to
from tests.journal.ledger import LIMIT_SECONDS, Node, claimed, journal_on, running, types_of

pytestmark = pytest.mark.anyio


async def until_claimed(node: Node, count: int) -> None:
    """Wait, under the limit, until a node has so many claims."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(node.claims) < count:
            await asyncio.sleep(0.002)


async def test_look_claims_what_is_due_and_says_how_many(journal: Journal) -> None:
    due = [await claimed(journal, Node(lease_seconds=0)) for _ in range(3)]
    await claimed(journal, Node(lease_seconds=30))
    node = Node()
    before = telemetry.REGISTRY.get_sample_value("suricate_turns_recovered_total") or 0

    taken = await Recovery(journal, node).look()

    assert taken == 3
    assert [claim.turn_id for claim in node.claims] == [claim.turn_id for claim in due]
    assert telemetry.REGISTRY.get_sample_value("suricate_turns_recovered_total") == before + 3


async def test_look_takes_no_more_than_there_is_room_for(journal: Journal) -> None:
    for _ in range(3):
        await claimed(journal, Node(lease_seconds=0))
    node = Node(room=2)

    taken = await Recovery(journal, node).look()

    assert (taken, len(node.claims)) == (2, 2)
    assert await Recovery(journal, node).look() == 0


async def test_nodes_that_look_at_once_share_what_is_due(database: Database, journal: Journal) -> None:
    due = [await claimed(journal, Node(lease_seconds=0)) for _ in range(10)]
    nodes = [Node() for _ in range(4)]

    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.gather(*(Recovery(journal, node).look() for node in nodes))

    taken = [claim.turn_id for node in nodes for claim in node.claims]
    assert sorted(taken) == sorted(claim.turn_id for claim in due)
    for claim in due:
        assert (await types_of(database, claim.session_id)).count("turn_resumed") == 1


async def test_nudge_makes_it_look_before_its_time(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    looking = Recovery(journal, node)
    async with running(looking.run()):
        await claimed(journal, Node(lease_seconds=0))
        await until_claimed(node, 1)
        monkeypatch.setattr(recovery, "LOOK_SECONDS", 600)
        await asyncio.sleep(0)
        await claimed(journal, Node(lease_seconds=0))

        looking.nudge()
        await until_claimed(node, 2)


async def test_it_looks_again_after_the_database_was_away(
    database_url: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.02)
    node = Node()
    async with cable_to(database_url) as cable:
        cabled = Database(cable.dsn, pool_size=2)
        await cabled.connect()
        async with running(Recovery(journal_on(cabled), node).run()):
            cable.is_refusing = True
            cable.cut()
            async with asyncio.timeout(LIMIT_SECONDS):
                while cable.refused < 2:
                    await asyncio.sleep(0.002)
            await claimed(journal, Node(lease_seconds=0))

            cable.is_refusing = False
            await until_claimed(node, 1)
        await cabled.aclose()


async def test_session_that_cannot_be_read_keeps_no_other_from_being_taken_over(database: Database, journal: Journal) -> None:
    broken, whole = [await claimed(journal, Node(lease_seconds=0)) for _ in range(2)]
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE turns SET overrides = $1 WHERE id = $2", '{"of_a_later_version": 1}', broken.turn_id)
    node = Node()

    async with running(Recovery(journal, node).run()):
        await until_claimed(node, 1)

    assert [claim.turn_id for claim in node.claims] == [whole.turn_id]
