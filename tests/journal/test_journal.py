"""Transactions of the ledger: what is shown, told and done when they commit, and that nothing is when they do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import sessions
from app.db.engine import Database
from app.errors import Fenced, StoreUnavailable
from app.journal.entry import Entry
from app.journal.journal import Journal
from app.journal.types import SessionUpdated, StepStarted
from app.sessions import DEFAULT_REALM
from tests.journal.cable import Cable, cable_to
from tests.journal.ledger import LIMIT_SECONDS, claimed, journal_on, numbers, open_session, pen, read_until, types_of

pytestmark = pytest.mark.anyio


class Stop(Exception):
    """Ends a transaction."""


async def test_what_a_transaction_appends_is_shown_after_its_commit(journal: Journal) -> None:
    session_id = await open_session(journal)
    with journal.subscriptions.open(DEFAULT_REALM, session_id) as reader:
        await read_until(reader, 1)

        async with journal.transaction(DEFAULT_REALM) as tx:
            await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))
            lag_before = reader.lag
        seen = await read_until(reader, 1)

    assert lag_before == 0
    assert numbers(seen) == [2]


async def test_what_a_transaction_leaves_for_its_commit_is_not_done_when_it_rolls_back(
    database: Database, journal: Journal
) -> None:
    session_id, done = await open_session(journal), list[str]()
    journal.watch(lambda *_: done.append("watcher"))

    with journal.subscriptions.open(DEFAULT_REALM, session_id) as reader:
        with pytest.raises(Stop):
            async with journal.transaction(DEFAULT_REALM) as tx:
                await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))
                tx.after_commit.append(lambda: done.append("act"))
                raise Stop
        lag = reader.lag

    assert done == []
    assert lag == 0
    assert await types_of(database, session_id) == ["session_created"]


async def test_acts_left_for_the_commit_come_after_what_was_appended_was_shown_and_told(journal: Journal) -> None:
    session_id, order = await open_session(journal), list[str]()
    journal.watch(lambda _, fence: order.append(f"told {fence}"))
    with journal.subscriptions.open(DEFAULT_REALM, session_id) as reader:
        await read_until(reader, 1)

        async with journal.transaction(DEFAULT_REALM) as tx:
            tx.after_commit.append(lambda: order.append(f"act, {reader.lag} shown"))
            await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))
            order.append("commit")

    assert order == ["commit", "told 0", "act, 1 shown"]


async def test_append_with_a_stale_fence_breaks_the_transaction(database: Database, journal: Journal) -> None:
    session_id = await open_session(journal)

    with pytest.raises(Fenced):
        async with journal.transaction(DEFAULT_REALM) as tx:
            await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))
            await tx.append(Entry(session_id, 7, None, [SessionUpdated({"title": "y"})]))

    assert await types_of(database, session_id) == ["session_created"]


async def test_a_pens_own_writes_are_not_told_to_watchers(journal: Journal) -> None:
    claim, told = await claimed(journal), list[str]()
    journal.watch(lambda session_id, _: told.append(session_id))

    await pen(journal, claim).write([StepStarted(1)])

    assert told == []


async def test_forgetting_a_session_tells_watchers_that_its_fence_is_gone(journal: Journal) -> None:
    session_id, told = await open_session(journal), list[tuple[str, int | None]]()
    journal.watch(lambda *news: told.append(news))
    async with journal.transaction(DEFAULT_REALM) as tx:
        await sessions.erase(tx, await sessions.lock(tx, session_id))

    journal.forget(session_id)

    assert told == [(session_id, None)]


async def test_transaction_is_rolled_back_whole(database: Database, journal: Journal) -> None:
    with pytest.raises(Stop):
        async with journal.transaction(DEFAULT_REALM) as tx:
            session = await sessions.create(tx, sessions.Options("m", "p"), title=None, labels={}, kept_prompt=None)
            raise Stop

    async with database.transaction(DEFAULT_REALM) as db:
        assert await db.fetchval("SELECT count(*) FROM sessions WHERE id = $1", session.id) == 0
        assert await db.fetchval("SELECT count(*) FROM events WHERE session_id = $1", session.id) == 0


async def recover_once_kept(cable: Cable, database: Database, session_id: str) -> None:
    """Let a cable recover when Postgres has committed what was sent over it."""
    while await types_of(database, session_id) == ["session_created"]:
        await asyncio.sleep(0.002)
    cable.recover()


async def test_commit_whose_answer_was_lost_is_found_kept_and_its_acts_are_done(
    database: Database, database_url: str, journal: Journal
) -> None:
    session_id, done = await open_session(journal), list[str]()
    async with (
        cabled(database_url) as (cable, remote),
        asyncio.timeout(LIMIT_SECONDS),
        asyncio.TaskGroup() as tasks,
        remote.transaction(DEFAULT_REALM) as tx,
    ):
        await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))
        tx.after_commit.append(lambda: done.append("act"))
        cable.is_deaf = True
        tasks.create_task(recover_once_kept(cable, database, session_id))

    assert done == ["act"]
    assert await types_of(database, session_id) == ["session_created", "session_updated"]


async def test_commit_that_was_lost_is_told_and_nothing_of_it_is_done(
    database: Database, database_url: str, journal: Journal
) -> None:
    session_id, done = await open_session(journal), list[str]()
    async with cabled(database_url) as (cable, remote):
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(LIMIT_SECONDS), remote.transaction(DEFAULT_REALM) as tx:
                await tx.append(Entry(session_id, 0, None, [SessionUpdated({"title": "x"})]))
                tx.after_commit.append(lambda: done.append("act"))
                cable.cut()

    assert done == []
    assert await types_of(database, session_id) == ["session_created"]


@asynccontextmanager
async def cabled(database_url: str) -> AsyncIterator[tuple[Cable, Journal]]:
    """Give a journal at the end of a cable."""
    async with cable_to(database_url) as cable:
        remote = Database(cable.dsn, pool_size=2)
        await remote.connect()
        yield cable, journal_on(remote)
        await remote.aclose()
