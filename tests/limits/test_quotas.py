"""What a realm may have: refused when it has as much, whatever other realms have."""

from collections.abc import AsyncIterator

import pytest

from app import clock, ids
from app.credentials.caller import Caller
from app.db.engine import EVERY_REALM, Database
from app.errors import CapacityExceeded
from app.journal.entry import Entry
from app.journal.journal import Journal
from app.journal.types import TextDelta
from app.limits.quotas import FAR_SECONDS, FAR_TURNS, Amounts, Quotas
from app.sessions import DEFAULT_REALM
from tests.journal.ledger import Node, claimed, open_session, start, writing

pytestmark = pytest.mark.anyio

CALLER = Caller(DEFAULT_REALM, "key:x", "write")
OTHER = Caller("other", "key:y", "write")


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal whose writer runs."""
    async with writing(database) as running:
        yield running


def quotas(database: Database, most: Amounts) -> Quotas:
    """Make a node's quotas."""
    return Quotas(database, ids.node_id(), most)


async def test_sessions_are_counted_by_realm(database: Database, journal: Journal) -> None:
    await open_session(journal)
    await open_session(journal)

    async with database.transaction(DEFAULT_REALM) as db:
        await quotas(database, Amounts(sessions=3)).check_session(db)
        with pytest.raises(CapacityExceeded, match="has 2 sessions, and may have 2") as refused:
            await quotas(database, Amounts(sessions=2)).check_session(db)
    async with database.transaction("other") as db:
        await quotas(database, Amounts(sessions=1)).check_session(db)
    assert "retry_after" in refused.value.members


async def test_count_is_made_anew_when_it_is_old(database: Database, journal: Journal) -> None:
    counting = quotas(database, Amounts(sessions=1))
    async with database.transaction(DEFAULT_REALM) as db:
        await counting.check_session(db)
    await open_session(journal)
    async with database.transaction(DEFAULT_REALM) as db:
        await counting.check_session(db)
        await db.execute("UPDATE realm_totals SET counted_at = counted_at - interval '11 seconds'")

        with pytest.raises(CapacityExceeded):
            await counting.check_session(db)


async def test_stored_bytes_are_those_of_events_and_messages(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    said = [TextDelta(1, "ä€😀 and plain")]
    await journal.writer.submit(Entry(claim.session_id, claim.fence, claim.turn_id, said, number=1))

    async with database.transaction(DEFAULT_REALM) as db:
        kept = await db.fetchval("SELECT stored_bytes FROM sessions WHERE id = $1", claim.session_id)
        stored = await db.fetchval(
            """SELECT (SELECT sum(octet_length(payload)) FROM events WHERE session_id = $1)
                    + (SELECT sum(octet_length(content)) FROM messages WHERE session_id = $1)""",
            claim.session_id,
        )
        await quotas(database, Amounts(stored_bytes=stored + 1)).check_turn(db)
        for check in (
            quotas(database, Amounts(stored_bytes=stored)).check_turn,
            quotas(database, Amounts(stored_bytes=1)).check_session,
        ):
            with pytest.raises(CapacityExceeded, match="stored bytes"):
                await check(db)
    assert kept == stored


async def test_live_turns_are_counted_and_queued_ones_are_not(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    await start(journal, claim.session_id, Node(), on_busy="queue")

    async with database.transaction(DEFAULT_REALM) as db:
        await quotas(database, Amounts(live_turns=2)).check_turn(db)
        with pytest.raises(CapacityExceeded, match="1 live turns"):
            await quotas(database, Amounts(live_turns=1)).check_turn(db)
    async with database.transaction("other") as db:
        await quotas(database, Amounts(live_turns=1)).check_turn(db)


async def test_realm_that_is_far_from_its_quota_is_not_counted_at_each_turn(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claimed(journal)
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    counting = quotas(database, Amounts(live_turns=FAR_TURNS + 1))
    async with database.transaction(DEFAULT_REALM) as db:
        await counting.check_turn(db)
        counting._most = Amounts(live_turns=1)  # what is far is not asked about; what a second later is, is
        await counting.check_turn(db)
        now += FAR_SECONDS

        with pytest.raises(CapacityExceeded, match="1 live turns"):
            await counting.check_turn(db)


@pytest.mark.parametrize(
    ("most", "is_far"),
    [
        (Amounts(live_turns=FAR_TURNS + 1), True),
        (Amounts(live_turns=FAR_TURNS), False),
        (Amounts(stored_bytes=200), True),
        (Amounts(stored_bytes=199), False),
        (Amounts(live_turns=FAR_TURNS, stored_bytes=200), False),
        (Amounts(), True),
    ],
)
def test_realm_is_far_where_many_turns_and_as_many_bytes_again_may_come(most: Amounts, *, is_far: bool) -> None:
    assert most.is_far(Amounts(live_turns=1, stored_bytes=100)) is is_far


async def test_streams_are_counted_over_nodes(database: Database) -> None:
    here, there = quotas(database, Amounts(streams=2)), quotas(database, Amounts(streams=2))

    with here.stream(CALLER), there.stream(CALLER), there.stream(OTHER):
        here.check_stream(CALLER)
        await there._tell()
        await here._tell()
        with pytest.raises(CapacityExceeded, match="2 open streams"):
            here.check_stream(CALLER)
        here.check_stream(OTHER)
    await there._tell()
    await here._tell()

    here.check_stream(CALLER)


async def test_node_that_says_nothing_any_more_is_forgotten(database: Database) -> None:
    here, gone = quotas(database, Amounts(streams=1)), quotas(database, Amounts(streams=1))
    with gone.stream(CALLER):
        await gone._tell()
    async with database.transaction(EVERY_REALM) as db:
        await db.execute("UPDATE stream_counts SET at = at - interval '21 seconds'")

    await here._tell()

    here.check_stream(CALLER)


async def test_nothing_is_counted_where_nothing_is_limited(database: Database) -> None:
    unlimited = quotas(database, Amounts())
    unlimited.check_stream(CALLER)
    async with database.transaction(DEFAULT_REALM) as db:
        await unlimited.check_session(db)
        await unlimited.check_turn(db)

        assert await db.fetchval("SELECT count(*) FROM realm_totals") == 0
