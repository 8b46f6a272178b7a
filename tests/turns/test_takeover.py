"""A turn that nobody holds goes on with the next attempt, once, from where its log has got to."""

import asyncio

import orjson
import pytest

from app import ids, sessions
from app.db.engine import Database
from app.errors import Fenced
from app.journal.entry import TurnChange
from app.journal.journal import Journal
from app.journal.types import StepCompleted, TextComplete
from app.messages import Message, Text, Usage
from app.sessions import DEFAULT_REALM
from app.turns import claims, takeover
from app.turns.claims import Claim
from tests.journal.ledger import Node, claimed, log_of, messages_of, open_session, pen, read_session, said, start, types_of
from tests.turns.acts import completed, read_turn

pytestmark = pytest.mark.anyio


async def taken_over(journal: Journal, session_id: str, node: Node) -> bool:
    """Take a session's turn over, if that can be done."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        return await takeover.take_over(tx, session_id, node)


async def crashed(journal: Journal) -> Claim:
    """Claim a turn for a node that never renews."""
    return await claimed(journal, Node(lease_seconds=0))


async def finish_step(journal: Journal, claim: Claim) -> None:
    """Put one whole step on record."""
    await pen(journal, claim).write(
        [*said("I look."), TextComplete(1, "I look."), StepCompleted(1, "end_turn", Usage(3, 2))],
        [Message("assistant", (Text("I look."),), "end_turn")],
        TurnChange(1, 0, Usage(3, 2), "I look.", "I look."),
    )


async def test_next_attempt_gets_the_turn_with_a_new_fence(database: Database, journal: Journal) -> None:
    old, node = await crashed(journal), Node()

    assert await taken_over(journal, old.session_id, node)

    [claim] = node.claims
    found = await read_turn(database, old.session_id, old.turn_id)
    assert (claim.turn_id, claim.attempt, claim.fence) == (old.turn_id, 2, old.fence + 1)
    assert (found.owner, found.attempt, found.recoveries, found.status) == (node.node_id, 2, 1, "running")
    [*_, resumed] = await log_of(database, old.session_id)
    assert (resumed["type"], resumed["attempt"], resumed["instance_id"]) == ("turn_resumed", 2, node.node_id)


async def test_old_attempt_writes_nothing_any_more(database: Database, journal: Journal) -> None:
    old = await crashed(journal)
    await taken_over(journal, old.session_id, Node())

    with pytest.raises(Fenced):
        await pen(journal, old).write(said("zombie"))
    with pytest.raises(Fenced):
        await completed(journal, old, Node())

    assert (await types_of(database, old.session_id))[-1] == "turn_resumed"


async def test_step_that_was_cut_is_discarded_from_its_start(database: Database, journal: Journal) -> None:
    old = await crashed(journal)
    await pen(journal, old).write(said("Par", "is"))

    await taken_over(journal, old.session_id, Node())

    [*_, resumed, discarded] = await log_of(database, old.session_id)
    assert resumed["type"] == "turn_resumed"
    assert (discarded["type"], discarded["step"], discarded["from_seq"]) == ("step_discarded", 1, 3)


async def test_finished_steps_stay_and_are_not_discarded(database: Database, journal: Journal) -> None:
    old, node = await crashed(journal), Node()
    await finish_step(journal, old)

    await taken_over(journal, old.session_id, node)

    [claim] = node.claims
    assert (claim.steps, claim.usage, claim.text) == (1, Usage(3, 2), "I look.")
    assert (await types_of(database, old.session_id))[-2:] == ["step_completed", "turn_resumed"]
    assert [message["role"] for message in await messages_of(database, old.session_id)] == ["user", "assistant"]


async def test_step_that_was_discarded_already_is_not_discarded_again(database: Database, journal: Journal) -> None:
    old = await crashed(journal)
    await pen(journal, old).write(said("Par"))
    await taken_over(journal, old.session_id, Node(lease_seconds=0))

    await taken_over(journal, old.session_id, Node())

    assert (await types_of(database, old.session_id))[-3:] == ["turn_resumed", "step_discarded", "turn_resumed"]


async def test_turn_accepted_without_room_begins_its_first_attempt_without_a_word(database: Database, journal: Journal) -> None:
    session_id, node = await open_session(journal), Node()
    await start(journal, session_id, Node(room=0))

    assert await taken_over(journal, session_id, node)

    assert node.claims[0].attempt == 1
    assert await types_of(database, session_id) == ["session_created", "turn_started"]


async def test_node_without_room_takes_nothing_over(database: Database, journal: Journal) -> None:
    old = await crashed(journal)
    before = await read_session(database, old.session_id)

    assert not await taken_over(journal, old.session_id, Node(room=0))

    assert await read_session(database, old.session_id) == before


async def test_overrides_of_the_turn_hold_for_every_attempt(journal: Journal) -> None:
    session_id, node = await open_session(journal), Node()
    await start(journal, session_id, Node(lease_seconds=0), overrides={"max_tokens": 7})

    await taken_over(journal, session_id, node)

    assert node.claims[0].options.max_tokens == 7


async def test_turn_whose_lease_is_in_force_is_nobody_elses(journal: Journal) -> None:
    claim = await claimed(journal, Node(lease_seconds=30))

    assert not await taken_over(journal, claim.session_id, Node())


async def test_session_that_is_idle_or_gone_has_nothing_to_take_over(journal: Journal) -> None:
    assert not await taken_over(journal, await open_session(journal), Node())
    assert not await taken_over(journal, ids.session_id(), Node())


async def test_of_many_nodes_that_find_the_same_turn_one_takes_it(database: Database, journal: Journal) -> None:
    old, nodes = await crashed(journal), [Node() for _ in range(10)]

    async with asyncio.timeout(5):
        taken = await asyncio.gather(*(taken_over(journal, old.session_id, node) for node in nodes))

    assert sum(taken) == 1
    assert sum(len(node.claims) for node in nodes) == 1
    assert (await types_of(database, old.session_id)).count("turn_resumed") == 1


async def test_session_that_another_hand_holds_is_passed_over_and_not_waited_for(journal: Journal) -> None:
    old = await crashed(journal)

    async with asyncio.timeout(2), journal.transaction(DEFAULT_REALM) as tx:
        await sessions.lock(tx, old.session_id)
        assert not await taken_over(journal, old.session_id, Node())


async def test_after_three_attempts_that_crashed_the_turn_fails_and_the_queue_goes_on(
    database: Database, journal: Journal
) -> None:
    dead, node = Node(lease_seconds=0), Node()
    claim = await claimed(journal, dead)
    queued = await start(journal, claim.session_id, dead, on_busy="queue")
    for _ in range(2):
        await taken_over(journal, claim.session_id, dead)
    await pen(journal, dead.claims[-1]).write(said("Par"))

    assert await taken_over(journal, claim.session_id, node)

    found = await read_turn(database, claim.session_id, claim.turn_id)
    error = orjson.loads(found.error or "{}")
    assert [claim.attempt for claim in dead.claims] == [1, 2, 3]
    assert (found.status, found.text, error["code"], error["reason"]) == ("failed", "Par", "AGENT_ERROR", "RECOVERY_LIMIT")
    assert [taken.turn_id for taken in node.claims] == [queued]
    assert node.given_up == [(claim.session_id, claim.turn_id, "RECOVERY_LIMIT")]
    [*_, failed, started] = await log_of(database, claim.session_id)
    assert (failed["type"], failed["error"]["reason"], started["type"]) == ("turn_failed", "RECOVERY_LIMIT", "turn_started")


async def test_turn_out_of_attempts_is_ended_also_by_a_node_without_room(database: Database, journal: Journal) -> None:
    dead = Node(lease_seconds=0)
    claim = await claimed(journal, dead)
    for _ in range(2):
        await taken_over(journal, claim.session_id, dead)

    assert await taken_over(journal, claim.session_id, Node(room=0))

    assert (await read_turn(database, claim.session_id, claim.turn_id)).status == "failed"


async def test_hand_over_is_no_crash_however_often(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    for _ in range(6):
        async with database.transaction(DEFAULT_REALM) as db:
            await claims.release(db, node.node_id, [node.claims[-1]])
        assert await taken_over(journal, claim.session_id, node)

    found = await read_turn(database, claim.session_id, claim.turn_id)
    assert (found.status, found.attempt, found.recoveries) == ("running", 7, 0)
