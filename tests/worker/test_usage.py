"""What providers report is counted as it is reported: of answers that are cut, tried again or interrupted too."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app import clock, sessions
from app.agent import tally
from app.agent.emissions import Record
from app.db.engine import Database
from app.messages import Usage
from app.providers.base import Finish, TextChunk, UsageChunk
from app.sessions import DEFAULT_REALM, Options
from app.turns import waiting
from app.turns.waiting import Result
from tests.agent.doubles import Acting, Part, Played, brief, call, carried_out, fault, task_of
from tests.journal.ledger import log_of, open_session, read_session
from tests.turns.acts import interrupted, read_turn
from tests.worker.floor import NodeUnderTest, ended, lapsed, node, said_in, until

pytestmark = pytest.mark.anyio

BEGUN = UsageChunk(Usage(100, 1, 5, 7))
TOOL = {"name": "weather", "description": "", "input_schema": {"type": "object"}}


async def test_interrupted_answer_counts_what_was_reported_before(database: Database) -> None:
    async with node(database, Played([[BEGUN, TextChunk("Par"), asyncio.Event()]])) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")

        await interrupted(here.journal, session_id, turn_id, here.pool)

    found, session = await read_turn(database, session_id, turn_id), await read_session(database, session_id)
    [*_, last] = await log_of(database, session_id)
    assert found.usage == session.usage == BEGUN.usage
    assert (last["type"], last["usage"]["total_tokens"]) == ("turn_interrupted", 101)
    assert found.spent_tokens == session.spent_tokens == 101


async def test_try_that_is_made_again_is_counted_with_the_one_that_answers(database: Database) -> None:
    provider = Played([[BEGUN, TextChunk("Lon"), fault()], [BEGUN, *brief("Paris.", usage=Usage(100, 20, 5, 7))]])
    async with node(database, provider) as here:
        found = await ended(database, *(await here.turn()))

    session = await read_session(database, found.session_id)
    [*_, completed, last] = await log_of(database, found.session_id)
    assert found.usage == session.usage == Usage(200, 21, 10, 14)
    assert (completed["usage"]["output_tokens"], last["usage"]["output_tokens"]) == (20, 21)
    assert found.spent_tokens == session.spent_tokens == 221


@pytest.mark.parametrize("reports", [[], [BEGUN], [BEGUN, UsageChunk(Usage(100, 30, 5, 7))]], ids=["none", "one", "two"])
async def test_failed_answer_counts_the_last_report_and_no_fewer_pieces_than_came(
    database: Database, reports: list[Part]
) -> None:
    said = [TextChunk("a")] * 10
    async with node(database, Played([[*reports, *said, fault(is_retryable=False)]])) as here:
        found = await ended(database, *(await here.turn()))

    session = await read_session(database, found.session_id)
    [*_, last] = await log_of(database, found.session_id)
    reported = [report.usage for report in reports if isinstance(report, UsageChunk)]
    assert found.usage == session.usage == (reported[-1] if reported else Usage())
    assert last["usage"]["output_tokens"] == found.usage.output_tokens
    assert found.spent_tokens == session.spent_tokens == found.usage.input_tokens + max(found.usage.output_tokens, 10)


async def test_reports_that_grow_are_counted_once(database: Database) -> None:
    reports = [UsageChunk(Usage(10, count)) for count in (1, 5, 6)]
    async with node(database, Played([[*reports, TextChunk("a"), Finish("end_turn", Usage(10, 7))]])) as here:
        found = await ended(database, *(await here.turn()))

    assert (found.usage, found.spent_tokens) == (Usage(10, 7), 17)


async def test_answer_that_died_with_its_node_stays_counted(database: Database) -> None:
    async with node(database, Played([[BEGUN, TextChunk("Par"), asyncio.Event()]])) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
    await lapsed(database, turn_id)

    async with node(database, Played([brief("Paris.")])):
        found = await ended(database, session_id, turn_id)

    [*_, last] = await log_of(database, session_id)
    assert (found.attempt, found.usage) == (2, Usage(103, 3, 5, 7))
    assert last["usage"]["total_tokens"] == 106


async def test_growth_is_put_on_record_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [UsageChunk(Usage(10, count)) for count in (1, 5, 5, 6)]

    async def recorded() -> list[int]:
        book = await carried_out(task_of(Played([[*reports, Finish("end_turn", Usage(10, 7))]])))
        changes = [record.change for record in book.emissions if isinstance(record, Record)]
        return [change.usage.output_tokens for change in changes if change is not None]

    assert await recorded() == [1, 6]
    monkeypatch.setattr(tally, "RECORDED_EVERY_SECONDS", 0.0)
    assert await recorded() == [1, 4, 1, 1]


async def test_try_that_used_up_the_budget_is_not_followed_by_another(database: Database) -> None:
    provider = Played([[BEGUN, TextChunk("a"), fault()], brief("never")])
    async with node(database, provider) as here:
        session_id = await open_session(here.journal, Options("played", "played", budget_limits={"max_tokens": 50}))
        found = await ended(database, session_id, await here.start(session_id))

    assert (found.error is not None and "BUDGET_EXHAUSTED" in found.error, len(provider.requests)) == (True, 1)
    assert (await read_session(database, session_id)).spent_tokens == 101


async def test_time_of_tools_before_a_turn_waits_is_running_time(database: Database) -> None:
    is_done = asyncio.Event()

    async def slow(_: Mapping[str, Any]) -> str:
        await is_done.wait()
        return "done"

    provider = Played([brief(call(), call("weather", index=1)), brief("Fine.")])
    async with node(database, provider, [Acting(slow)]) as here:
        session_id = await open_session(here.journal, Options("played", "played", external_tools=[TOOL]))
        turn_id = await here.start(session_id)
        await said_in(database, session_id, "tool_execution_started")
        await asyncio.sleep(0.2)
        is_done.set()
        await until(database, "SELECT status = 'waiting' FROM turns WHERE id = $1", turn_id)
        await asyncio.sleep(0.3)
        waiting_ms = (await read_session(database, session_id)).running_ms
        answered_at = clock.monotonic()
        await answered(here, session_id)
        found = await ended(database, session_id, turn_id)
        since_ms = (clock.monotonic() - answered_at) * 1000

    assert waiting_ms >= 200
    assert waiting_ms <= found.running_ms <= waiting_ms + since_ms + 1


async def answered(here: NodeUnderTest, session_id: str) -> None:
    """Answer the call that the turn waits for."""
    async with here.journal.transaction(DEFAULT_REALM) as tx:
        session = await sessions.lock(tx, session_id)
        await waiting.answer(tx, session, [Result("call-1", "sun", is_error=False)], here.pool)
