"""Sessions and turns made without a door, and their logs read back: what tests of the lower rooms begin and end with."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from app import history, ids, nodes, sessions
from app.db.engine import Database
from app.errors import AgentError
from app.journal.entry import Appended
from app.journal.event import Event
from app.journal.journal import Journal
from app.journal.recorder import Recorder
from app.journal.subscriptions import Shown, Subscription
from app.journal.types import StepStarted, TextDelta
from app.pace import Pace
from app.sessions import DEFAULT_REALM, Options, Session
from app.turns import desk
from app.turns.claims import Claim
from app.turns.desk import NewTurn, OnBusy
from app.turns.turn import Turn

LIMIT_SECONDS = 5.0
OPTIONS = Options(model="played", provider="played")


@dataclass(slots=True)
class Node:
    """A claimant that begins nothing: it keeps the claims that it was given."""

    node_id: str = field(default_factory=ids.node_id)
    lease_seconds: float = 30.0
    room: int = 1_000_000
    claims: list[Claim] = field(default_factory=list)
    given_up: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def row(self) -> nodes.Node:
        """What the list of nodes has of it."""
        return nodes.Node(self.node_id, self.lease_seconds, "worker", "1", "here", 1, self.room)

    def has_room(self) -> bool:
        """Tell whether it takes one more."""
        return len(self.claims) < self.room

    def take(self, claim: Claim) -> None:
        """Keep a claim."""
        self.claims.append(claim)

    def gave_up(self, session: Session, live: Turn, error: AgentError) -> None:
        """Keep which turn has ended, and why."""
        self.given_up.append((session.id, live.id, error.reason))


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work beside the block, and stop it at the block's end."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


def journal_on(database: Database, *, interval_seconds: float = 0.0) -> Journal:
    """Make a journal whose tasks do not run."""
    return Journal(database, ids.node_id(), pace=Pace(interval_seconds))


@asynccontextmanager
async def writing(database: Database, *, interval_seconds: float = 0.0) -> AsyncIterator[Journal]:
    """Give a journal whose writer runs; nothing listens and nothing polls."""
    journal = journal_on(database, interval_seconds=interval_seconds)
    async with running(journal.writer.run()):
        yield journal


async def open_session(journal: Journal, options: Options = OPTIONS, *, kept_prompt: str | None = None) -> str:
    """Open a session and return its id."""
    async with journal.transaction(DEFAULT_REALM) as tx:
        return (await sessions.create(tx, options, title=None, labels={}, kept_prompt=kept_prompt)).id


async def read_session(database: Database, session_id: str) -> Session:
    """Read a session's row."""
    async with database.transaction(DEFAULT_REALM) as db:
        return await sessions.get(db, session_id)


async def start(
    journal: Journal,
    session_id: str,
    node: Node,
    prompt: str = "Hello",
    *,
    on_busy: OnBusy = "reject",
    overrides: Mapping[str, Any] | None = None,
) -> str:
    """Start a turn and return its id."""
    new = NewTurn(orjson.dumps(prompt).decode(), overrides or {}, on_busy)
    async with journal.transaction(DEFAULT_REALM) as tx:
        return await desk.start(tx, await sessions.lock(tx, session_id), new, node)


async def claimed(journal: Journal, node: Node | None = None) -> Claim:
    """Open a session with a live turn, and return the claim to it."""
    node = node or Node()
    session_id = await open_session(journal)
    await start(journal, session_id, node)
    return node.claims[-1]


def pen(journal: Journal, claim: Claim, failures: list[str] | None = None) -> Recorder:
    """Give the pen of a claim; when it breaks, the turn's id is put into `failures`."""
    broken = failures if failures is not None else []
    return journal.recorder(
        session_id=claim.session_id,
        turn_id=claim.turn_id,
        fence=claim.fence,
        on_failure=lambda: broken.append(claim.turn_id),
    )


def said(*words: str, step: int = 1) -> list[Event]:
    """Make a step's beginning and a delta of each word."""
    return [StepStarted(step), *(TextDelta(step, word) for word in words)]


async def log_of(database: Database, session_id: str) -> list[dict[str, Any]]:
    """Read a session's log as envelopes; its numbers are from 1 without gaps and end at the session's head."""
    query = """SELECT e.seq, e.payload, s.last_seq FROM events e LEFT JOIN sessions s ON s.id = e.session_id
               WHERE e.session_id = $1 ORDER BY e.seq"""
    async with database.transaction(DEFAULT_REALM) as db:
        rows = await db.fetch(query, session_id)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["last_seq"] for row in rows} <= {None, len(rows)}
    return [orjson.loads(f'{{"seq":{row["seq"]},{row["payload"]}') for row in rows]


async def types_of(database: Database, session_id: str) -> list[str]:
    """Read the types of a session's log."""
    return [event["type"] for event in await log_of(database, session_id)]


async def messages_of(database: Database, session_id: str) -> list[dict[str, Any]]:
    """Read a session's stored messages, parsed."""
    async with database.transaction(DEFAULT_REALM) as db:
        found = await history.messages(db, session_id, after=0, limit=1_000)
    parsed: list[dict[str, Any]] = orjson.loads(orjson.dumps(found))
    return parsed


async def read_until(subscription: Subscription, count: int) -> list[Shown]:
    """Read that many events, or fail when they do not come in time."""
    seen: list[Shown] = []
    async with asyncio.timeout(LIMIT_SECONDS):
        async for batch in subscription.read():
            seen += batch
            if len(seen) >= count:
                break
    return seen


def numbers(shown: Sequence[Shown]) -> list[int]:
    """Return the numbers of events."""
    return [event.seq for event in shown]


async def resolved(futures: Sequence["asyncio.Future[Appended]"]) -> list[Appended | BaseException]:
    """Wait for entries to be settled, under the limit."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await asyncio.gather(*futures, return_exceptions=True)


@asynccontextmanager
async def locked(database: Database, *session_ids: str) -> AsyncIterator[None]:
    """Keep sessions' rows from everyone else for the length of the block, as a node that froze in the middle of an act does."""
    async with database.transaction(DEFAULT_REALM) as db:
        await db.fetch("SELECT id FROM sessions WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE", session_ids)
        yield


@asynccontextmanager
async def stopped(database: Database) -> AsyncIterator[None]:
    """Let no event be written for the length of the block: whoever commits one waits."""
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("LOCK TABLE events IN SHARE MODE")
        yield


async def until_blocked(database: Database, name: str) -> int:
    """Wait until a connection of that name waits for a lock, and return its process id."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock' AND datname = $2"
    async with asyncio.timeout(LIMIT_SECONDS), database.dedicated("watch", role="none") as db:
        here = await db.fetchval("SELECT current_database()")
        while (pid := await db.fetchval(query, name, here)) is None:
            await asyncio.sleep(0.002)
        return int(pid)
