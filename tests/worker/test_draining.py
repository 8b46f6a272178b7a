"""Nodes that drain: what runs there is handed over, and that is no crash."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import nodes, sessions
from app.db.engine import Database
from app.sessions import DEFAULT_REALM
from app.turns import desk
from app.worker import recovery
from tests.agent.doubles import Acting, Played, brief, call, echo
from tests.journal.ledger import open_session, read_until, types_of
from tests.turns.acts import read_turn
from tests.worker.floor import NodeUnderTest, Traits, ended, held_up, node, said_in, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.05)


@asynccontextmanager
async def drained(here: NodeUnderTest) -> AsyncIterator[None]:
    """Drain a node, and go on when that is done."""
    async with asyncio.timeout(5):
        await here.pool.drain()
    yield


async def test_draining_node_hands_its_turn_over_and_that_is_no_crash(database: Database) -> None:
    _, cut = held_up()
    at_once = Traits(grace_seconds=0)
    async with node(database, Played([cut]), traits=at_once) as first, node(database, Played([brief("Paris.")])):
        session_id, turn_id = await first.turn()
        await said_in(database, session_id, "text_delta")

        async with drained(first):
            found = await ended(database, session_id, turn_id)

    assert (found.status, found.text, found.attempt, found.recoveries) == ("completed", "Paris.", 2, 0)


async def test_draining_node_stops_a_turn_at_its_safe_point_and_nothing_is_done_twice(database: Database) -> None:
    gate = asyncio.Event()
    tool = Acting(echo)
    first_provider, second_provider = Played([[gate, *brief("I look.", call())]]), Played([brief("Done.")])
    async with node(database, first_provider, [tool]) as first:
        session_id, turn_id = await first.turn()
        await said_in(database, session_id, "step_started")
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(first.pool.drain())
            await asyncio.sleep(0)
            gate.set()
            await draining
        handed_over = await read_turn(database, session_id, turn_id)
        async with node(database, second_provider, [tool]):
            found = await ended(database, session_id, turn_id)

    assert (handed_over.status, handed_over.owner) == ("running", None)
    assert (found.status, found.steps, found.recoveries) == ("completed", 2, 0)
    assert len(tool.runs) == 1
    assert "step_discarded" not in await types_of(database, session_id)


async def test_draining_node_lets_a_turn_end_that_can(database: Database) -> None:
    gate, answer = held_up(*brief("is."))
    async with node(database, Played([answer])) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(here.pool.drain())
            await asyncio.sleep(0)
            gate.set()
            await draining
        found = await read_turn(database, session_id, turn_id)

    assert (found.status, found.attempt) == ("completed", 1)


async def test_draining_node_takes_no_turn_more(database: Database) -> None:
    async with node(database, Played([])) as here, drained(here):
        session_id, turn_id = await here.turn()
        found = await read_turn(database, session_id, turn_id)

    assert (found.status, found.owner) == ("running", None)


async def test_claim_that_commits_while_the_node_begins_to_drain_is_given_back(database: Database) -> None:
    async with node(database, Played([])) as here:
        session_id = await open_session(here.journal)
        async with here.journal.transaction(DEFAULT_REALM) as tx:
            turn_id = await desk.start(tx, await sessions.lock(tx, session_id), desk.NewTurn('"Hello"', {}), here.pool)
            here.pool.close()
        await until(database, "SELECT owner IS NULL FROM turns WHERE id = $1", turn_id)


async def told(database: Database, here: NodeUnderTest, by: NodeUnderTest, *, is_draining: bool) -> None:
    """Tell a node to drain, or to work again, by way of another, and wait until it has heard."""
    async with database.transaction(DEFAULT_REALM) as db:
        await nodes.tell(db, here.pool.node_id, is_draining=is_draining)
    by.journal.rouse(here.pool.node_id)
    async with asyncio.timeout(5):
        while here.pool.is_draining is not is_draining:
            await asyncio.sleep(0.002)


async def test_node_that_is_told_to_drain_hands_over_and_works_again_when_it_is_told_to(database: Database) -> None:
    provider = Played([held_up()[1], brief("Rome.")])
    traits = Traits(has_wakeups=True, grace_seconds=0)
    async with node(database, provider, traits=traits) as here:
        async with node(database, Played([brief("Paris.")]), traits=traits) as other:
            handed_over = await here.turn()
            await said_in(database, handed_over[0], "text_delta")
            await told(database, here, other, is_draining=True)
            first = await ended(database, *handed_over)
            await told(database, here, other, is_draining=False)
        second = await ended(database, *(await here.turn()))

    assert (first.text, first.attempt, first.recoveries) == ("Paris.", 2, 0)
    assert (second.text, second.attempt) == ("Rome.", 1)


async def test_turn_goes_on_where_it_is_if_its_node_works_again_within_the_grace(database: Database) -> None:
    gate, answer = held_up(*brief("is."))
    traits = Traits(has_wakeups=True, grace_seconds=2)
    async with node(database, Played([answer]), traits=traits) as here, node(database, Played([]), traits=traits) as other:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
        await told(database, here, other, is_draining=True)
        await told(database, here, other, is_draining=False)

        async with asyncio.timeout(5):
            while any("_give_back" in repr(task) for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
        gate.set()
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.attempt) == ("completed", 1)


async def test_node_that_drains_ends_its_readings_until_it_works_again(database: Database) -> None:
    traits = Traits(has_wakeups=True)
    async with node(database, Played([]), traits=traits) as here, node(database, Played([]), traits=traits) as other:
        session_id = await open_session(here.journal)
        await told(database, here, other, is_draining=True)
        with here.journal.subscriptions.open(DEFAULT_REALM, session_id) as reader:
            ends = [shown.type async for batch in reader.read() for shown in batch]
        await told(database, here, other, is_draining=False)

        with here.journal.subscriptions.open(DEFAULT_REALM, session_id, after=1) as reader:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(read_until(reader, 1))
                await here.start(session_id)
            lasts = [shown.type for shown in reading.result()]

    assert ends == ["session_created"]
    assert lasts == ["turn_started"]
