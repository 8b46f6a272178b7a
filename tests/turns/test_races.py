"""Acts that meet on one session: whoever is second finds what the first has done, and the log tells one story."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import asyncpg
import pytest

from app import history, ids, sessions
from app.db.engine import Database
from app.errors import Fenced, SessionArchived, SessionBusy, SessionNotFound, SessionNotRunning
from app.journal.entry import Appended
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import turn
from tests.journal.ledger import Node, claimed, log_of, open_session, pen, read_session, said, start, types_of
from tests.turns.acts import archived, completed, ending_of, interrupted, read_turn

pytestmark = pytest.mark.anyio

ROUNDS = 20
TERMINAL = {"turn_completed", "turn_failed", "turn_interrupted", "turn_cancelled"}


async def at_once(*acts: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do everything at once, and return what each gave or raised."""
    async with asyncio.timeout(5):
        return await asyncio.gather(*acts, return_exceptions=True)


async def terminals(database: Database, session_id: str) -> dict[str, list[str]]:
    """Read each turn's terminal events."""
    ended: dict[str, list[str]] = {}
    for event in await log_of(database, session_id):
        if event["turn_id"] is not None:
            found = ended.setdefault(event["turn_id"], [])
            found += [event["type"]] * (event["type"] in TERMINAL)
    return ended


async def test_of_fifty_simultaneous_starts_one_wins(database: Database, journal: Journal) -> None:
    nodes = [Node(), Node()]
    session_id = await open_session(journal)

    outcomes = await at_once(*(start(journal, session_id, nodes[place % 2]) for place in range(50)))

    winners = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, SessionBusy) for outcome in outcomes) == 49
    assert [claim.turn_id for node in nodes for claim in node.claims] == winners
    assert await types_of(database, session_id) == ["session_created", "turn_started"]


async def test_of_fifty_simultaneous_starts_that_queue_one_runs_and_the_others_wait_in_order(
    database: Database, journal: Journal
) -> None:
    node = Node()
    session_id = await open_session(journal)

    outcomes = await at_once(*(start(journal, session_id, node, on_busy="queue") for _ in range(50)))

    log = await log_of(database, session_id)
    assert {event["turn_id"] for event in log[1:]} == set(outcomes)
    assert [event["type"] for event in log[1:]] == ["turn_started", *["turn_queued"] * 49]
    assert [event["number"] for event in log[1:]] == list(range(1, 51))
    assert (await read_session(database, session_id)).queued_turns == 49


