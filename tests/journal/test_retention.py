"""Deltas past their time: which of them go, in what steps, and that nobody who writes notices."""

import asyncio
from datetime import timedelta

import pytest

from app import clock
from app.db.engine import EVERY_REALM, Database
from app.journal import retention
from app.journal.event import Event
from app.journal.journal import Journal
from app.journal.retention import Trimmed
from app.journal.types import (
    DELTAS,
    ReasoningDelta,
    StepCompleted,
    StepDiscarded,
    StepStarted,
    TextComplete,
    TextDelta,
    ToolCallDelta,
)
from app.messages import Usage
from app.sessions import DEFAULT_REALM
from tests.journal.ledger import LIMIT_SECONDS, Node, claimed, pen, said, start
from tests.turns.acts import completed, interrupted

pytestmark = pytest.mark.anyio

LATER = timedelta(minutes=1)


def step(number: int, *words: str) -> list[Event]:
    """Make a step that has ended."""
    whole: list[Event] = [TextComplete(number, "".join(words)), StepCompleted(number, "end_turn", Usage())]
    return said(*words, step=number) + whole


async def trim(database: Database, *, turns: int = 10, events: int = 100, later: timedelta = LATER) -> Trimmed:
    """Trim once whatever ended up to now."""
    async with database.transaction(EVERY_REALM) as db:
        return await retention.trim(db, before=clock.now() + later, turns=turns, events=events)


async def left(database: Database, session_id: str) -> list[tuple[int, str]]:
    """Read numbers and types of what there is of a log."""
    async with database.transaction(DEFAULT_REALM) as db:
        rows = await db.fetch("SELECT seq, type FROM events WHERE session_id = $1 ORDER BY seq", session_id)
    return [(row["seq"], row["type"]) for row in rows]


async def spoken(journal: Journal, node: Node, *events: Event) -> str:
    """Open a session whose one turn has said something and was completed."""
    claim = await claimed(journal, node)
    await pen(journal, claim).write(events)
    await completed(journal, claim, node)
    return claim.session_id


async def test_deltas_of_finished_steps_go_and_all_else_keeps_its_number(database: Database, journal: Journal) -> None:
    deltas: list[Event] = [ReasoningDelta(2, "hm"), TextDelta(2, "no"), ToolCallDelta(2, "c", "t", "{}")]
    again: list[Event] = [StepStarted(2), *deltas, StepDiscarded(2, "resumed", 8)]
    session_id = await spoken(journal, Node(), *step(1, "a", "b"), *again, *step(2, "c"))
    before = await left(database, session_id)

    done = await trim(database)
    second = await trim(database)

    assert await left(database, session_id) == [(seq, kind) for seq, kind in before if kind not in DELTAS]
    assert (done, second) == (Trimmed(6, is_last=True), Trimmed(0, is_last=True))


async def test_step_that_was_cut_keeps_its_deltas(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await pen(journal, claim).write(step(1, "a") + said("b", "c", step=2))
    await interrupted(journal, claim.session_id, claim.turn_id, node)

    assert (await trim(database)).events == 1
    assert [kind for _, kind in await left(database, claim.session_id)].count("text_delta") == 2


async def test_live_and_younger_turns_keep_their_deltas(database: Database, journal: Journal) -> None:
    node = Node()
    live = await claimed(journal, node)
    await pen(journal, live).write(step(1, "a"))
    young = await spoken(journal, Node(), *step(1, "b"))
    logs = [await left(database, live.session_id), await left(database, young)]

    assert (await trim(database, later=-LATER)).events == 0
    assert (await trim(database)).events == 1
    await completed(journal, live, node)
    assert await left(database, young) != logs[1]
    assert (await left(database, live.session_id))[: len(logs[0])] == logs[0]
    assert (await trim(database)).events == 1


async def test_batches_are_bounded_and_go_on_where_the_last_one_ended(database: Database, journal: Journal) -> None:
    session_ids = [await spoken(journal, Node(), *step(1, "a", "b", "c")) for _ in range(2)]

    done = [await trim(database, turns=1, events=2) for _ in range(6)]

    assert [batch.events for batch in done] == [2, 1, 2, 1, 0, 0]
    assert [batch.is_last for batch in done[-2:]] == [True, True]
    assert DELTAS.isdisjoint({kind for one in session_ids for _, kind in await left(database, one)})


async def test_session_that_is_written_to_is_left_alone_until_it_rests(database: Database, journal: Journal) -> None:
    node = Node()
    session_id = await spoken(journal, node, *step(1, "a", "b"))
    await start(journal, session_id, node)
    recorder = pen(journal, node.claims[-1])

    async with asyncio.timeout(LIMIT_SECONDS), database.transaction(EVERY_REALM) as db:
        during = await retention.trim(db, before=clock.now() + LATER)
        await recorder.write(step(1, "c"))
    await completed(journal, node.claims[-1], node)

    assert (during.events, (await trim(database)).events) == (0, 3)


async def test_two_that_trim_at_once_share_the_work(database: Database, journal: Journal) -> None:
    session_ids = [await spoken(journal, Node(), *step(1, *words)) for words in ("ab", "c")]

    async with asyncio.timeout(LIMIT_SECONDS), database.transaction(EVERY_REALM) as db:
        mine = await retention.trim(db, before=clock.now() + LATER, turns=1)
        theirs = await trim(database)

    assert (mine.events, theirs.events) == (2, 1)
    assert DELTAS.isdisjoint({kind for one in session_ids for _, kind in await left(database, one)})


async def test_what_is_gone_counts_no_more_as_stored(database: Database, journal: Journal) -> None:
    session_ids = [await spoken(journal, Node(), *step(1, *words)) for words in ("ab", "c")]

    await trim(database)

    async with database.transaction(EVERY_REALM) as db:
        rows = await db.fetch(
            """SELECT s.stored_bytes, (SELECT sum(octet_length(payload)) FROM events WHERE session_id = s.id)
                 + (SELECT sum(octet_length(content)) FROM messages WHERE session_id = s.id) FROM sessions s"""
        )
    assert [row[0] for row in rows] == [row[1] for row in rows]
    assert len(rows) == len(session_ids)


async def test_trimming_finds_its_work_by_index_alone(database: Database, journal: Journal) -> None:
    await spoken(journal, Node(), *step(1, "a"))
    args = (clock.now() + LATER, 10, 100, sorted(DELTAS))

    async with database.transaction(EVERY_REALM) as db:
        await db.execute("SET LOCAL enable_seqscan = off")  # a table of this size would be read as a whole
        plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {retention._TRIM}", *args))

    assert "turns_with_deltas" in plan
    assert "events_pkey" in plan
    assert not {line.strip() for line in plan.splitlines() if "Seq Scan on" in line}
