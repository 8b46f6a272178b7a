"""Part k: how soon wake-ups between nodes come and what they cost the database, over Postgres' NOTIFY and over NATS.

All nodes are in one process, each with a writer and wake-ups on connections of its own, so that the carriers differ in nothing
else. Every node hears every other one, so what they hear grows with the square of their number and shares the cores. NOTIFY is
measured twice: what it differs from itself is noise, and so is any difference that is no larger.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from app import clock, ids
from app.db.engine import Database
from app.journal.entry import Appended
from app.journal.journal import Journal
from app.journal.nats import Nats
from app.journal.notify import Notify
from app.journal.wakeups import Carrier
from app.pace import Pace
from app.sessions import DEFAULT_REALM
from tests import nats_server
from tests.bench.figures import Spread, median
from tests.bench.ground import Ground
from tests.bench.ledger import Book, book_in, hello, rate, repeat
from tests.bench.table import Row

NODES = (1, 4, 16)
NATS, NOTIFY, AGAIN, SILENT = "NATS", "NOTIFY", "NOTIFY again", "no wake-ups"
APART_SECONDS = 0.02  # between commits whose wake-ups are timed: more than a tick
WAIT_SECONDS = 10

Make = Callable[[Database], Carrier]
Figures = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    nodes: int
    seconds: float
    rounds: int


async def carriers(ground: Ground, *, quick: bool) -> list[Row]:
    """Part k."""
    seconds, rounds, wakes = (0.2, 1, 5) if quick else (0.4, 4, 20)
    await ground.clear()
    book = await book_in(ground, "bench_carriers", NODES[-1])
    async with nats_server.running(nats_server.found()) as server:
        ways: dict[str, Make | None] = {
            NATS: lambda database: Nats(database, server.url),
            NOTIFY: Notify,
            AGAIN: Notify,
            SILENT: None,
        }
        rows = await _late(book, {name: make for name, make in ways.items() if make is not None}, wakes, rounds)
        for count in NODES:
            rows += await _load(ground, book, ways, Size(count, seconds, rounds))
    return rows


async def _load(ground: Ground, book: Book, ways: dict[str, Make | None], size: Size) -> list[Row]:
    rates: Figures = {name: [] for name in ways}
    cpu: Figures = {name: [] for name in ways}
    for _ in range(size.rounds):
        for name, make in ways.items():
            async with _nodes(book, make, size.nodes) as nodes:
                before = ground.postgres_cpu()
                rates[name].append(await _commits(book, nodes, size.seconds))
                cpu[name].append((ground.postgres_cpu() - before) / (rates[name][-1] * size.seconds) * 1_000_000)
    return _rows(size.nodes, rates, cpu)


def _rows(count: int, rates: Figures, cpu: Figures) -> list[Row]:
    nodes = f"{count} nodes that commit at once"
    rows = [
        _row(f"k-{count}-rate", f"{nodes}, wake-ups over NATS: commits", "a second", rates),
        _row(f"k-{count}-cpu", "the same: Postgres' CPU for a commit", "µs", cpu),
    ]
    if count == NODES[-1]:
        rows.append(_ratio("k-times", f"times the commits over NOTIFY at {count}", rates))
        rows.append(_ratio("k-share", f"times Postgres' CPU for one over NOTIFY at {count}", cpu))
    return rows


def _row(key: str, what: str, unit: str, figures: Figures) -> Row:
    found = {name: median(each) for name, each in figures.items()}
    return Row("k", key, what, unit, found.pop(NATS), found)


def _ratio(key: str, what: str, figures: Figures) -> Row:
    ours, noise = (
        median([one / other for one, other in zip(figures[name], figures[NOTIFY], strict=True)]) for name in (NATS, AGAIN)
    )
    return Row("k", key, what, "1 is equal", ours, {"NOTIFY by itself": noise})


async def _late(book: Book, ways: dict[str, Make], wakes: int, rounds: int) -> list[Row]:
    spreads: dict[str, list[Spread]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, make in ways.items():
            spreads[name].append(await _lateness(book, make, wakes))
    what = "commit on one node to a reader on another, over NATS"
    return [
        _row("k-p50", f"{what}, p50", "ms", {name: [spread.p50 for spread in each] for name, each in spreads.items()}),
        _row("k-p99", f"{what}, p99", "ms", {name: [spread.p99 for spread in each] for name, each in spreads.items()}),
    ]


async def _lateness(book: Book, make: Make, wakes: int) -> Spread:
    late: list[float] = []
    async with _nodes(book, make, 2) as (here, there), asyncio.timeout(WAIT_SECONDS):
        head = (await _append(here, book, 0)).last_seq
        with there.subscriptions.open(DEFAULT_REALM, book.turns[0][0], after=head) as reader:
            async with aclosing(reader.read()) as batches:
                for _ in range(wakes):
                    await asyncio.sleep(APART_SECONDS)
                    await _append(here, book, 0)
                    committed_at = clock.monotonic()
                    await anext(batches)
                    late.append((clock.monotonic() - committed_at) * 1000)
    return Spread.of(late)


async def _commits(book: Book, nodes: Sequence[Journal], seconds: float) -> float:
    async def write(node: Journal, place: int) -> int:
        return await repeat(seconds, lambda _: _append(node, book, place))

    return await rate([write(node, place) for place, node in enumerate(nodes)], seconds)


async def _append(node: Journal, book: Book, place: int) -> Appended:
    session_id, turn_id = book.turns[place]
    return await node.writer.submit(hello(book, session_id, turn_id))


@asynccontextmanager
async def _nodes(book: Book, make: Make | None, count: int) -> AsyncIterator[list[Journal]]:
    database = Database(book.url, pool_size=4)
    await database.connect()
    carriers = [make(database) if make is not None else None for _ in range(count)]
    nodes = [Journal(database, ids.node_id(), pace=Pace(), carrier=carrier) for carrier in carriers]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(node.writer.run()) for node in nodes]
        if make is not None:
            running += [tasks.create_task(node.wakeups.run()) for node in nodes]
            while not all(node.wakeups.is_listening for node in nodes):
                await asyncio.sleep(0.002)
        yield nodes
        for task in running:
            task.cancel()
    await database.aclose()
