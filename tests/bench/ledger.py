"""Part a: durable delta events a second through the journal, in one process with their writers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import asyncpg

from app import clock, ids
from app.db.engine import Database
from app.db.migrate import migrate
from app.journal.entry import Appended, Entry
from app.journal.frames import body
from app.journal.types import TextDelta
from app.journal.writer import Writer
from app.pace import Pace
from app.sessions import DEFAULT_REALM
from tests.bench.figures import median
from tests.bench.ground import Ground
from tests.bench.table import Aim, Row

LIVE = (1, 16, 128)
MOST_CONNECTIONS = 16
BATCHED, SINGLY = "bare batched inserts", "one commit an event"


@dataclass(frozen=True, slots=True)
class Book:
    """A database with live turns in it.

    Args:
        numbers: of entries; those of one fence grow.
    """

    url: str
    turns: Sequence[tuple[str, str]]
    numbers: Iterator[int] = field(default_factory=lambda: count(1))


async def appends(ground: Ground, *, quick: bool) -> list[Row]:
    """Part a."""
    seconds, rounds = (0.3, 1) if quick else (0.5, 5)
    book = await book_in(ground, "bench_ledger", LIVE[-1])
    ways = {"Suricate": _through_the_writer, BATCHED: _batched, SINGLY: _singly}
    rows: list[Row] = []
    for live in LIVE:
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                rates[name].append(await way(replace(book, turns=book.turns[:live]), seconds))
        found = {name: median(each) for name, each in rates.items()}
        ours = found.pop("Suricate")
        what = f"durable delta events of {live} live turns in lock step"
        rows.append(Row("a", f"a-{live}", what, "a second", ours, found))
        if live == LIVE[-1]:
            share, times = (
                median([one / other for one, other in zip(rates["Suricate"], rates[name], strict=True)])
                for name in (BATCHED, SINGLY)
            )
            rows.append(Row("a", "a-share", f"share of {BATCHED} at {live}", "1 is equal", share, {}, Aim(0.5, ">=")))
            rows.append(Row("a", "a-times", f"times {SINGLY} at {live}", "1 is equal", times, {}, Aim(5, ">=")))
    return rows


async def book_in(ground: Ground, name: str, live: int) -> Book:
    """Make a database of that name with so many live turns."""
    url = await ground.database(name)
    turns = [(ids.session_id(), ids.turn_id()) for _ in range(live)]
    database = Database(url, pool_size=2)
    await database.connect()
    await migrate(database, url)
    async with database.transaction(DEFAULT_REALM) as db:
        for session_id, turn_id in turns:
            await db.execute(
                """INSERT INTO sessions (realm_id, id, created_at, updated_at, labels, label_terms, options, status,
                                         current_turn_id, fence)
                   VALUES ('default', $1, now(), now(), '{}', '{}', '{}', 'running', $2, 1)""",
                session_id,
                turn_id,
            )
    await database.aclose()
    owner = await asyncpg.connect(url)
    await owner.execute("CREATE TABLE bare (LIKE events INCLUDING ALL)")
    await owner.close()
    return Book(url, turns)


def hello(book: Book, session_id: str, turn_id: str) -> Entry:
    """Make the next entry, a delta, of a live turn."""
    return Entry(session_id, 1, turn_id, [TextDelta(1, "hello")], number=next(book.numbers))


async def repeat(seconds: float, act: Callable[[int], Awaitable[Any]]) -> int:
    """Do something again and again for so long, with the number of the time, and return how often it was done."""
    ends_at, number = clock.monotonic() + seconds, 0
    while clock.monotonic() < ends_at:
        number += 1
        await act(number)
    return number


async def rate(speaking: list[Awaitable[int]], seconds: float) -> float:
    """Return how often a second all of them together did it."""
    began = clock.monotonic()
    counts = await asyncio.gather(*speaking)
    return sum(counts) / max(clock.monotonic() - began, seconds)


async def _through_the_writer(book: Book, seconds: float) -> float:
    database = Database(book.url, pool_size=2)
    await database.connect()
    writer = Writer(database, _nobody, Pace())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(writer.run())

        async def speak(place: int) -> int:
            session_id, turn_id = book.turns[place]
            return await repeat(seconds, lambda _: writer.submit(hello(book, session_id, turn_id)))

        found = await rate([speak(place) for place in range(len(book.turns))], seconds)
        running.cancel()
    await database.aclose()
    return found


async def _batched(book: Book, seconds: float) -> float:
    """The same rows, one statement a round, nothing numbered and nothing fenced."""
    connection = await asyncpg.connect(book.url)
    base = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM bare")
    session_ids = [session_id for session_id, _ in book.turns]
    turn_ids = [turn_id for _, turn_id in book.turns]

    async def insert(number: int) -> Any:
        bodies = [_body(session_id, turn_id) for session_id, turn_id in book.turns]
        return await connection.execute(
            """INSERT INTO bare (realm_id, session_id, seq, turn_id, type, scope_id, at, payload)
               SELECT 'default', s, $4, t, 'text_delta', 'primary', now(), p
               FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS x(s, t, p)""",
            session_ids,
            turn_ids,
            bodies,
            base + number,
        )

    found = await rate([repeat(seconds, insert)], seconds)
    await connection.close()
    return found * len(book.turns)


async def _singly(book: Book, seconds: float) -> float:
    """Numbered on the session's row as ours are, but each event a commit of its own."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(book.url, min_size=1, max_size=MOST_CONNECTIONS))

        async def speak(session_id: str, turn_id: str) -> int:
            async def append(_number: int) -> Any:
                return await pool.execute(
                    """WITH n AS (UPDATE sessions SET last_seq = last_seq + 1 WHERE id = $1 AND fence = 1 RETURNING last_seq)
                       INSERT INTO events (realm_id, session_id, seq, turn_id, type, scope_id, at, payload)
                       SELECT 'default', $1, last_seq, $2, 'text_delta', 'primary', now(), $3 FROM n""",
                    session_id,
                    turn_id,
                    _body(session_id, turn_id),
                )

            return await repeat(seconds, append)

        return await rate([speak(*turn) for turn in book.turns], seconds)


def _body(session_id: str, turn_id: str) -> str:
    return body(TextDelta(1, "hello"), session_id=session_id, turn_id=turn_id, at=clock.rfc3339(clock.now()))


def _nobody(_appended: Appended) -> None:
    """Nobody reads."""
