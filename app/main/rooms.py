"""What a process works with: everything but the door, opened in order and closed in reverse.

Shutting down: not ready → no new claims → readers told (`stream_draining`) → turns handed over → connections closed.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app import ids, realms, redaction
from app.agent.loop import Limits
from app.agent.points import Panel
from app.agent.step import RetryPolicy
from app.db import embedded
from app.db.engine import EVERY_REALM, Database
from app.db.migrate import migrate
from app.errors import StartupError, StoreUnavailable
from app.hooks import background, configuration
from app.hooks.registry import Registry as Hooks
from app.journal.journal import Journal
from app.journal.notify import Notify
from app.journal.wakeups import Carrier
from app.main import doors, traces, vendors
from app.nodes import Kind, Node
from app.outbound.door import Door
from app.pace import Pace
from app.providers.vendors import Vendors
from app.seals import Seals
from app.settings import Settings
from app.tools import config
from app.tools.builtin import Datetime, Tasks, Wait
from app.tools.registry import Registry
from app.traces import NO_TRACER, Tracer
from app.turns import claims
from app.webhooks import webhook
from app.worker.brief import Bench
from app.worker.courier import Courier
from app.worker.housekeeping import book_always, erase_always, sweep_always
from app.worker.pool import Pool
from app.worker.retention import Retention, retain_always

if TYPE_CHECKING:
    from app.otlp import Otlp

log = structlog.get_logger()


@dataclass(slots=True)
class Rooms:
    """What one process works with, opened."""

    journal: Journal
    pool: Pool
    courier: Courier
    vendors: Vendors
    seals: Seals
    outside: Door
    tools: Registry
    hooks: Hooks

    def readiness(self) -> Mapping[str, bool]:
        """Tell what must be so for traffic to come here."""
        checks = {"leases": self.pool.keeper.is_trusted, "open": not self.pool.is_draining}
        if self.journal.wakeups.is_needed:
            checks["listener"] = self.journal.wakeups.is_listening
        return checks


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """Give the database's URL; without a setting, that of an embedded Postgres which runs as long as the block."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    async with (
        embedded.running(settings.data_dir.expanduser(), binaries=settings.postgres_bin_dir) as server,
        asyncio.TaskGroup() as tasks,
    ):
        watch = tasks.create_task(_stop_without(server))
        yield server.dsn
        watch.cancel()


