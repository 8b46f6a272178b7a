"""Group commit, and what becomes of it when an entry is stale, poisoned, or the database goes away in the middle."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app import telemetry
from app.db.engine import Database
from app.errors import Fenced, StoreUnavailable
from app.journal.append import append
from app.journal.entry import Appended, Ending, Entry, TurnChange
from app.journal.journal import Journal
from app.journal.types import TextDelta
from app.journal.writer import MOST_ENTRIES, Writer
from app.pace import Pace
from app.sessions import DEFAULT_REALM
from app.turns.claims import Claim
from tests.journal.cable import Cable, cable_to
from tests.journal.ledger import LIMIT_SECONDS, claimed, locked, log_of, resolved, running, stopped, until_blocked

pytestmark = pytest.mark.anyio

WRITER = "suricate writer"


def entry_of(claim: Claim, text: str = "x", number: int = 1) -> Entry:
    """Make an entry of one delta."""
    return Entry(claim.session_id, claim.fence, claim.turn_id, [TextDelta(1, text)], number=number)


def commits() -> tuple[float, float]:
    """Return how many commits there were, and of how many entries."""
    count, entries = (
        telemetry.REGISTRY.get_sample_value(f"suricate_journal_batch_entries_{name}") for name in ("count", "sum")
    )
    return count or 0.0, entries or 0.0


async def deltas(database: Database, claim: Claim) -> list[str]:
    """Read the deltas of a claim's session."""
    return [event["delta"] for event in await log_of(database, claim.session_id) if event["type"] == "text_delta"]


@asynccontextmanager
async def held_up(database: Database, writer: Writer, claim: Claim) -> AsyncIterator["asyncio.Future[Appended]"]:
    """Hold one entry's commit up for the length of the block."""
    async with stopped(database):
        first = writer.submit(entry_of(claim))
        await until_blocked(database, WRITER)
        yield first


@asynccontextmanager
async def cabled(database_url: str) -> AsyncIterator[tuple[Cable, Writer, list[Appended]]]:
    """Give a writer at the end of a cable, and what it has published."""
    published: list[Appended] = []
    async with cable_to(database_url) as cable:
        writer = Writer(Database(cable.dsn, pool_size=2), published.append, Pace())
        async with running(writer.run()):
            yield cable, writer, published


async def test_entries_that_arrive_during_a_commit_share_the_next(database: Database, journal: Journal) -> None:
    first, *others = [await claimed(journal) for _ in range(60)]

    async with held_up(database, journal.writer, first) as outcome:
        before = commits()
        futures = [journal.writer.submit(entry_of(claim)) for claim in others]
    await resolved([outcome, *futures])

    assert tuple(now - then for now, then in zip(commits(), before, strict=True)) == (2, 60)
    assert [await deltas(database, claim) for claim in others] == [["x"]] * 59


async def test_a_batch_is_one_statement_of_one_transaction(database: Database, journal: Journal) -> None:
    first, *others = [await claimed(journal) for _ in range(10)]

    async with held_up(database, journal.writer, first):
        futures = [journal.writer.submit(entry_of(claim)) for claim in others]
    await resolved(futures)

    async with database.transaction(DEFAULT_REALM) as db:
        writers = await db.fetch(
            "SELECT DISTINCT xmin::text FROM events WHERE session_id = ANY ($1::uuid[]) AND type = 'text_delta'",
            [claim.session_id for claim in others],
        )
    assert len(writers) == 1


