"""Pages after a cursor: what is in them, how far they have read, and what they know of the head."""

import pytest

from app import ids, sessions
from app.db.engine import Database
from app.journal.journal import Journal
from app.journal.reader import EVERYTHING, Filter, Page, current_step, heads, page
from app.journal.types import StepStarted, TextDelta
from app.sessions import DEFAULT_REALM
from app.turns.claims import Claim
from tests.journal.ledger import Node, claimed, open_session, pen, said, start

pytestmark = pytest.mark.anyio


async def read(database: Database, session_id: str, after: int, which: Filter = EVERYTHING, limit: int = 500) -> Page:
    """Read a page of a session that is there."""
    async with database.transaction(DEFAULT_REALM) as db:
        found = await page(db, session_id, after, which, limit=limit)
    assert found is not None
    return found


async def spoken(journal: Journal) -> Claim:
    """Open a session whose log has seven events: created, started, then a step of four deltas."""
    claim = await claimed(journal)
    await pen(journal, claim).write(said("a", "b", "c", "d"))
    return claim


async def test_page_begins_behind_the_cursor_and_ends_at_its_limit(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    found = await read(database, claim.session_id, 3, limit=2)

    assert [event.seq for event in found.events] == [4, 5]
    assert (found.read_to, found.is_last, found.last_seq) == (5, False, 7)


async def test_last_page_has_read_to_the_head(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    found = await read(database, claim.session_id, 5)

    assert [event.seq for event in found.events] == [6, 7]
    assert (found.read_to, found.is_last) == (7, True)


async def test_filtered_page_without_a_match_has_still_read_to_the_head(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    found = await read(database, claim.session_id, 0, Filter(types=frozenset({"turn_failed"})))

    assert (found.events, found.read_to, found.is_last) == ([], 7, True)


async def test_cut_filtered_page_has_read_to_its_last_event_alone(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    found = await read(database, claim.session_id, 0, Filter(types=frozenset({"text_delta"})), limit=2)

    assert ([event.seq for event in found.events], found.read_to, found.is_last) == ([4, 5], 5, False)


async def test_filters_by_type_turn_and_scope_all_hold(database: Database, journal: Journal) -> None:
    node = Node()
    claim = await claimed(journal, node)
    second = await start(journal, claim.session_id, node, on_busy="queue")

    of_turn = await read(database, claim.session_id, 0, Filter(turn_id=second))
    of_both = await read(database, claim.session_id, 0, Filter(frozenset({"turn_started"}), second))
    of_scope = await read(database, claim.session_id, 0, Filter(scope="primary"))
    elsewhere = await read(database, claim.session_id, 0, Filter(scope="primary/sub:1"))

    assert [event.type for event in of_turn.events] == ["turn_queued"]
    assert of_both.events == []
    assert len(of_scope.events) == 3
    assert elsewhere.events == []


async def test_cursor_beyond_the_head_reads_nothing_and_stays(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    found = await read(database, claim.session_id, 99)

    assert (found.events, found.read_to, found.is_last, found.last_seq) == ([], 99, True, 7)


async def test_page_ends_with_the_event_that_reaches_its_limit_of_bytes(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    async with database.transaction(DEFAULT_REALM) as db:
        cut = await page(db, claim.session_id, 0, limit_bytes=1)
        whole = await page(db, claim.session_id, 0, limit_bytes=1_000_000)

    assert cut is not None
    assert whole is not None
    assert ([event.seq for event in cut.events], cut.read_to, cut.is_last) == ([1], 1, False)
    assert ([event.seq for event in whole.events], whole.read_to, whole.is_last) == ([1, 2, 3, 4, 5, 6, 7], 7, True)


async def test_limit_of_nothing_reads_nothing_and_does_not_move(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    found = await read(database, claim.session_id, 3, limit=0)

    assert (found.events, found.read_to, found.last_seq) == ([], 3, 7)


async def test_session_that_is_gone_has_no_page(database: Database, journal: Journal) -> None:
    async with database.transaction(DEFAULT_REALM) as db:
        assert await page(db, ids.session_id(), 0) is None


async def test_page_tells_that_the_session_is_archived(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.archive(tx, await sessions.lock(tx, session_id))

    found = await read(database, session_id, 0)

    assert found.archived_at is not None
    assert [event.type for event in found.events] == ["session_created", "session_archived"]


async def test_memory_and_table_agree_on_what_a_filter_wants(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)
    which = [Filter(types=frozenset({"text_delta"})), Filter(turn_id=claim.turn_id), Filter(scope="mob:x"), EVERYTHING]

    everything = await read(database, claim.session_id, 0)

    for wanted in which:
        found = await read(database, claim.session_id, 0, wanted)
        assert found.events == [event for event in everything.events if wanted.wants(event.type, event.turn_id)]


async def test_current_step_begins_at_the_last_start_of_a_step_in_that_turn(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)

    async with database.transaction(DEFAULT_REALM) as db:
        before = await current_step(db, claim.session_id, claim.turn_id)
        await recorder.write(said("a"))
        await recorder.write([StepStarted(2), TextDelta(2, "b")])
        after = await current_step(db, claim.session_id, claim.turn_id)

    assert before == []
    assert [(event.seq, event.type) for event in after] == [(5, "step_started"), (6, "text_delta")]


async def test_heads_leave_out_what_is_gone(database: Database, journal: Journal) -> None:
    claim = await spoken(journal)

    async with database.transaction(DEFAULT_REALM) as db:
        found = await heads(db, [claim.session_id, ids.session_id()])

    assert found == {claim.session_id: 7}