@asynccontextmanager
async def _one_error() -> AsyncIterator[None]:
    """Raise what keeps the process from starting as it is, also where a task group has wrapped it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException | None = group.subgroup((StartupError, StoreUnavailable))
        if error is None:
            raise
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _stop_without(server: embedded.Server) -> None:
    """Stop this process in order when its Postgres has ended: without it there is nothing to serve."""
    tail = await server.died()
    log.error("embedded_postgres_ended", log=tail)
    signal.raise_signal(signal.SIGTERM)


@asynccontextmanager
async def open_rooms(settings: Settings, kind: Kind, spans: "Otlp | None" = None) -> AsyncIterator[Rooms]:
    """Open everything but the door, in order; close it in reverse.

    Args:
        spans: where the door's go, so that those of its turns go there too.

    Raises:
        StartupError: something cannot be opened; the message says what to do.
    """
    spans = spans or traces.opened(settings)
    async with _one_error(), AsyncExitStack() as stack:
        if spans is not None:
            stack.push_async_callback(spans.aclose)
        url = await stack.enter_async_context(database_url(settings))
        database = Database(url, pool_size=settings.pool_size)
        await database.connect()
        stack.push_async_callback(database.aclose)
        if await migrate(database, url):
            log.info("database_migrated")
        if settings.database_url is None:
            async with database.transaction(EVERY_REALM) as db:
                await claims.expire_all(db)
        rooms = await _build(settings, _node(settings, kind), database, stack, spans or NO_TRACER)
        await rooms.pool.keeper.join()
        stack.push_async_callback(rooms.pool.keeper.leave)
        background = await stack.enter_async_context(_background(rooms, _retention(settings)))
        stack.callback(background.cancel)
        stack.push_async_callback(rooms.journal.wakeups.flush)  # of what the pool hands over
        stack.push_async_callback(rooms.pool.drain)
        yield rooms


@asynccontextmanager
async def database_alone(settings: Settings) -> AsyncIterator[Database]:
    """Open the database for a command, up to date, beside a server that may run on it.

    Raises:
        StartupError, StoreUnavailable: as `open_rooms`.
    """
    beside = None if settings.database_url else embedded.beside(settings.data_dir.expanduser())
    async with _one_error(), nullcontext(beside) if beside else database_url(settings) as url:
        database = Database(url, pool_size=settings.pool_size)
        await database.connect()
        try:
            await migrate(database, url)
            yield database
        finally:
            await database.aclose()


async def migrate_only(settings: Settings) -> bool:
    """Bring the database up to date.

    Returns:
        Whether anything was done.

    Raises:
        StartupError, StoreUnavailable: as `migrate`.
    """
    async with _one_error(), database_url(settings) as url:
        database = Database(url, pool_size=settings.pool_size)
        await database.connect()
        try:
            return await migrate(database, url)
        finally:
            await database.aclose()


async def reseal_all(settings: Settings) -> int:
    """Seal every secret of every realm with the newest key.

    Returns:
        How many were sealed with another, or not at all.

    Raises:
        StartupError, StoreUnavailable: as `database_alone`; also where there is no key.
        Unsealable: one cannot be opened; nothing was changed.
    """
    seals = Seals.parse(settings.seal_keys)
    if not seals.has_key:
        raise StartupError("SURICATE_SEAL_KEYS has to be set: its first key seals, and all of them open.")
    async with database_alone(settings) as database, database.transaction(EVERY_REALM) as db:
        return await realms.seal_anew(db, seals) + await webhook.seal_anew(db, seals)


def _node(settings: Settings, kind: Kind) -> Node:
    where = socket.gethostname(), os.getpid()
    return Node(ids.node_id(), settings.lease_seconds, kind, traces.version(), *where, settings.max_live_turns)


async def _build(settings: Settings, node: Node, database: Database, stack: AsyncExitStack, tracer: Tracer) -> Rooms:
    pace = Pace(settings.delta_interval_ms / 1000)
    journal = Journal(database, node.id, pace=pace, carrier=_carrier(settings, database))
    seals, outside = Seals.parse(settings.seal_keys), doors.for_callers(settings)
    asked = vendors.configured(settings, vendors.ways(settings, pace, outside, stack), seals)
    tools = await _tools(settings, stack)
    hooks = _hooks(settings, stack)
    panel = Panel(hooks, await stack.enter_async_context(background.opened()))
    bench = Bench(journal, asked.of({}), tools, limits(settings), panel, tracer, asked)
    pool = Pool(bench, node, grace_seconds=settings.shutdown_grace_seconds)
    courier = Courier(database, doors.for_webhooks(settings), seals)
    return Rooms(journal, pool, courier, asked, seals, outside, tools, hooks)


def limits(settings: Settings) -> Limits:
    """Return what bounds a turn."""
    return Limits(
        settings.step_limit,
        settings.tool_timeout_seconds,
        RetryPolicy(),
        settings.answer_timeout_seconds,
        settings.turn_timeout_seconds,
        settings.turn_output_tokens,
        settings.unknown_context_tokens,
    )


def _retention(settings: Settings) -> Retention:
    return Retention(settings.retention_delta_days, settings.retention_archived_days, settings.retention_audit_days)


def _carrier(settings: Settings, database: Database) -> Carrier:
    if settings.nats_url is None:
        return Notify(database)
    try:
        from app.journal.nats import Nats  # its library is an extra
    except ImportError as error:
        raise StartupError("SURICATE_NATS_URL needs the client of NATS: pip install 'suricate[nats]'.") from error
    return Nats(database, str(settings.nats_url))


def _hooks(settings: Settings, stack: AsyncExitStack) -> Hooks:
    configured = configuration.load(settings.hooks)
    redaction.learn(configured.secrets)
    ways = doors.for_hooks(settings, configured)
    for door in ways:
        stack.push_async_callback(door.aclose)
    return Hooks(configured, *ways)


async def _tools(settings: Settings, stack: AsyncExitStack) -> Registry:
    door = doors.outbound(settings)
    stack.push_async_callback(door.aclose)
    configured = config.read(settings.tools_file) if settings.tools_file else config.ToolsConfig()
    redaction.learn(configured.secrets)
    return await stack.enter_async_context(config.opened(configured, door, [Datetime(), Wait(), Tasks()]))


@asynccontextmanager
async def _background(rooms: Rooms, kept: Retention) -> AsyncIterator[asyncio.Task[None]]:
    """Run what works beside the requests; the caller cancels the task that is given."""
    async with asyncio.TaskGroup() as tasks:
        yield tasks.create_task(_work(rooms, kept))


async def _work(rooms: Rooms, kept: Retention) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(rooms.tools.prepare))
        tasks.create_task(rooms.journal.writer.run())
        tasks.create_task(rooms.journal.wakeups.run())
        tasks.create_task(rooms.journal.subscriptions.poll())
        tasks.create_task(rooms.pool.run())
        tasks.create_task(rooms.courier.run())
        tasks.create_task(sweep_always(rooms.journal.database))
        tasks.create_task(erase_always(rooms.journal))
        tasks.create_task(book_always(rooms.journal.database))
        tasks.create_task(retain_always(rooms.journal, kept))
