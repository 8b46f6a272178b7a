"""One attempt at a turn, from its claim to the three states that it may leave behind."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from app.agent.loop import Limits
from app.db.engine import Database
from app.messages import Usage
from app.providers.base import TextChunk
from app.sessions import Options
from app.tools.builtin import Datetime
from tests.agent.doubles import AT_ONCE, Acting, Part, Played, brief, call, echo, fault
from tests.journal.cable import cable_to
from tests.journal.ledger import Node, claimed, log_of, messages_of, open_session, read_session, start, types_of, writing
from tests.turns.acts import archived, completed, interrupted
from tests.worker.floor import Traits, ended, node, said_in

pytestmark = pytest.mark.anyio


def stuck(*parts: Part) -> list[Part]:
    """Make an answer that says something and then nothing more."""
    return [*parts, asyncio.Event()]


async def test_plain_turn_leaves_the_log_of_the_contract(database: Database) -> None:
    async with node(database, Played([brief("Paris.")])) as here:
        session_id, turn_id = await here.turn()
        found = await ended(database, session_id, turn_id)

    assert await types_of(database, session_id) == [
        "session_created", "turn_started", "step_started", "text_delta", "text_complete", "step_completed", "turn_completed",
    ]  # fmt: skip
    assert (found.status, found.text, found.steps, found.usage, found.stop_reason) == (
        "completed", "Paris.", 1, Usage(3, 2), "end_turn",
    )  # fmt: skip


async def test_turn_with_tools_leaves_log_rows_and_transcript_that_agree(database: Database) -> None:
    provider = Played([brief("I look.", call(args='{"x": 1}')), brief("Done.")])
    async with node(database, provider, [Acting(echo)]) as here:
        session_id, turn_id = await here.turn()
        found = await ended(database, session_id, turn_id)

    [*_, last] = await log_of(database, session_id)
    session = await read_session(database, session_id)
    assert (found.steps, found.tool_calls, found.usage, found.last_seq) == (2, 1, Usage(6, 4), last["seq"])
    assert (last["steps"], last["tool_calls"], last["usage"]["total_tokens"], last["text"]) == (2, 1, 10, "Done.")
    assert (session.usage, session.last_assistant_text) == (Usage(6, 4), "Done.")
    stored = await messages_of(database, session_id)
    assert [message["role"] for message in stored] == ["user", "assistant", "tool", "assistant"]
    assert session.message_count == len(stored)


async def test_joined_deltas_of_a_step_equal_its_text(database: Database) -> None:
    words = [f"{number} " for number in range(300)]
    async with node(database, Played([brief(*words)]), traits=Traits(interval_seconds=0.015)) as here:
        session_id, turn_id = await here.turn()
        await ended(database, session_id, turn_id)

    log = await log_of(database, session_id)
    deltas = [event["delta"] for event in log if event["type"] == "text_delta"]
    [complete] = [event["content"] for event in log if event["type"] == "text_complete"]
    assert "".join(deltas) == complete == "".join(words)


async def test_next_turn_is_asked_with_the_whole_history_and_the_system_prompt(database: Database) -> None:
    provider = Played([brief("Paris."), brief("Rome.")])
    async with node(database, provider) as here:
        session_id = await open_session(here.journal, Options("played", "played", "Be brief.", max_tokens=9))
        await ended(database, session_id, await here.start(session_id, "France?"))
        await ended(database, session_id, await here.start(session_id, "Italy?"))

    [_, second] = provider.requests
    assert [(message.role, message.text) for message in second.messages] == [
        ("user", "France?"),
        ("assistant", "Paris."),
        ("user", "Italy?"),
    ]
    assert (second.system, second.max_tokens, second.model) == ("Be brief.", 9, "played")


@pytest.mark.parametrize(("builtins", "names"), [(None, ["datetime", "echo"]), (True, ["datetime", "echo"]), (False, ["echo"])])
async def test_built_in_tools_are_offered_unless_the_session_does_without(
    database: Database,
    builtins: bool | None,
    names: list[str],
) -> None:
    provider = Played([brief("Hi.")])
    async with node(database, provider, [Datetime(), Acting(echo)]) as here:
        session_id = await open_session(here.journal, Options("played", "played", builtins=builtins))
        await ended(database, session_id, await here.start(session_id))

    assert [spec.name for spec in provider.requests[0].tools] == names


async def test_provider_that_this_node_does_not_have_fails_the_turn(database: Database) -> None:
    async with node(database, Played([])) as here:
        session_id = await open_session(here.journal, Options("gpt", "elsewhere"))
        found = await ended(database, session_id, await here.start(session_id))

    assert found.status == "failed"
    assert orjson.loads(found.error or "")["reason"] == "PROVIDER_UNAVAILABLE"


async def test_fault_that_cannot_be_mended_fails_the_turn_with_its_reason_and_keeps_the_words(database: Database) -> None:
    async with node(database, Played([[TextChunk("Par"), fault("PROVIDER_AUTH", is_retryable=False)]])) as here:
        session_id, turn_id = await here.turn()
        found = await ended(database, session_id, turn_id)

    assert (found.status, found.text) == ("failed", "Par")
    [*_, last] = await log_of(database, session_id)
    assert last["error"] == {"code": "AGENT_ERROR", "reason": "PROVIDER_AUTH", "message": "It broke."}
    assert (await messages_of(database, session_id))[-1]["stop_reason"] == "interrupted"


class Broken(Played):
    """A provider with a mistake in it."""

    async def stream(self, _: object) -> Any:
        """Fail as no provider should."""
        yield TextChunk("Par")
        raise ZeroDivisionError("secret")


async def test_mistake_of_ours_fails_the_turn_without_its_words(database: Database) -> None:
    async with node(database, Broken([])) as here:
        session_id, turn_id = await here.turn()
        found = await ended(database, session_id, turn_id)

    error = orjson.loads(found.error or "")
    assert (found.status, error["reason"]) == ("failed", "INTERNAL")
    assert "secret" not in str(await log_of(database, session_id))


async def test_try_that_is_discarded_names_the_first_of_its_events_on_the_log(database: Database) -> None:
    async with node(database, Played([[TextChunk("Lon"), fault()], brief("Paris.")])) as here:
        session_id, turn_id = await here.turn()
        await ended(database, session_id, turn_id)

    log = await log_of(database, session_id)
    [discarded] = [event for event in log if event["type"] == "step_discarded"]
    begun = log[discarded["from_seq"] - 1]
    assert (begun["type"], begun["seq"], discarded["step"]) == ("step_started", 3, 1)
    assert [event["type"] for event in log[3:7]] == ["text_delta", "retrying", "step_discarded", "step_started"]
    assert (await messages_of(database, session_id))[-1]["content"] == [{"type": "text", "text": "Paris."}]


async def test_limits_are_the_nodes(database: Database) -> None:
    limits = Limits(step_limit=1, tool_timeout_seconds=30, retries=AT_ONCE)
    async with node(database, Played([brief(call())]), [Acting(echo)], Traits(limits=limits)) as here:
        session_id, turn_id = await here.turn()
        found = await ended(database, session_id, turn_id)

    assert orjson.loads(found.error or "")["reason"] == "STEP_LIMIT"
    assert [message["role"] for message in await messages_of(database, session_id)] == ["user", "assistant", "tool"]


async def test_interrupt_closes_the_providers_stream_and_frees_the_node(database: Database) -> None:
    provider = Played([stuck(TextChunk("Par"))])
    async with node(database, provider) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")

        await interrupted(here.journal, session_id, turn_id, here.pool)
        await here.let_go(session_id)

    assert provider.closed == 1
    assert (await types_of(database, session_id))[-1] == "turn_interrupted"


async def test_interrupt_while_a_tool_runs_stops_the_tool(database: Database) -> None:
    is_running, was_stopped = asyncio.Event(), asyncio.Event()

    async def run(_: Mapping[str, Any]) -> str:
        is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_stopped.set()
        return ""

    async with node(database, Played([brief(call())]), [Acting(run)]) as here:
        session_id, turn_id = await here.turn()
        async with asyncio.timeout(5):
            await is_running.wait()
            await interrupted(here.journal, session_id, turn_id, here.pool)
            await was_stopped.wait()
        await here.let_go(session_id)

    [*_, results] = await messages_of(database, session_id)
    assert [block["is_error"] for block in results["content"]] == [True]


async def test_interrupt_frees_the_session_at_once_though_a_tool_is_deaf(database: Database) -> None:
    is_free, is_running = asyncio.Event(), asyncio.Event()

    async def deaf(_: Mapping[str, Any]) -> str:
        is_running.set()
        while not is_free.is_set():
            try:
                await is_free.wait()
            except asyncio.CancelledError:
                continue
        return ""

    async with node(database, Played([brief(call()), brief("Hi.")]), [Acting(deaf)]) as here:
        try:
            session_id, turn_id = await here.turn()
            async with asyncio.timeout(5):
                await is_running.wait()

            await interrupted(here.journal, session_id, turn_id, here.pool)
            await here.let_go(session_id)
            found = await ended(database, session_id, await here.start(session_id))
        finally:
            is_free.set()

    assert found.status == "completed"


async def test_session_archived_by_another_hand_stops_its_attempt(database: Database) -> None:
    provider = Played([stuck(TextChunk("Par"))])
    async with node(database, provider) as here:
        session_id, _ = await here.turn()
        await said_in(database, session_id, "text_delta")

        await archived(here.journal, session_id)
        await here.let_go(session_id)

    assert provider.closed == 1


async def test_attempt_whose_turn_was_ended_before_it_read_the_history_asks_nobody(database: Database) -> None:
    provider, idle = Played([brief("Paris.")]), Node()
    async with node(database, provider) as here, writing(database) as other:
        first = await claimed(other, idle)
        await completed(other, first, idle)
        turn_id = await start(other, first.session_id, idle)
        await interrupted(other, first.session_id, turn_id, idle)

        here.pool.take(idle.claims[-1])
        await here.let_go(first.session_id)

    assert provider.requests == []


async def test_queued_turns_run_one_after_the_other(database: Database) -> None:
    provider = Played([brief(f"{number}.") for number in range(4)])
    async with node(database, provider) as here:
        session_id, first = await here.turn()
        others = [await here.start(session_id, f"{number}", on_busy="queue") for number in range(3)]
        found = [await ended(database, session_id, turn_id) for turn_id in (first, *others)]

    assert [one.text for one in found] == ["0.", "1.", "2.", "3."]
    assert [message["role"] for message in await messages_of(database, session_id)] == ["user", "assistant"] * 4


async def test_turn_behind_one_that_fails_runs_all_the_same(database: Database) -> None:
    provider = Played([[asyncio.Event(), fault(is_retryable=False)], brief("Done.")])
    gate = provider.answers[0][0]
    assert isinstance(gate, asyncio.Event)
    async with node(database, provider) as here:
        session_id, first = await here.turn()
        second = await here.start(session_id, on_busy="queue")
        gate.set()
        found = [await ended(database, session_id, turn_id) for turn_id in (first, second)]

    assert [one.status for one in found] == ["failed", "completed"]


async def test_database_that_goes_away_in_the_middle_costs_time_and_nothing_else(database: Database, database_url: str) -> None:
    gate = asyncio.Event()
    provider = Played([[TextChunk("Par"), gate, *brief("is.")]])
    async with cable_to(database_url) as cable:
        cabled = Database(cable.dsn, pool_size=4)
        await cabled.connect()
        async with node(cabled, provider) as here:
            session_id, turn_id = await here.turn()
            await said_in(database, session_id, "text_delta")
            cable.is_refusing = True
            cable.cut()
            gate.set()
            async with asyncio.timeout(5):
                while cable.refused < 3:
                    await asyncio.sleep(0.002)

            cable.is_refusing = False
            found = await ended(database, session_id, turn_id)
        await cabled.aclose()

    assert (found.status, found.text, found.attempt) == ("completed", "Paris.", 1)
    assert (await types_of(database, session_id)).count("turn_completed") == 1


async def test_text_that_cannot_be_stored_harms_no_other_turn(database: Database) -> None:
    gate = asyncio.Event()
    provider = Played([[TextChunk("\ud800"), asyncio.Event()], [gate, *brief("Paris.")]])
    async with node(database, provider) as here:
        bad, _ = await here.turn()
        good, turn_id = await here.turn()
        await here.let_go(bad)
        gate.set()
        found = await ended(database, good, turn_id)

    assert found.status == "completed"
