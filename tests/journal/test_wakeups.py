"""Wake-ups between nodes, and the poll that stands in when all of them are lost."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import ids, sessions
from app.db.engine import Database
from app.journal import subscriptions, wakeups
from app.journal.journal import Journal
from app.journal.nats import Nats
from app.journal.notify import Notify
from app.journal.types import StepStarted
from app.journal.wakeups import PAYLOAD_BYTES, Carrier, Wakeups, _payloads
from app.pace import Pace
from app.sessions import DEFAULT_REALM
from tests import nats_server
from tests.journal.cable import Cable, cable_to, laid
from tests.journal.ledger import (
    LIMIT_SECONDS,
    claimed,
    numbers,
    open_session,
    pen,
    read_until,
    running,
)

pytestmark = pytest.mark.anyio

OTHER = ids.node_id()


@dataclass(frozen=True, slots=True)
class Way:
    """A carrier, and the cable that all of its connections go through."""

    carrier: Carrier
    cable: Cable


@pytest.fixture(params=["postgres", "nats"])
async def way(request: pytest.FixtureRequest, database: Database, database_url: str) -> AsyncIterator[Way]:
    """Each carrier in turn."""
    if request.param == "postgres":
        async with cable_to(database_url) as cable:
            yield Way(Notify(Database(cable.dsn, pool_size=2)), cable)
        return
    async with (
        nats_server.running(request.getfixturevalue("nats_program")) as server,
        laid(lambda: asyncio.open_connection("127.0.0.1", server.port)) as cable,
    ):
        yield Way(Nats(database, f"nats://127.0.0.1:{cable.port}"), cable)


class Told:
    """What a node was told."""

    def __init__(self) -> None:
        self.news: list[tuple[str, int]] = []
        self.gaps = 0

    def on_wakeup(self, session_id: str, seq: int) -> None:
        """Keep a wake-up."""
        self.news.append((session_id, seq))

    def on_gap(self) -> None:
        """Count a gap."""
        self.gaps += 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait, under the limit, until something is so."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def listening(carrier: Carrier, node_id: str) -> AsyncIterator[tuple[Wakeups, Told]]:
    """Run one node's wake-ups."""
    told = Told()
    node = Wakeups(carrier, node_id, told.on_wakeup, told.on_gap)
    async with running(node.run()):
        await until(lambda: node.is_listening)
        yield node, told


@asynccontextmanager
async def eavesdropping(carrier: Carrier) -> AsyncIterator[list[str]]:
    """Collect all payloads."""
    heard: list[str] = []
    async with carrier.connected(heard.append):
        yield heard


async def test_node_hears_of_others_and_not_of_itself(way: Way) -> None:
    async with listening(way.carrier, "one") as (one, told_one), listening(way.carrier, OTHER) as (other, told_other):
        one.tell("a", 1)
        other.tell("b", 2)
        await until(lambda: bool(told_one.news and told_other.news))

    assert told_one.news == [("b", 2)]
    assert told_other.news == [("a", 1)]


async def test_thousands_of_news_become_a_handful_of_payloads(way: Way) -> None:
    async with eavesdropping(way.carrier) as heard, listening(way.carrier, "one") as (one, _):
        for number in range(1, 5_001):
            one.tell(f"session-{number % 10}", number)
        await until(lambda: "session-0:5000" in "".join(heard))

    payloads = [payload for payload in heard if "," in payload]
    assert len(payloads) <= 2
    assert set(payloads[-1].split(",")) == {"one", *(f"session-{place}:{4990 + (place or 10)}" for place in range(10))}


async def test_news_carry_ids_and_numbers_and_nothing_of_the_event(way: Way, database: Database) -> None:
    journal = Journal(database, ids.node_id(), pace=Pace(), carrier=way.carrier)
    async with eavesdropping(way.carrier) as heard, running(journal.writer.run(), journal.wakeups.run()):
        session_id = await open_session(journal)
        await until(lambda: any("," in payload for payload in heard))

    [payload] = [payload for payload in heard if "," in payload]
    node_id, told = payload.split(",")
    assert told == f"{session_id}:1"
    assert uuid.UUID(node_id).version == 7


