"""Where everything is built: `create_app` opens the rooms in order and closes them in reverse.

Shutting down: not ready → no new claims → readers told (`stream_draining`) → turns handed over → connections closed.
"""

import asyncio
import os
import signal
import socket
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import structlog
from fastapi import FastAPI
from pydantic import HttpUrl

from app import ids
from app.agent.loop import Limits
from app.agent.points import Panel
from app.agent.step import RetryPolicy
from app.api import (
    capabilities,
    compaction,
    copies,
    documents,
    events,
    nodes,
    problems,
    realm,
    service,
    sessions,
    tool_results,
    turns,
)
from app.api.dependencies import House
from app.api.front import Front
from app.db import embedded
from app.db.engine import Database
from app.db.migrate import ROOT, migrate
from app.errors import CapabilityUnavailable, InvalidRequest, StartupError, StoreUnavailable
from app.hooks import background, configuration
from app.hooks.registry import Registry as Hooks
from app.journal.journal import Journal
from app.journal.notify import Notify
from app.journal.wakeups import Carrier
from app.nodes import Kind, Node
from app.pace import Pace
from app.providers import anthropic, gemini, openai
from app.providers.anthropic import Anthropic
from app.providers.base import Provider
from app.providers.deadlines import Deadlines
from app.providers.gemini import Gemini
from app.providers.openai import OpenAI
from app.providers.openai_compatible import OpenAICompatible
from app.providers.registry import Name, Providers
from app.providers.scripted import Scripted
from app.providers.transport import Transport
from app.settings import Settings
from app.tools import config
from app.tools.addresses import Inside
from app.tools.builtin import Datetime, Tasks, Wait
from app.tools.outbound import Door, Policy
from app.tools.registry import Registry
from app.turns import claims
from app.worker.brief import Bench
from app.worker.housekeeping import erase_always, sweep_always
from app.worker.pool import Pool

Vendor: TypeAlias = Anthropic | OpenAI | Gemini | OpenAICompatible

DESCRIPTION = "Durable LLM agent sessions over HTTP and Server-Sent Events, on Postgres alone."

log = structlog.get_logger()


@dataclass(slots=True)
class Rooms:
    """What one process works with, opened."""

    journal: Journal
    pool: Pool
    providers: Providers
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
async def open_rooms(settings: Settings, kind: Kind) -> AsyncIterator[Rooms]:
    """Open everything but the door, in order; close it in reverse.

    Raises:
        StartupError: something cannot be opened; the message says what to do.
    """
    async with _one_error(), AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_url(settings))
        database = Database(url, pool_size=settings.pool_size)
        await database.connect()
        stack.push_async_callback(database.aclose)
        if await migrate(database, url):
            log.info("database_migrated")
        if settings.database_url is None:
            async with database.connection() as db:
                await claims.expire_all(db)
        rooms = await _build(settings, _node(settings, kind), database, stack)
        await rooms.pool.keeper.join()
        stack.push_async_callback(rooms.pool.keeper.leave)
        background = await stack.enter_async_context(_background(rooms))
        stack.callback(background.cancel)
        stack.push_async_callback(rooms.journal.wakeups.flush)  # of what the pool hands over
        stack.push_async_callback(rooms.pool.drain)
        yield rooms


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


def create_app(settings: Settings) -> FastAPI:
    """Build the HTTP service; its lifespan opens the rooms.

    Raises:
        StartupError: a setting would put the service into danger.
    """
    settings.check()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with open_rooms(settings, "serve") as rooms:
                app.state.rooms = rooms
                app.state.house = _house(settings, rooms)
                yield
        except StartupError as error:
            app.state.startup_error = error  # the server only says that it failed; the command line says why
            raise

    app = FastAPI(
        title="Suricate",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False},
        redoc_url=None,
    )
    for room in (sessions, compaction, copies, turns, tool_results, events, realm, nodes, capabilities, service):
        app.include_router(room.router)
    problems.install(app)
    documents.install(app)
    app.add_middleware(Front, max_header_bytes=settings.max_header_bytes)
    return app


def _node(settings: Settings, kind: Kind) -> Node:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    where = socket.gethostname(), os.getpid()
    return Node(ids.node_id(), settings.lease_seconds, kind, version, *where, settings.max_live_turns)


async def _build(settings: Settings, node: Node, database: Database, stack: AsyncExitStack) -> Rooms:
    pace = Pace(settings.delta_interval_ms / 1000)
    journal = Journal(database, node.id, pace=pace, carrier=_carrier(settings, database))
    providers = await _providers(settings, pace, stack)
    tools = await _tools(settings, stack)
    hooks = _hooks(settings, stack)
    panel = Panel(hooks, await stack.enter_async_context(background.opened()))
    bench = Bench(journal, providers, tools, _limits(settings), panel)
    pool = Pool(bench, node, grace_seconds=settings.shutdown_grace_seconds)
    return Rooms(journal, pool, providers, tools, hooks)


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.step_limit,
        settings.tool_timeout_seconds,
        RetryPolicy(),
        settings.answer_timeout_seconds,
        settings.turn_timeout_seconds,
        settings.turn_output_tokens,
        settings.unknown_context_tokens,
    )


