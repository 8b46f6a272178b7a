"""What was used is counted by the model that answered, each report once, whoever dies, is erased, or books at the same time."""

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from app import clock, sessions, usage
from app.agent import compaction
from app.agent.compaction import Compacted, Summary
from app.db.engine import EVERY_REALM, Database
from app.journal.entry import Model
from app.messages import Message, Text, Usage
from app.providers.base import TextChunk, UsageChunk
from app.sessions import DEFAULT_REALM, Options
from app.turns import compacting
from app.usage import GROUPS
from tests.agent.doubles import Part, Played, brief, call, fault
from tests.journal.ledger import log_of, open_session, read_session
from tests.turns.acts import interrupted
from tests.worker.floor import NodeUnderTest, ended, lapsed, node, said_in

pytestmark = pytest.mark.anyio

TABLES = ("usage_reports", "usage_days")
EVER = (date(2000, 1, 1), date(2999, 12, 31))
BEGUN = UsageChunk(Usage(100, 1, 5, 7))


async def found(database: Database, *groups: Any) -> list[dict[str, Any]]:
    """Read what was used, by groups."""
    async with database.transaction(DEFAULT_REALM) as db:
        return await usage.find(db, EVER, groups, limit=100)


async def booked(database: Database) -> int:
    """Book everything; return how many reports that were."""
    count = 0
    while True:
        async with database.transaction(EVERY_REALM) as db:
            last = await usage.book(db)
        count += last
        if last < usage.BATCH:
            return count


async def total(database: Database) -> tuple[int, Usage]:
    """Return calls and tokens over all."""
    [one] = await found(database)
    told = one["usage"]
    assert told.pop("total_tokens") == told["input_tokens"] + told["output_tokens"]
    return one["calls"], Usage(**told)


async def test_turn_is_counted_with_its_provider_model_and_day_before_and_after_it_is_booked(database: Database) -> None:
    async with node(database, Played([brief(call()), brief("Paris.", usage=Usage(5, 6, 7, 8))])) as here:
        await ended(database, *(await here.turn()))

    before = await found(database, *GROUPS)
    counts = (await booked(database), await booked(database))

    assert counts == (2, 0)
    assert before == await found(database, *GROUPS)
    [one] = before
    assert (one["provider"], one["model"], one["credential"]) == ("played", "played", None)
    assert clock.now().date() - date.fromisoformat(one["day"]) <= timedelta(days=1)
    assert one["calls"] == 2
    assert one["usage"] == {
        "input_tokens": 8, "output_tokens": 8, "cache_creation_tokens": 7, "cache_read_tokens": 8, "total_tokens": 16
    }  # fmt: skip


async def test_sums_over_days_are_not_those_of_others(database: Database) -> None:
    async with node(database, Played([brief("One."), brief("Two.")])) as here:
        await ended(database, *(await here.turn()))
        await booked(database)
        async with database.transaction(EVERY_REALM) as db:
            await db.execute("UPDATE usage_days SET day = day - 1")
        await ended(database, *(await here.turn()))

    [yesterday, today] = await found(database, "day")
    last = date.fromisoformat(today["day"])
    async with database.transaction(DEFAULT_REALM) as db:
        alone = await usage.find(db, (last, last), ["day"], limit=100)
    assert (yesterday["calls"], today["calls"], alone) == (1, 1, [today])


async def test_step_is_counted_for_the_model_that_answered_and_a_cut_try_for_its_own(database: Database) -> None:
    answers: list[list[Part]] = [[fault()], [fault()], [fault()], [BEGUN, TextChunk("Lon"), fault()], brief("Paris.")]
    options = Options("first", "played", fallback_models=[{"model": "second", "provider": "played"}])
    async with node(database, Played(answers)) as here:
        session_id = await open_session(here.journal, options)
        await ended(database, session_id, await here.start(session_id))

    first, second = await found(database, "model")
    assert (first["model"], first["calls"], first["usage"]["output_tokens"]) == ("first", 1, 1)
    assert (second["model"], second["calls"], second["usage"]["output_tokens"]) == ("second", 1, 2)
    assert (await total(database))[1] == (await read_session(database, session_id)).usage


async def test_calls_that_brought_nothing_are_not_counted_and_answers_without_usage_are(database: Database) -> None:
    async with node(database, Played([[fault()], brief("Paris.", usage=Usage())])) as here:
        await ended(database, *(await here.turn()))

    assert await total(database) == (1, Usage())


async def test_growing_reports_of_one_answer_are_one_call(database: Database) -> None:
    async with node(database, Played([[BEGUN, *brief("Paris.", usage=Usage(100, 20, 5, 7))]])) as here:
        await ended(database, *(await here.turn()))

    assert await total(database) == (1, Usage(100, 20, 5, 7))