async def test_news_of_many_sessions_all_arrive(way: Way) -> None:
    many = {ids.session_id(): number for number in range(1, 1_001)}
    async with listening(way.carrier, OTHER) as (_, told), listening(way.carrier, "one") as (one, _):
        for session_id, number in many.items():
            one.tell(session_id, number)
        await until(lambda: len(told.news) >= len(many))

    assert dict(told.news) == many


async def test_payload_that_no_node_of_ours_would_send_is_passed_over(way: Way) -> None:
    async with listening(way.carrier, OTHER) as (_, told), way.carrier.connected(lambda _: None) as send:
        await send(["one,a", "one,a:x,b:1e3,c:-4", f"one,d:{'9' * 5_000}", ",,:,", "\u2028,é:1", "one,e:5"])
        await until(lambda: bool(told.news))

    assert told.news == [("e", 5)]


@given(st.dictionaries(st.uuids(version=4).map(str), st.integers(0, 10**18), max_size=400))
def test_payloads_are_within_the_limit_and_say_everything_once(news: dict[str, int]) -> None:
    payloads = _payloads(OTHER, news)

    items = [item for payload in payloads for item in payload.split(",")[1:]]
    assert items == [f"{session_id}:{seq}" for session_id, seq in news.items()]
    assert all(len(payload) <= PAYLOAD_BYTES and payload.startswith(OTHER + ",") for payload in payloads)


async def test_lower_number_that_is_told_later_does_not_hide_the_higher(way: Way) -> None:
    async with listening(way.carrier, OTHER) as (_, told), listening(way.carrier, "one") as (one, _):
        one.tell("a", 14)
        one.tell("a", 12)
        await until(lambda: bool(told.news))

    assert told.news == [("a", 14)]


async def test_erasure_is_told_whatever_was_to_be_told_before(way: Way) -> None:
    async with listening(way.carrier, OTHER) as (_, told), listening(way.carrier, "one") as (one, _):
        one.tell("a", 14)
        one.tell("a", 0)
        await until(lambda: bool(told.news))

    assert told.news == [("a", 0)]


async def test_node_that_starts_while_the_carrier_is_away_finds_it_later(way: Way) -> None:
    way.cable.is_refusing = True
    told = Told()
    node = Wakeups(way.carrier, OTHER, told.on_wakeup, told.on_gap)
    async with running(node.run()):
        await until(lambda: way.cable.refused >= 2)
        assert not node.is_listening

        way.cable.is_refusing = False
        await until(lambda: node.is_listening)

    assert told.gaps == 1


async def test_lost_connection_is_made_again_and_readers_are_told_of_the_gap(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "HEARTBEAT_SECONDS", 0.05)
    async with listening(way.carrier, OTHER) as (node, told), listening(way.carrier, "one") as (one, told_one):
        way.cable.cut()
        await until(lambda: told.gaps > 1 and told_one.gaps > 1)
        await until(lambda: node.is_listening and one.is_listening)
        one.tell("a", 1)
        await until(lambda: bool(told.news))

    assert told.gaps == 2
    assert told.news == [("a", 1)]