async def test_one_batch_has_a_bound_and_the_rest_goes_next(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    gone = [replace(entry_of(claim), fence=claim.fence + 1 + place) for place in range(MOST_ENTRIES + 5)]

    async with held_up(database, journal.writer, claim):
        before = commits()
        futures = [journal.writer.submit(entry) for entry in gone]
    outcomes = await resolved(futures)

    assert tuple(now - then for now, then in zip(commits(), before, strict=True)) == (3, 1 + len(gone))
    assert {type(outcome) for outcome in outcomes} == {Fenced}


async def test_stale_fence_is_told_to_its_owner_and_the_others_go_through(database: Database, journal: Journal) -> None:
    first, stale, good = [await claimed(journal) for _ in range(3)]

    async with held_up(database, journal.writer, first):
        futures = [journal.writer.submit(replace(entry_of(stale), fence=0)), journal.writer.submit(entry_of(good))]
    refused, kept = await resolved(futures)

    assert isinstance(refused, Fenced)
    assert isinstance(kept, Appended)
    assert await deltas(database, stale) == []
    assert await deltas(database, good) == ["x"]


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param({"events": [TextDelta(1, "\ud800")]}, id="text that is no Unicode"),
        pytest.param({"turn_id": "no-uuid"}, id="a value that the driver refuses"),
        pytest.param({"change": TurnChange(steps=2**31 - 1)}, id="a value that Postgres refuses"),
    ],
)
async def test_an_entry_that_cannot_be_written_stops_neither_the_others_nor_the_writer(
    database: Database, journal: Journal, poison: dict[str, object]
) -> None:
    first, bad, good = [await claimed(journal) for _ in range(3)]
    await journal.writer.submit(replace(entry_of(bad, "before"), change=TurnChange(steps=1)))

    async with held_up(database, journal.writer, first):
        poisoned = replace(entry_of(bad, "poison", 2), **poison)  # type: ignore[arg-type]
        futures = [journal.writer.submit(poisoned), journal.writer.submit(entry_of(good))]
    refused, kept = await resolved(futures)
    [later] = await resolved([journal.writer.submit(entry_of(good, "y", 2))])

    assert isinstance(refused, Exception)
    assert not isinstance(refused, Fenced | StoreUnavailable)
    assert isinstance(kept, Appended)
    assert isinstance(later, Appended)
    assert await deltas(database, bad) == ["before"]
    assert await deltas(database, good) == ["x", "y"]