async def test_what_died_with_its_node_or_was_interrupted_adds_up_to_the_bill(database: Database) -> None:
    async with node(database, Played([[BEGUN, TextChunk("Par"), asyncio.Event()]])) as here:
        session_id, turn_id = await here.turn()
        await said_in(database, session_id, "text_delta")
    await lapsed(database, turn_id)
    async with node(database, Played([brief("Paris."), [BEGUN, TextChunk("Lon"), asyncio.Event()]])) as there:
        await ended(database, session_id, turn_id)
        second = await there.start(session_id)
        await said_in(database, session_id, "text_delta", 3)
        await interrupted(there.journal, session_id, second, there.pool)

    log = await log_of(database, session_id)
    terminal = [event["usage"] for event in log if event["type"] in {"turn_completed", "turn_interrupted"}]
    calls, used = await total(database)
    assert used == (await read_session(database, session_id)).usage == Usage(203, 4, 10, 14)
    assert sum(one["total_tokens"] for one in terminal) == used.total_tokens
    assert calls == 3


async def test_summary_outside_a_turn_is_counted(database: Database) -> None:
    async with node(database, Played([brief("One."), brief("Two.")])) as here:
        session_id, _ = await here.turn()
        await said_in(database, session_id, "turn_completed")
        await ended(database, session_id, await here.start(session_id))
        await summed_up(here, session_id)

    sums = await found(database, "credential", "model")
    assert [(one["credential"], one["model"], one["calls"], one["usage"]["total_tokens"]) for one in sums] == [
        (None, "played", 2, 10),
        ("key:summing", "summing", 1, 40),
    ]
    assert (await total(database))[1] == (await read_session(database, session_id)).usage


async def summed_up(here: NodeUnderTest, session_id: str) -> None:
    """Put a summary of an idle session on record."""
    said = [Message("user", (Text("Hello"),)), Message("assistant", (Text("One."),))]
    parts, summary = compaction.Cut(said, said[-1:]), Summary(Message("user", (Text("All."),)), Usage(30, 10))
    async with here.journal.transaction(DEFAULT_REALM, credential="key:summing") as tx:
        session = await sessions.lock(tx, session_id)
        await compacting.keep(tx, session, None, Compacted.of(parts, summary, Model("played", "summing")))


async def test_what_was_used_outlives_its_session_booked_or_not(database: Database) -> None:
    async with node(database, Played([brief("One."), brief("Two.")])) as here:
        first, _ = turn = await here.turn()
        await ended(database, *turn)
        await booked(database)
        second, _ = turn = await here.turn()
        await ended(database, *turn)
        for session_id in (first, second):
            async with here.journal.transaction(DEFAULT_REALM) as tx:
                await sessions.erase(tx, await sessions.lock(tx, session_id))

    assert await total(database) == (2, Usage(6, 4))
    assert await booked(database) == 1
    assert await total(database) == (2, Usage(6, 4))


async def test_realm_is_told_of_its_own_alone_by_who_started_its_turns(database: Database) -> None:
    async with database.transaction(EVERY_REALM) as db:
        await db.execute(
            """INSERT INTO usage_reports (realm_id, day, credential, provider, model, calls, input_tokens, output_tokens,
                                          cache_creation_tokens, cache_read_tokens)
               VALUES ('default', '2026-01-01', 'key:a', 'p', 'm', 1, 2, 3, 0, 0),
                      ('other', '2026-01-01', 'key:b', 'p', 'm', 1, 5, 7, 0, 0)"""
        )
    before = await found(database, "credential")
    await booked(database)

    assert [(one["credential"], one["usage"]["total_tokens"]) for one in before] == [("key:a", 5)]
    assert before == await found(database, "credential")
    async with database.transaction("other") as db:
        assert [one["credential"] for one in await usage.find(db, EVER, ["credential"], limit=9)] == ["key:b"]
        seen = [await db.fetchval(f"SELECT count(*) FROM {table} WHERE realm_id <> 'other'") for table in TABLES]
    assert seen == [0, 0]


async def test_many_that_book_at_once_book_each_report_once(database: Database) -> None:
    count = 5_000
    async with database.transaction(EVERY_REALM) as db:
        await db.execute(
            """INSERT INTO usage_reports (realm_id, day, provider, model, calls, input_tokens, output_tokens,
                                          cache_creation_tokens, cache_read_tokens)
               SELECT 'default', date '2026-01-01' + i % 7, 'p', 'm' || i % 11, 1, i, 2, 3, 4 FROM generate_series(1, $1) i""",
            count,
        )
    expected, seen = await total(database), []
    async with asyncio.TaskGroup() as tasks:
        booking = [tasks.create_task(booked(database)) for _ in range(3)]
        while not all(task.done() for task in booking):
            seen.append(await total(database))
    counts = [task.result() for task in booking]

    assert sum(counts) == count
    assert {*seen, await total(database)} == {expected}


async def test_turn_runs_while_the_sums_are_held_by_another(database: Database) -> None:
    async with node(database, Played([brief("One.")])) as here, database.transaction(EVERY_REALM) as held:
        await held.execute("LOCK TABLE usage_days IN ACCESS EXCLUSIVE MODE")
        turn = await ended(database, *(await here.turn()))

    assert turn.status == "completed"
