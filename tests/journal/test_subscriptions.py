"""Readers: nothing lost, nothing doubled, nothing out of order, wherever they begin and whoever writes."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from app import sessions
from app.db.engine import Database
from app.errors import StoreUnavailable
from app.journal import subscriptions
from app.journal.entry import Entry
from app.journal.journal import Journal
from app.journal.reader import EVERYTHING, Filter
from app.journal.subscriptions import Shown, Subscriptions
from app.journal.types import SessionUpdated, StepStarted, TextDelta
from app.sessions import DEFAULT_REALM
from app.turns.claims import Claim
from tests.journal.cable import cable_to
from tests.journal.ledger import (
    LIMIT_SECONDS,
    Node,
    claimed,
    log_of,
    numbers,
    open_session,
    pen,
    read_until,
    said,
    start,
    stopped,
    until_blocked,
)

pytestmark = pytest.mark.anyio

READERS = 50  # times six variants
RECONNECTS = 200
DELTAS_ONLY = Filter(types=frozenset({"text_delta"}))


async def burst(journal: Journal, claim: Claim, node: Node) -> None:
    """Write some four hundred events with both hands: the turn's pen, and transactions that queue others behind it."""

    async def speak() -> None:
        recorder = pen(journal, claim)
        for step in range(1, 61):
            await recorder.write(said(*"abcde", step=step))

    async def queue() -> None:
        for number in range(40):
            await start(journal, claim.session_id, node, f"{number}", on_busy="queue")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(speak())
        tasks.create_task(queue())
    async with journal.transaction(DEFAULT_REALM) as tx:
        await tx.append(Entry(claim.session_id, claim.fence, None, [SessionUpdated({"title": "the end"})]))


async def follow(journal: Journal, session_id: str, which: Filter, chance: random.Random) -> tuple[int, list[Shown]]:
    """Wait for a moment of the burst, read from a cursor up to its last event, and tell what was seen."""
    for _ in range(chance.randrange(200)):
        await asyncio.sleep(0)
    after, seen = chance.randrange(120), list[Shown]()
    with journal.subscriptions.open(DEFAULT_REALM, session_id, after=after, which=which) as reader:
        async for batch in reader.read():
            assert batch
            seen += batch
            if batch[-1].type == "session_updated":
                break
    return after, seen


@pytest.mark.parametrize("ring", [512, 7, 1])
@pytest.mark.parametrize("which", [EVERYTHING, Filter(types=frozenset({"text_delta", "session_updated"}))], ids=["all", "some"])
async def test_reader_that_comes_at_any_moment_of_a_burst_sees_each_event_behind_its_cursor_once_and_in_order(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch, ring: int, which: Filter
) -> None:
    monkeypatch.setattr(subscriptions, "RING_EVENTS", ring)
    node, chance = Node(), random.Random(ring)
    claim = await claimed(journal, node)

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(follow(journal, claim.session_id, which, chance)) for _ in range(READERS // 6)]
        tasks.create_task(burst(journal, claim, node))

    log = await log_of(database, claim.session_id)
    for reader in readers:
        after, seen = reader.result()
        assert numbers(seen) == [e["seq"] for e in log if e["seq"] > after and which.wants(e["type"], e["turn_id"])]
    assert journal.subscriptions._channels == {}


async def test_two_hundred_reconnects_with_random_cursors_never_lose_or_double(database: Database, journal: Journal) -> None:
    node, chance, seen = Node(), random.Random(7), list[int]()
    claim = await claimed(journal, node)

    async def reconnect() -> None:
        cursor = 0
        for _ in range(RECONNECTS):
            with journal.subscriptions.open(DEFAULT_REALM, claim.session_id, after=cursor) as reader:
                async for batch in reader.read():
                    taken = batch[: chance.randint(1, len(batch))]  # a client that breaks off has seen a part
                    seen.extend(numbers(taken))
                    cursor = taken[-1].seq
                    break
            if len(seen) > 340:
                return

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(reconnect())
        tasks.create_task(burst(journal, claim, node))

    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 340


async def test_publishes_that_come_out_of_order_are_read_in_order(database: Database, journal: Journal) -> None:
    claim, published = await claimed(journal), list[Any]()
    journal.writer._publish = published.append
    recorder = pen(journal, claim)
    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
        assert numbers(await read_until(reader, 2)) == [1, 2]

        for step in range(1, 5):
            await recorder.write(said("x", step=step))
        for index in (1, 0, 3, 2):
            journal.subscriptions.publish(published[index])
        seen = await read_until(reader, 8)

    assert numbers(seen) == list(range(3, 11))


async def test_replay_and_live_frames_are_the_same_bytes(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)

    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id, after=2) as live:
        await recorder.write(said("a\r\n", "\u2028"))
        shown = await read_until(live, 3)
    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id, after=2) as replay:
        again = await read_until(replay, 3)

    assert shown == again
    assert shown[1].frame.startswith(b"id: 4\nevent: text_delta\ndata: {")