async def test_writer_killed_before_its_commit_writes_the_entry_exactly_once(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    async with stopped(database):
        outcome = journal.writer.submit(entry_of(claim))
        pid = await until_blocked(database, WRITER)
        async with database.dedicated("test", role="none") as db:
            await db.execute("SELECT pg_terminate_backend($1)", pid)
    [kept] = await resolved([outcome])

    assert isinstance(kept, Appended)
    assert (kept.first_seq, kept.last_seq) == (3, 3)
    assert await deltas(database, claim) == ["x"]


async def test_session_that_another_hand_holds_waits_alone_and_is_written_once_it_is_free(
    database: Database, journal: Journal
) -> None:
    held, free = [await claimed(journal) for _ in range(2)]

    async with locked(database, held.session_id):
        waits = journal.writer.submit(entry_of(held))
        goes_on = await resolved([journal.writer.submit(entry_of(free, "goes"))])
        goes_on += await resolved([journal.writer.submit(entry_of(free, "on", 2))])
        was_waiting = not waits.done()
    [written] = await resolved([waits])

    assert {type(outcome) for outcome in (*goes_on, written)} == {Appended}
    assert was_waiting
    assert (await deltas(database, held), await deltas(database, free)) == (["x"], ["goes", "on"])


async def test_entry_whose_first_commit_is_still_under_way_elsewhere_is_written_once(
    database: Database, journal: Journal
) -> None:
    claim = await claimed(journal)
    entry = entry_of(claim)

    async with database.transaction(DEFAULT_REALM) as lost:
        [kept] = await append(lost, [entry])
        outcome = journal.writer.submit(entry)
        await resolved([journal.writer.submit(entry_of(await claimed(journal)))])
        was_waiting = not outcome.done()
    [found] = await resolved([outcome])

    assert was_waiting
    assert isinstance(found, Appended)
    assert kept is not None
    assert (found.last_seq, found.bodies) == (kept.last_seq, None)
    assert await deltas(database, claim) == ["x"]


async def until_written(database: Database, claim: Claim, *texts: str) -> None:
    """Wait until a session's deltas are in the table, whoever knows of it."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while await deltas(database, claim) != list(texts):
            await asyncio.sleep(0.002)


async def test_commit_whose_answer_was_lost_is_found_kept_and_written_exactly_once(
    database: Database, database_url: str, journal: Journal
) -> None:
    claim = await claimed(journal)
    async with cabled(database_url) as (cable, writer, published):
        await writer.submit(entry_of(claim, "a"))
        cable.is_deaf = True
        outcome = writer.submit(entry_of(claim, "b", 2))
        await until_written(database, claim, "a", "b")
        shown_in_doubt = len(published)

        cable.cut()
        cable.is_deaf = False
        [kept] = await resolved([outcome])
        [after] = await resolved([writer.submit(entry_of(claim, "c", 3))])

    assert shown_in_doubt == 1
    assert isinstance(kept, Appended)
    assert isinstance(after, Appended)
    assert (kept.last_seq, kept.bodies, after.first_seq) == (4, None, 5)
    assert [appended.last_seq for appended in published] == [3, 4, 5]
    assert await deltas(database, claim) == ["a", "b", "c"]


async def test_ending_whose_answer_was_lost_is_found_kept(database: Database, database_url: str, journal: Journal) -> None:
    claim = await claimed(journal)
    ending = replace(entry_of(claim, "end"), change=TurnChange(1, ending=Ending("completed", "end_turn")))
    async with cabled(database_url) as (cable, writer, _):
        await writer.submit(replace(entry_of(await claimed(journal)), change=TurnChange(1)))  # prepares the statement
        cable.is_deaf = True
        outcome = writer.submit(ending)
        await until_written(database, claim, "end")

        cable.cut()
        cable.is_deaf = False
        [kept] = await resolved([outcome])

    assert isinstance(kept, Appended)
    assert kept.fence == claim.fence + 1
    assert await deltas(database, claim) == ["end"]


async def test_of_a_batch_in_doubt_each_entry_is_looked_up_by_itself(
    database: Database, database_url: str, journal: Journal
) -> None:
    kept, stale, taken = [await claimed(journal) for _ in range(3)]
    batch = [entry_of(kept), replace(entry_of(stale), fence=7), entry_of(taken)]
    async with cabled(database_url) as (cable, writer, _):
        await writer.submit(entry_of(await claimed(journal)))
        cable.is_deaf = True
        futures = [writer.submit(entry) for entry in batch]
        await until_written(database, taken, "x")
        async with database.transaction(DEFAULT_REALM) as db:
            await db.execute("UPDATE sessions SET fence = fence + 1, append_number = 0 WHERE id = $1", taken.session_id)

        cable.cut()
        cable.is_deaf = False
        outcomes = await resolved(futures)

    assert [type(outcome) for outcome in outcomes] == [Appended, Fenced, Fenced]
    assert [await deltas(database, claim) for claim in (kept, stale, taken)] == [["x"], [], ["x"]]


async def test_what_waits_is_kept_while_the_database_is_away_and_written_when_it_is_back(
    database: Database, database_url: str, journal: Journal
) -> None:
    live: Sequence[Claim] = [await claimed(journal) for _ in range(20)]
    async with cabled(database_url) as (cable, writer, published):
        await writer.submit(entry_of(live[0]))
        cable.is_refusing = True
        cable.cut()
        futures = [writer.submit(entry_of(claim, "y", 2)) for claim in live]
        async with asyncio.timeout(LIMIT_SECONDS):
            while cable.refused < 2:
                await asyncio.sleep(0.002)
        shown_meanwhile = len(published)

        cable.is_refusing = False
        outcomes = await resolved(futures)

    assert shown_meanwhile == 1
    assert {type(outcome) for outcome in outcomes} == {Appended}
    assert [(await deltas(database, claim))[-1] for claim in live] == ["y"] * 20


async def test_nothing_is_published_before_its_commit(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id, after=2) as reader:
        async with held_up(database, journal.writer, claim) as outcome:
            channel = journal.subscriptions._channels[claim.session_id]
            shown_before = (len(channel.ring), outcome.done(), reader.lag)
        await resolved([outcome])

    assert shown_before == (0, False, 0)
    assert [shown.type for shown in channel.ring] == ["text_delta"]


async def test_owner_goes_on_only_after_its_entry_was_published(database: Database) -> None:
    order: list[str] = []
    writer = Writer(database, lambda appended: order.append("published"), Pace())
    async with running(writer.run()):
        journal = Journal(database, "", pace=Pace())

        outcome = writer.submit(entry_of(await claimed(journal)))
        outcome.add_done_callback(lambda _: order.append("owner"))
        await resolved([outcome])

    assert order == ["published", "owner"]
