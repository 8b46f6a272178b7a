"""The HTTP service: the door in front of the rooms."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import Depends, FastAPI

from app.api import (
    access,
    browsers,
    capabilities,
    compaction,
    copies,
    documents,
    events,
    front,
    keys,
    nodes,
    problems,
    realm,
    reference,
    service,
    sessions,
    tool_results,
    turns,
    usage,
    webhooks,
)
from app.api.access import Guards
from app.api.dependencies import House
from app.api.front import Front
from app.errors import StartupError
from app.main import gates, traces
from app.main.rooms import Rooms, limits, open_rooms
from app.settings import Settings

log = structlog.get_logger()

DESCRIPTION = "Durable LLM agent sessions over HTTP and Server-Sent Events, on Postgres alone."


def create_app(settings: Settings) -> FastAPI:
    """Build the HTTP service; its lifespan opens the rooms.

    Raises:
        StartupError: a setting would put the service into danger.
    """
    settings.check()
    spans = traces.opened(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with open_rooms(settings, "serve", spans) as rooms, gates.opened(settings, rooms) as guards:
                app.state.rooms = rooms
                app.state.guards = guards
                app.state.house = _house(settings, rooms, guards)
                yield
        except StartupError as error:
            app.state.startup_error = error  # the server only says that it failed; the command line says why
            raise
        except Exception:
            log.exception("service_crashed")
            raise

    app = FastAPI(
        title="Suricate",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=front.telemetry_of(spans and spans.provider),
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(access.admit)],
    )
    talk = (sessions, compaction, copies, turns, tool_results, events)
    for room in (*talk, webhooks, realm, keys, nodes, usage, capabilities, service):
        app.include_router(room.router)
    problems.install(app)
    documents.install(app)
    reference.install(app)
    policy = browsers.Policy(settings.host, settings.allowed_hosts, settings.cors_origins, settings.cors_credentials)
    app.add_middleware(Front, max_header_bytes=settings.max_header_bytes, policy=policy)
    return app


def _house(settings: Settings, rooms: Rooms, guards: Guards) -> House:
    return House(
        gate=guards.gate,
        quotas=guards.quotas,
        journal=rooms.journal,
        claimant=rooms.pool,
        vendors=rooms.vendors,
        seals=rooms.seals,
        outside=rooms.outside,
        tools=rooms.tools,
        hooks=rooms.hooks,
        default_model=settings.default_model,
        max_body_bytes=settings.max_body_bytes,
        max_wait_seconds=settings.max_wait_seconds,
        sse_ping_seconds=settings.sse_ping_seconds,
        pool_size=settings.pool_size,
        is_ready=rooms.readiness,
        limits=limits(settings),
    )