async def test_second_live_turn_is_refused_by_the_database_itself(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    for status in ("running", "waiting"):
        with pytest.raises(asyncpg.UniqueViolationError, match="turns_one_live"):
            async with database.transaction(DEFAULT_REALM) as db:
                await db.execute(
                    """INSERT INTO turns (session_id, id, number, status, prompt, overrides, first_seq, created_at)
                       VALUES ($1, $2, 9, $3, '""', '{}', 9, now())""",
                    claim.session_id,
                    ids.turn_id(),
                    status,
                )


async def test_interrupt_and_completion_meet_and_one_of_them_ends_the_turn(database: Database, journal: Journal) -> None:
    for place in range(ROUNDS):
        claim = await claimed(journal)
        recorder = pen(journal, claim)
        await recorder.write(said("Par"))
        last = ending_of(claim)
        acts = [
            recorder.write(last.events, last.messages, last.change),
            interrupted(journal, claim.session_id, claim.turn_id, Node()),
        ]

        outcomes = await at_once(*acts[:: -1 if place % 2 else 1])

        done, stop = outcomes[:: -1 if place % 2 else 1]
        [ended] = (await terminals(database, claim.session_id))[claim.turn_id]
        assert (ended == "turn_completed") == isinstance(done, Appended) == isinstance(stop, SessionNotRunning)
        assert (ended == "turn_interrupted") == isinstance(done, Fenced) == (stop is None)


async def test_completion_that_promotes_and_interrupt_meet_and_the_queue_goes_on_once(
    database: Database, journal: Journal
) -> None:
    for _ in range(ROUNDS):
        node = Node()
        claim = await claimed(journal, node)
        queued = await start(journal, claim.session_id, node, on_busy="queue")

        done, stop = await at_once(completed(journal, claim, node), interrupted(journal, claim.session_id, claim.turn_id, node))

        assert (done is None) != (stop is None)
        ended = await terminals(database, claim.session_id)
        assert [len(found) for found in ended.values()] == [1, 0]
        assert [taken.turn_id for taken in node.claims] == [claim.turn_id, queued]


async def test_simultaneous_interrupts_share_one_ending(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    queued = await start(journal, claim.session_id, node, on_busy="queue")

    outcomes = await at_once(*(interrupted(journal, claim.session_id, claim.turn_id, node) for _ in range(10)))

    assert outcomes == [None] * 10
    assert await terminals(database, claim.session_id) == {claim.turn_id: ["turn_interrupted"], queued: []}
    assert (await read_turn(database, claim.session_id, queued)).status == "running"


async def test_archive_and_starts_meet_and_an_archived_session_is_still(database: Database, journal: Journal) -> None:
    for place in range(ROUNDS):
        node = Node()
        session_id = await open_session(journal)
        starts = [start(journal, session_id, node, on_busy="queue") for _ in range(4)]
        starts.insert(place % 5, archived(journal, session_id))  # type: ignore[arg-type] # gives nothing

        outcomes = await at_once(*starts)

        session = await read_session(database, session_id)
        assert (session.status, session.queued_turns, session.current_turn_id) == ("idle", 0, None)
        assert session.archived_at is not None
        accepted = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert len(accepted) + sum(isinstance(outcome, SessionArchived) for outcome in outcomes) == 4
        ended = await terminals(database, session_id)
        assert {id_: len(found) for id_, found in ended.items()} == dict.fromkeys(accepted, 1)
        assert (await types_of(database, session_id))[-1] == "session_archived"


async def test_queueing_and_completion_meet_and_no_turn_is_left_waiting(database: Database, journal: Journal) -> None:
    for _ in range(ROUNDS):
        node = Node()
        claim = await claimed(journal, node)
        recorder, last = pen(journal, claim), ending_of(claim)

        done, queued = await at_once(
            recorder.write(last.events, last.messages, last.change),
            start(journal, claim.session_id, node, on_busy="queue"),
        )
        if isinstance(done, Fenced):  # it came behind: the ending and the promotion are one commit
            await completed(journal, claim, node)

        assert [taken.turn_id for taken in node.claims] == [claim.turn_id, queued]
        session = await read_session(database, claim.session_id)
        assert (session.current_turn_id, session.queued_turns) == (queued, 0)


async def test_erasure_and_completion_meet_and_nothing_of_the_session_is_left(database: Database, journal: Journal) -> None:
    async def erase(session_id: str) -> None:
        async with journal.transaction(DEFAULT_REALM) as tx:
            await sessions.erase(tx, await sessions.lock(tx, session_id))

    for _ in range(ROUNDS):
        node = Node()
        claim = await claimed(journal, node)

        done, erased = await at_once(completed(journal, claim, node), erase(claim.session_id))

        assert erased is None
        assert done is None or isinstance(done, Fenced)
        with pytest.raises(SessionNotFound):
            await read_session(database, claim.session_id)
        async with database.transaction(DEFAULT_REALM) as db:
            for table in ("turns", "messages", "events"):
                assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE session_id = $1", claim.session_id) == 0


async def test_reading_and_listing_wait_for_nobody(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    async with asyncio.timeout(2), journal.transaction(DEFAULT_REALM) as tx:
        await sessions.lock(tx, claim.session_id)
        async with database.transaction(DEFAULT_REALM) as db:
            session = await sessions.get(db, claim.session_id)
            found, _ = await turn.find(db, claim.session_id, status=None, after=0, limit=50)
            said = await history.messages(db, claim.session_id, after=0, limit=50)

    assert (session.id, len(found), len(said)) == (claim.session_id, 1, 1)