def _carrier(settings: Settings, database: Database) -> Carrier:
    if settings.nats_url is None:
        return Notify(database)
    try:
        from app.journal.nats import Nats  # its library is an extra
    except ImportError as error:
        raise StartupError("SURICATE_NATS_URL needs the client of NATS: pip install 'suricate[nats]'.") from error
    return Nats(database, str(settings.nats_url))


def _hooks(settings: Settings, stack: AsyncExitStack) -> Hooks:
    transport = Transport(max_idle=0)
    stack.push_async_callback(transport.aclose)
    return Hooks(configuration.load(settings.hooks), transport)


async def _tools(settings: Settings, stack: AsyncExitStack) -> Registry:
    door = Door(Policy(Inside.parse(settings.outbound_inside), allows_http=settings.outbound_http))
    stack.push_async_callback(door.aclose)
    configured = config.read(settings.tools_file) if settings.tools_file else config.ToolsConfig()
    return await stack.enter_async_context(config.opened(configured, door, [Datetime(), Wait(), Tasks()]))


async def _providers(settings: Settings, pace: Pace, stack: AsyncExitStack) -> Providers:
    configured: dict[Name, Provider] = {"scripted": Scripted(tokens_per_second=settings.scripted_tokens_per_second)}
    deadlines = Deadlines(
        connect_seconds=settings.provider_connect_timeout_seconds,
        first_byte_seconds=settings.provider_first_byte_timeout_seconds,
        idle_seconds=settings.provider_idle_timeout_seconds,
        total_seconds=settings.provider_total_timeout_seconds,
    )
    for name, kind, base_url, api_key in _vendors(settings):
        try:
            vendor = kind(base_url, api_key, deadlines=deadlines, transport=Transport(pace=pace))
        except StartupError as error:
            raise StartupError(f"The provider {name} cannot be set up. {error.detail}") from error
        stack.push_async_callback(vendor.aclose)
        configured[name] = vendor
    providers = Providers(configured)
    try:
        providers.choose(settings.default_model, None)
    except InvalidRequest as error:
        raise StartupError("SURICATE_DEFAULT_MODEL cannot be served: its name tells no provider.") from error
    except CapabilityUnavailable as error:
        raise StartupError(f"SURICATE_DEFAULT_MODEL cannot be served. {error}") from error
    return providers


def _vendors(settings: Settings) -> Iterator[tuple[Name, type[Vendor], str, str | None]]:
    """Yield the vendors that the settings turn on, by a key or by a base URL, with where they are and their key."""
    vendors: tuple[tuple[Name, type[Vendor], HttpUrl | None, str | None, str | None], ...] = (
        ("anthropic", Anthropic, settings.anthropic_base_url, settings.anthropic_api_key, anthropic.BASE_URL),
        ("openai", OpenAI, settings.openai_base_url, settings.openai_api_key, openai.BASE_URL),
        ("gemini", Gemini, settings.gemini_base_url, settings.gemini_api_key, gemini.BASE_URL),
        ("openai_compatible", OpenAICompatible, settings.openai_compatible_base_url, settings.openai_compatible_api_key, None),
    )
    for name, kind, given_url, api_key, own_url in vendors:
        base_url = given_url or (own_url if api_key is not None else None)
        if base_url is not None:
            yield name, kind, str(base_url), api_key


@asynccontextmanager
async def _background(rooms: Rooms) -> AsyncIterator[asyncio.Task[None]]:
    """Run what works beside the requests; the caller cancels the task that is given."""
    async with asyncio.TaskGroup() as tasks:
        yield tasks.create_task(_work(rooms))


async def _work(rooms: Rooms) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(rooms.tools.prepare))
        tasks.create_task(rooms.journal.writer.run())
        tasks.create_task(rooms.journal.wakeups.run())
        tasks.create_task(rooms.journal.subscriptions.poll())
        tasks.create_task(rooms.pool.run())
        tasks.create_task(sweep_always(rooms.journal.database))
        tasks.create_task(erase_always(rooms.journal))


def _house(settings: Settings, rooms: Rooms) -> House:
    return House(
        journal=rooms.journal,
        claimant=rooms.pool,
        providers=rooms.providers,
        tools=rooms.tools,
        hooks=rooms.hooks,
        default_model=settings.default_model,
        max_body_bytes=settings.max_body_bytes,
        max_wait_seconds=settings.max_wait_seconds,
        sse_ping_seconds=settings.sse_ping_seconds,
        pool_size=settings.pool_size,
        is_ready=rooms.readiness,
        limits=_limits(settings),
    )
