"""Pools: room, and several nodes on one database."""

import asyncio
from typing import Any

import pytest

from app import sessions, telemetry
from app.db.engine import Database
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.worker import recovery
from tests.agent.doubles import Acting, Part, Played, brief, call, echo, fault
from tests.journal.ledger import Node, claimed, messages_of, open_session, start, types_of, writing
from tests.turns.acts import interrupted, read_turn
from tests.worker.floor import Traits, ended, held_up, lapsed, node, said_in, watching

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.05)


async def erase(journal: Journal, session_id: str) -> None:
    """Erase a session and tell."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, session_id))
    journal.forget(session_id)


async def test_node_that_dies_leaves_its_turn_to_another_which_asks_the_cut_step_again(database: Database) -> None:
    _, cut = held_up()
    async with node(database, Played([cut])) as first:
        session_id, turn_id = await first.turn()
        await said_in(database, session_id, "text_delta")
    await lapsed(database, turn_id)
    async with node(database, Played([brief("Paris.")])):
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.text, found.attempt, found.recoveries) == ("completed", "Paris.", 2, 1)
    assert await types_of(database, session_id) == [
        "session_created", "turn_started", "step_started", "text_delta", "turn_resumed", "step_discarded",
        "step_started", "text_delta", "text_complete", "step_completed", "turn_completed",
    ]  # fmt: skip
    assert [message["role"] for message in await messages_of(database, session_id)] == ["user", "assistant"]


async def test_tool_that_had_started_when_its_node_died_is_not_run_again(database: Database) -> None:
    is_running = asyncio.Event()

    async def run(_: object) -> str:
        is_running.set()
        await asyncio.Event().wait()
        return ""

    asked = brief("I look.", call(id="done"), call("slow", id="cut", index=1))
    quick, slow = Acting(echo), Acting(run, "slow")
    async with node(database, Played([asked]), [quick, slow]) as first:
        session_id, turn_id = await first.turn()
        async with asyncio.timeout(5):
            await is_running.wait()
        await said_in(database, session_id, "tool_execution_completed")
    await lapsed(database, turn_id)
    provider = Played([brief("Done.")])
    async with node(database, provider, [quick, slow]):
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.steps, found.tool_calls) == ("completed", 2, 2)
    assert (len(quick.runs), len(slow.runs)) == (1, 1)
    [_, _, results, _] = await messages_of(database, session_id)
    assert [(block["tool_use_id"], block["is_error"]) for block in results["content"]] == [("done", False), ("cut", True)]
    assert "unknown" in results["content"][1]["content"]
    assert "step_discarded" not in await types_of(database, session_id)


async def test_turn_that_takes_three_nodes_down_with_it_ends_at_the_recovery_limit(database: Database) -> None:
    async with writing(database) as journal:
        dead = Node(lease_seconds=0)
        claim = await claimed(journal, dead)
        session_id, turn_id = claim.session_id, claim.turn_id
    for attempt in (2, 3):
        async with node(database, Played([held_up()[1]])):
            await said_in(database, session_id, "text_delta", attempt - 1)
        await lapsed(database, turn_id)
    told: asyncio.Queue[Any] = asyncio.Queue()
    async with watching("turn_failed", told) as panel, node(database, Played([]), traits=Traits(panel=panel)):
        found = await ended(database, session_id, turn_id)
        async with asyncio.timeout(5):
            hooked = await told.get()

    assert (found.status, found.attempt) == ("failed", 3)
    types = await types_of(database, session_id)
    assert (types.count("turn_resumed"), types.count("turn_failed"), types[-1]) == (2, 1, "turn_failed")
    assert (hooked["session_id"], hooked["turn_id"], hooked["reason"]) == (session_id, turn_id, "RECOVERY_LIMIT")


async def test_turns_beyond_the_nodes_room_wait_and_run_as_soon_as_one_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 2.0)
    gate, first = held_up(*brief("is."))
    provider = Played([first, brief("Rome."), brief("Bern.")])
    async with node(database, provider, traits=Traits(max_live_turns=1)) as here:
        turns = [await here.turn() for _ in range(3)]
        await said_in(database, turns[0][0], "text_delta")
        waiting = [(await read_turn(database, *one)).attempt for one in turns]
        gate.set()
        found = [await ended(database, *one) for one in turns]

    assert waiting == [1, 0, 0]
    assert {one.status for one in found} == {"completed"}
    assert [one.attempt for one in found] == [1, 1, 1]


async def test_turn_accepted_by_a_node_that_runs_none_is_run_by_one_that_does(database: Database) -> None:
    async with writing(database) as door, node(database, Played([brief("Paris.")])):
        session_id = await open_session(door)
        turn_id = await start(door, session_id, Node(room=0))
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.attempt) == ("completed", 1)
    assert "turn_resumed" not in await types_of(database, session_id)


async def test_interrupt_on_another_node_stops_the_attempt_by_its_wakeup(database: Database) -> None:
    provider = Played([held_up()[1]])
    listening = Traits(has_wakeups=True)
    async with node(database, provider, traits=listening) as here, node(database, Played([]), traits=listening) as other:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")

        await interrupted(other.journal, session_id, turn_id, other.pool)
        await here.let_go(session_id)

    assert provider.closed == 1


async def test_interrupt_on_another_node_stops_the_attempt_also_when_its_wakeup_is_lost(database: Database) -> None:
    provider = Played([held_up()[1]])
    async with node(database, provider, traits=Traits(lease_seconds=3)) as here, writing(database) as other:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")

        await interrupted(other, session_id, turn_id, Node())
        await here.let_go(session_id)

    assert provider.closed == 1


async def test_foreign_news_that_leave_the_fence_alone_do_not_stop_the_attempt(database: Database) -> None:
    gate, answer = held_up(*brief("is."))
    listening = Traits(has_wakeups=True)
    async with (
        node(database, Played([answer, brief("Rome.")]), traits=listening) as here,
        node(database, Played([]), traits=listening) as other,
    ):
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
        queued = await start(other.journal, session_id, Node(), on_busy="queue")
        async with asyncio.timeout(5):
            while not here.pool._has_suspects.is_set() and not here.pool._suspects:
                await asyncio.sleep(0)
        gate.set()
        found = [await ended(database, session_id, one) for one in (turn_id, queued)]

    assert [(one.status, one.attempt) for one in found] == [("completed", 1), ("completed", 1)]


async def test_late_news_of_an_older_fence_do_not_stop_the_attempt(database: Database) -> None:
    gate, answer = held_up(*brief("is."))
    async with node(database, Played([answer])) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
        claim = here.holds(session_id)
        assert claim is not None

        here.journal._tell_watchers(session_id, claim.fence - 1)
        await asyncio.sleep(0)
        gate.set()
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.attempt) == ("completed", 1)


async def test_attempt_that_is_stopped_before_it_has_begun_lets_its_turn_go(database: Database) -> None:
    async with node(database, Played([brief("Paris.")])) as here:
        session_id, turn_id = await here.turn()
        here.pool._held[session_id].stop()
        await here.let_go(session_id)
        await lapsed(database, turn_id)
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.attempt) == ("completed", 2)


async def test_erased_session_stops_its_attempt_and_harms_no_other(database: Database) -> None:
    gate, answer = held_up(*brief("is."))
    provider = Played([held_up()[1], answer])
    async with node(database, provider) as here:
        gone, _ = await here.turn()
        stays, turn_id = await here.turn()
        await said_in(database, gone, "text_delta")
        await said_in(database, stays, "text_delta")

        await erase(here.journal, gone)
        await here.let_go(gone)
        gate.set()
        found = await ended(database, stays, turn_id)

    assert found.status == "completed"


@pytest.mark.parametrize("is_failing", [True, False], ids=["fails", "completes"])
async def test_turn_that_ends_just_after_its_session_was_erased_harms_no_other(database: Database, *, is_failing: bool) -> None:
    gate, other_gate = asyncio.Event(), asyncio.Event()
    last: list[Part] = [fault(is_retryable=False)] if is_failing else brief()
    provider = Played([[gate, *last], [other_gate, *brief("Paris.")]])
    async with node(database, provider) as here:
        gone, _ = await here.turn()
        stays, turn_id = await here.turn()
        await said_in(database, gone, "step_started")
        async with database.transaction(DEFAULT_REALM) as db:
            await db.execute("DELETE FROM sessions WHERE id = $1", gone)

        gate.set()
        await here.let_go(gone)
        other_gate.set()
        found = await ended(database, stays, turn_id)

    assert found.status == "completed"


async def test_turn_that_was_taken_over_while_its_node_was_frozen_has_one_story(database: Database) -> None:
    gate, answer = held_up(*brief("is the end."))
    async with node(database, Played([answer]), traits=Traits(max_live_turns=1)) as frozen:  # and so takes no other
        session_id, turn_id = await frozen.turn()
        await said_in(database, session_id, "text_delta")
        await lapsed(database, turn_id)
        async with node(database, Played([brief("Paris.")])):
            gate_opened = await ended(database, session_id, turn_id)
        gate.set()
        await frozen.let_go(session_id)

    types = await types_of(database, session_id)
    assert gate_opened.text == "Paris."
    assert types[-1] == "turn_completed"
    assert types.count("turn_completed") == 1


async def test_attempts_that_run_are_counted(database: Database) -> None:
    gates = [held_up(*brief("is.")) for _ in range(3)]
    async with node(database, Played([answer for _, answer in gates])) as here:
        turns = [await here.turn() for _ in gates]
        live = telemetry.REGISTRY.get_sample_value("suricate_live_turns")
        for gate, _ in gates:
            gate.set()
        for one in turns:
            await ended(database, *one)
            await here.let_go(one[0])

    assert live == 3
    assert telemetry.REGISTRY.get_sample_value("suricate_live_turns") == 0
