"""The one statement that writes: numbers without gaps, one fence, all of an entry or nothing."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from app import sessions
from app.db.engine import Database
from app.errors import Fenced
from app.journal.append import append
from app.journal.entry import Appended, Ending, Entry, TurnChange
from app.journal.journal import Journal
from app.journal.types import SessionUpdated, TextDelta, TurnQueued
from app.messages import Message, Text, ToolResult, ToolUse, Usage, load_content
from app.sessions import DEFAULT_REALM
from app.turns import claims, turn
from app.turns.claims import Claim
from tests.journal.ledger import (
    LIMIT_SECONDS,
    Node,
    claimed,
    locked,
    log_of,
    messages_of,
    open_session,
    pen,
    read_session,
    said,
    start,
    types_of,
)

pytestmark = pytest.mark.anyio


def entry_of(claim: Claim, *words: str) -> Entry:
    """Make an entry of deltas under a claim."""
    return Entry(claim.session_id, claim.fence, claim.turn_id, [TextDelta(1, word) for word in words])


async def written(database: Database, *batch: Entry) -> list[Appended | None]:
    """Append a batch and commit."""
    async with database.transaction(DEFAULT_REALM) as db:
        return await append(db, batch)


async def test_append_numbers_events_on_from_the_head(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    [first] = await written(database, entry_of(claim, "a", "b"))
    [second] = await written(database, entry_of(claim, "c"))

    assert first is not None
    assert second is not None
    assert (first.first_seq, first.last_seq, second.first_seq, second.last_seq) == (3, 4, 5, 5)
    assert [event.get("delta") for event in await log_of(database, claim.session_id)] == [None, None, "a", "b", "c"]


async def test_append_with_stale_fence_writes_nothing(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    before = await read_session(database, claim.session_id)
    stale = replace(
        entry_of(claim, "zombie"),
        fence=claim.fence - 1,
        messages=[Message("assistant", (Text("zombie"),))],
        change=TurnChange(1, 1, Usage(1, 1), "zombie", "zombie", Ending("completed", "end_turn")),
    )

    [result] = await written(database, stale)

    assert result is None
    assert await read_session(database, claim.session_id) == before
    assert await types_of(database, claim.session_id) == ["session_created", "turn_started"]
    assert [message["role"] for message in await messages_of(database, claim.session_id)] == ["user"]
    async with database.transaction(DEFAULT_REALM) as db:
        assert (await turn.get(db, claim.session_id, claim.turn_id)).status == "running"


async def test_stale_entry_is_left_out_and_the_others_of_the_batch_are_written(database: Database, journal: Journal) -> None:
    good, stale, gone = [await claimed(journal) for _ in range(3)]
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, gone.session_id))

    results = await written(
        database, replace(entry_of(stale, "no"), fence=stale.fence + 1), entry_of(good, "yes"), entry_of(gone, "no")
    )

    assert [result is not None for result in results] == [False, True, False]
    assert (await types_of(database, good.session_id))[-1] == "text_delta"
    assert (await types_of(database, stale.session_id))[-1] == "turn_started"
    assert await log_of(database, gone.session_id) == []


async def test_session_that_another_transaction_holds_is_left_out_at_once(database: Database, journal: Journal) -> None:
    held, free = await claimed(journal), await claimed(journal)
    async with locked(database, held.session_id):
        results = await written(database, entry_of(held, "late"), entry_of(free, "now"))

    assert [result is not None for result in results] == [False, True]
    assert (await types_of(database, held.session_id))[-1] == "turn_started"


async def test_entry_that_was_written_before_is_not_written_again(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    entry = replace(entry_of(claim, "once"), number=1)

    first, second = [await written(database, entry) for _ in range(2)]

    assert (first == [None], second) == (False, [None])
    assert (await types_of(database, claim.session_id))[2:] == ["text_delta"]


async def test_ending_frees_the_session_and_makes_its_own_fence_stale(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    change = TurnChange(1, 0, Usage(5, 7, 11, 13), "All.", "All.", Ending("completed", "end_turn"))
    message = Message("assistant", (Text("All."),), "end_turn")

    [ended] = await written(database, replace(entry_of(claim, "All."), messages=[message], change=change))
    [after] = await written(database, entry_of(claim, "more"))

    session = await read_session(database, claim.session_id)
    async with database.transaction(DEFAULT_REALM) as db:
        found = await turn.get(db, claim.session_id, claim.turn_id)
    assert ended is not None
    assert after is None
    assert (session.status, session.current_turn_id, session.fence) == ("idle", None, claim.fence + 1)
    assert (session.last_assistant_text, session.usage, session.message_count) == ("All.", Usage(5, 7, 11, 13), 2)
    assert (found.status, found.stop_reason, found.text, found.usage) == ("completed", "end_turn", "All.", Usage(5, 7, 11, 13))
    assert (found.owner, found.last_seq, found.ended_at is not None) == (None, ended.last_seq, True)


async def test_usage_adds_up_over_entries_in_turn_and_session(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    change = TurnChange(1, 2, Usage(1, 2, 3, 4))

    await written(database, replace(entry_of(claim, "a"), change=change))
    await written(database, replace(entry_of(claim, "b"), change=replace(change, ending=Ending("completed", "end_turn"))))
    await start(journal, claim.session_id, node)
    await written(database, replace(entry_of(node.claims[-1], "c"), change=change))

    async with database.transaction(DEFAULT_REALM) as db:
        found = await turn.get(db, claim.session_id, claim.turn_id)
    assert (found.usage, found.steps, found.tool_calls) == (Usage(2, 4, 6, 8), 2, 4)
    assert (await read_session(database, claim.session_id)).usage == Usage(3, 6, 9, 12)


async def test_ending_is_refused_while_turns_wait_unless_the_writer_promotes_them(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    await start(journal, claim.session_id, node, on_busy="queue")
    ending = replace(entry_of(claim, "end"), change=TurnChange(ending=Ending("completed", "end_turn")))

    [refused] = await written(database, ending)
    [allowed] = await written(database, replace(ending, is_settled=True))

    assert refused is None
    assert allowed is not None


async def test_every_character_comes_back_as_it_was_written(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    text = 'NUL \0, CR \r, LF \n, U+2028 \u2028, quote ", backslash \\, 𝄞, \x7f, \ufeff'
    blocks = (Text(text), ToolUse("id\0", text, {text: [text, 1e2, None]}), ToolResult("id\0", text, is_error=False))

    await written(database, replace(entry_of(claim, text), messages=[Message("assistant", blocks)]))

    [*_, delta] = await log_of(database, claim.session_id)
    [*_, message] = await messages_of(database, claim.session_id)
    assert delta["delta"] == text
    assert load_content(orjson.dumps(message["content"]).decode()) == blocks


async def test_messages_are_numbered_from_one_without_gaps(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    two = [Message("assistant", (Text("a"),)), Message("tool", (ToolResult("x", "b", is_error=True),))]

    await written(database, replace(entry_of(claim), messages=two))
    await written(database, replace(entry_of(claim, "c"), messages=two[:1]))

    found = await messages_of(database, claim.session_id)
    assert [message["ordinal"] for message in found] == [1, 2, 3, 4]
    assert {message["turn_id"] for message in found} == {claim.turn_id}
    assert (await read_session(database, claim.session_id)).message_count == 4


async def test_an_entry_without_events_moves_no_number(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    [result] = await written(database, replace(entry_of(claim), change=TurnChange(text="so far")))

    assert result is not None
    assert (result.first_seq, result.last_seq) == (3, 2)
    assert len(await log_of(database, claim.session_id)) == 2


async def test_fifty_writers_and_admissions_from_another_hand_leave_no_gap_and_no_double(
    database: Database, journal: Journal
) -> None:
    node = Node()
    live = [await claimed(journal, node) for _ in range(50)]

    async def speak(claim: Claim) -> None:
        recorder = pen(journal, claim)
        for number in range(10):
            await recorder.write(said(f"{number}", step=number + 1))

    async def admit(claim: Claim) -> None:
        for number in range(3):
            await start(journal, claim.session_id, node, f"{number}", on_busy="queue")

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        for claim in live:
            tasks.create_task(speak(claim))
            tasks.create_task(admit(claim))

    for claim in live:
        log = await log_of(database, claim.session_id)
        assert len(log) == 2 + 20 + 3
        assert [event["delta"] for event in log if event["type"] == "text_delta"] == [f"{number}" for number in range(10)]
        assert [event["prompt"] for event in log if event["type"] == "turn_queued"] == ["0", "1", "2"]


async def test_a_transaction_that_rolls_back_leaves_no_gap(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)

    with pytest.raises(Fenced):
        async with journal.transaction(DEFAULT_REALM) as tx:
            await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "lost"})]))
            raise Fenced
    async with journal.transaction(DEFAULT_REALM) as tx:
        await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "kept"})]))

    assert [event.get("title") for event in await log_of(database, session_id)] == [None, "kept"]


async def test_turn_id_stands_in_events_of_the_turn_and_not_in_those_of_the_session(
    database: Database, journal: Journal
) -> None:
    claim = await claimed(journal)

    await written(database, replace(entry_of(claim), events=[SessionUpdated({}), TurnQueued(2, "x")]))

    async with database.transaction(DEFAULT_REALM) as db:
        rows = await db.fetch("SELECT turn_id FROM events WHERE session_id = $1 ORDER BY seq", claim.session_id)
    assert [row["turn_id"] and str(row["turn_id"]) for row in rows] == [None, claim.turn_id, None, claim.turn_id]
    assert [event["turn_id"] for event in await log_of(database, claim.session_id)] == [None, claim.turn_id] * 2


async def test_appends_and_lease_renewals_of_the_same_turns_never_lock_each_other_out(
    database: Database, journal: Journal
) -> None:
    node = Node()
    live = [await claimed(journal, node) for _ in range(100)]
    entries = [replace(entry_of(claim, "x"), change=TurnChange(steps=1)) for claim in live]

    async def renew() -> None:
        async with database.transaction(DEFAULT_REALM) as db:
            for _ in range(40):
                assert len((await claims.renew(db, node.row, live)).held) == len(live)

    async def write() -> None:
        async with database.transaction(DEFAULT_REALM) as db:
            for count in range(40):
                assert None not in await append(db, entries[:: -1 if count % 2 else 1])

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(renew())
        tasks.create_task(write())

    async with database.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