async def test_readers_at_the_head_share_one_frame(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)
    with (
        journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as one,
        journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as other,
    ):
        for reader in (one, other):
            await read_until(reader, 2)

        await recorder.write([StepStarted(1)])
        [first], [second] = await read_until(one, 1), await read_until(other, 1)

    assert first.frame is second.frame


async def test_reader_at_the_head_needs_no_database(database_url: str, journal: Journal) -> None:
    claim = await claimed(journal)
    async with cable_to(database_url) as cable:
        reading = Database(cable.dsn, pool_size=2)
        await reading.connect()
        readers = Subscriptions(reading)
        journal.writer._publish = readers.publish
        with readers.open(DEFAULT_REALM, claim.session_id) as reader:
            await read_until(reader, 2)
            cable.is_refusing = True
            cable.cut()

            await pen(journal, claim).write([StepStarted(1)])
            seen = await read_until(reader, 1)
        await reading.aclose()

    assert numbers(seen) == [3]


async def test_reader_whose_table_is_away_is_told_and_goes_on_from_its_cursor(database_url: str, journal: Journal) -> None:
    claim = await claimed(journal)
    async with cable_to(database_url) as cable:
        reading = Database(cable.dsn, pool_size=2)
        await reading.connect()
        readers = Subscriptions(reading)
        with readers.open(DEFAULT_REALM, claim.session_id, after=1) as reader:
            cable.is_refusing = True
            cable.cut()
            with pytest.raises(StoreUnavailable):
                await read_until(reader, 1)

            cable.is_refusing = False
            seen = await read_until(reader, 1)
        await reading.aclose()

    assert numbers(seen) == [2]