async def test_frozen_connection_is_noticed_by_the_heartbeat(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(wakeups, "HEARTBEAT_LIMIT_SECONDS", 0.05)
    async with listening(way.carrier, "one") as (one, told):
        way.cable.is_deaf = True
        await until(lambda: not one.is_listening)

        way.cable.is_deaf = False
        way.cable.cut()
        await until(lambda: one.is_listening)

    assert told.gaps == 2


async def test_what_cannot_be_told_for_long_does_not_pile_up(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "MOST_NEWS", 3)
    node = Wakeups(way.carrier, "one", lambda _session, _seq: None, lambda: None)
    async with listening(way.carrier, OTHER) as (_, told):
        for number in range(1, 9):
            node.tell(f"session-{number % 4}", number)
        async with running(node.run()):
            await until(lambda: bool(told.news))

    assert told.news == [("session-1", 5), ("session-2", 6), ("session-3", 7)]


@asynccontextmanager
async def two_nodes(database: Database, carrier: Carrier | None = None) -> AsyncIterator[tuple[Journal, Journal]]:
    """Run a journal that writes and one that only reads; without a carrier all wake-ups are lost."""
    writing, reading = (Journal(database, ids.node_id(), pace=Pace(), carrier=carrier) for _ in range(2))
    works = [writing.writer.run(), reading.subscriptions.poll()]
    if carrier is not None:
        works += [writing.wakeups.run(), reading.wakeups.run()]
    async with running(*works):
        if carrier is not None:
            await until(lambda: writing.wakeups.is_listening and reading.wakeups.is_listening)
        yield writing, reading


async def test_reader_on_another_node_is_woken(way: Way, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "POLL_SECONDS", 600)
    async with two_nodes(database, way.carrier) as (writing, reading):
        claim = await claimed(writing)
        with reading.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
            await read_until(reader, 2)
            await pen(writing, claim).write([StepStarted(1)])
            seen = await read_until(reader, 1)

    assert numbers(seen) == [3]


async def test_with_all_wakeups_lost_the_poll_finds_what_is_new(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "POLL_SECONDS", 0.02)
    async with two_nodes(database) as (writing, reading):
        claim = await claimed(writing)
        with reading.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
            await read_until(reader, 2)
            await pen(writing, claim).write([StepStarted(1)])
            seen = await read_until(reader, 1)

    assert numbers(seen) == [3]


async def test_poll_wakes_a_waiting_reader_although_a_new_one_has_seen_the_head_already(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "POLL_SECONDS", 0.02)
    async with two_nodes(database) as (writing, reading):
        claim = await claimed(writing)
        with (
            reading.subscriptions.open(DEFAULT_REALM, claim.session_id) as early,
            reading.subscriptions.open(DEFAULT_REALM, claim.session_id) as late,
        ):
            await read_until(early, 2)
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(read_until(early, 1))
                await asyncio.sleep(0)
                await pen(writing, claim).write([StepStarted(1)])
                await read_until(late, 3)

    assert numbers(waiting.result()) == [3]


async def test_with_all_wakeups_lost_the_poll_ends_readers_of_an_erased_session(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "POLL_SECONDS", 0.02)
    async with two_nodes(database) as (writing, reading):
        session_id = await open_session(writing)
        with reading.subscriptions.open(DEFAULT_REALM, session_id) as reader:
            await read_until(reader, 1)
            async with writing.transaction(DEFAULT_REALM) as tx:
                await sessions.erase(tx, await sessions.lock(tx, session_id))
            writing.forget(session_id)

            assert await read_until(reader, 1) == []


async def test_poll_goes_on_after_the_database_was_away(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "POLL_SECONDS", 0.02)
    async with cable_to(database_url) as cable:
        database = Database(cable.dsn, pool_size=2)
        await database.connect()
        async with two_nodes(database) as (writing, reading):
            claim = await claimed(writing)
            with reading.subscriptions.open(DEFAULT_REALM, claim.session_id) as reader:
                await read_until(reader, 2)
                cable.is_refusing = True
                cable.cut()
                await until(lambda: cable.refused >= 2)

                cable.is_refusing = False
                await pen(writing, claim).write([StepStarted(1)])
                seen = await read_until(reader, 1)
        await database.aclose()

    assert numbers(seen) == [3]


async def test_last_words_of_a_node_that_ends_arrive(way: Way) -> None:
    async with listening(way.carrier, OTHER) as (_, told):
        async with listening(way.carrier, "one") as (one, _):
            one.tell("a", 1)
            await one.flush()
        await until(lambda: told.news == [("a", 1)])


async def test_node_that_cannot_say_its_last_words_ends_all_the_same(way: Way) -> None:
    cut_off = Wakeups(way.carrier, "one", lambda _id, _seq: None, lambda: None)
    cut_off.tell("a", 1)

    async with asyncio.timeout(LIMIT_SECONDS):
        await cut_off.flush()