async def test_waiting_readers_hold_no_connection(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    async def read(seen: list[int]) -> None:
        with journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
            async for batch in reader.read():
                seen += numbers(batch)
                if seen[-1] == 3:
                    return

    seen: list[list[int]] = [[] for _ in range(30)]
    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        for mine in seen:
            tasks.create_task(read(mine))
        while any(len(mine) < 2 for mine in seen) or database.pool_in_use:
            await asyncio.sleep(0)
        await pen(journal, claim).write([StepStarted(1)])

    assert seen == [[1, 2, 3]] * 30


async def test_nothing_grows_for_a_reader_that_does_not_read(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "RING_EVENTS", 16)
    claim = await claimed(journal)
    recorder = pen(journal, claim)
    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as idle:
        for step in range(1, 51):
            await recorder.write([StepStarted(step)])
        ring = journal.subscriptions._channels[claim.session_id].ring

        assert (len(ring), idle.lag, journal.subscriptions.lag()) == (16, 52, 52)
        assert numbers(await read_until(idle, 52)) == list(range(1, 53))


async def test_reading_without_following_ends_at_the_head(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)

    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
        async with asyncio.timeout(LIMIT_SECONDS):
            batches = [batch async for batch in reader.read(follow=False)]

    assert [numbers(batch) for batch in batches] == [[1, 2]]


async def end_by_archive(journal: Journal, session_id: str) -> None:
    """Archive a session."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.archive(tx, await sessions.lock(tx, session_id))


async def end_by_erasure(journal: Journal, session_id: str) -> None:
    """Erase a session and tell."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, session_id))
    journal.forget(session_id)


async def end_by_stop(journal: Journal, session_id: str) -> None:
    """Stop the process's readers."""
    journal.subscriptions.stop()


@pytest.mark.parametrize(
    ("end", "seen"), [(end_by_archive, [1, 2]), (end_by_erasure, [1]), (end_by_stop, [1])], ids=["archive", "erase", "stop"]
)
@pytest.mark.parametrize("which", [EVERYTHING, DELTAS_ONLY], ids=["all", "filtered"])
async def test_reading_ends_when_the_session_or_the_process_does(
    journal: Journal, end: Callable[[Journal, str], Any], seen: list[int], which: Filter
) -> None:
    session_id = await open_session(journal)

    async def read() -> list[int]:
        with journal.subscriptions.open(DEFAULT_REALM, session_id, which=which) as reader:
            return [event.seq async for batch in reader.read() for event in batch]

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        while not (channel := journal.subscriptions._channels.get(session_id)) or channel.head < 1:
            await asyncio.sleep(0)
        await end(journal, session_id)

    assert reading.result() == (seen if which is EVERYTHING else [])


async def test_archive_that_was_undone_does_not_end_a_reading(journal: Journal) -> None:
    session_id = await open_session(journal)
    with journal.subscriptions.open(DEFAULT_REALM, session_id) as reader:
        await read_until(reader, 1)
        await end_by_archive(journal, session_id)
        async with journal.transaction(DEFAULT_REALM) as tx:
            await sessions.unarchive(tx, await sessions.lock(tx, session_id))
            await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))

        seen = await read_until(reader, 3)

    assert [event.type for event in seen] == ["session_archived", "session_unarchived", "session_updated"]


async def test_reader_sees_nothing_of_a_commit_that_is_under_way(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
        await read_until(reader, 2)

        async with asyncio.TaskGroup() as tasks, stopped(database):
            recorder = pen(journal, claim)
            recorder.put_delta(TextDelta(1, "x"), "x")
            await until_blocked(database, "suricate writer")
            reading = tasks.create_task(read_until(reader, 1))
            await asyncio.sleep(0)
            was_shown = reading.done()

    assert not was_shown
    assert numbers(reading.result()) == [3]


async def test_cursor_beyond_the_head_waits_for_what_comes_behind_it(database: Database, journal: Journal) -> None:
    claim = await claimed(journal)
    recorder = pen(journal, claim)
    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id, after=5) as reader:
        for step in range(1, 5):
            await recorder.write([StepStarted(step)])
        seen = await read_until(reader, 1)

    assert numbers(seen) == [6]


async def test_number_that_the_log_does_not_have_sends_its_readers_to_the_table_once(journal: Journal) -> None:
    session_id = await open_session(journal)
    with journal.subscriptions.open(DEFAULT_REALM, session_id) as reader:
        await read_until(reader, 1)
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(LIMIT_SECONDS):
            waiting = tasks.create_task(read_until(reader, 1))
            journal.subscriptions.advance(session_id, 1_000_000)
            while reader.lag:
                await asyncio.sleep(0.002)
            async with journal.transaction(DEFAULT_REALM) as tx:
                await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "the end"})]))

    assert numbers(waiting.result()) == [2]


async def test_ring_holds_no_more_bytes_than_a_page(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "RING_BYTES", 1_000)
    claim = await claimed(journal)

    with journal.subscriptions.open(DEFAULT_REALM, claim.session_id):
        channel = journal.subscriptions._channels[claim.session_id]
        for number in range(1, 11):
            await journal.writer.submit(
                Entry(claim.session_id, claim.fence, claim.turn_id, [TextDelta(1, "x" * 300)], number=number)
            )

        assert channel.ring_bytes == sum(len(shown.frame) for shown in channel.ring) <= 1_000
        assert channel.ring[-1].seq == channel.head
