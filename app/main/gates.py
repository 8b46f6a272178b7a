"""What tells who asks and how much they may, as the settings have it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from app.api.access import Guards
from app.credentials.gate import Gate
from app.credentials.tokens import Issuer, Tokens
from app.errors import StartupError
from app.limits.quotas import Amounts, Quotas
from app.limits.rates import Limiter, Rates
from app.main import doors
from app.main.rooms import Rooms
from app.settings import Settings

MOST_JWKS_BYTES = 1024 * 1024
JWKS_SECONDS = 5.0  # for an issuer's keys; a request waits for them


@asynccontextmanager
async def opened(settings: Settings, rooms: Rooms) -> AsyncIterator[Guards]:
    """Open what tells who asks; refuse to serve others than this machine while it would let everyone in.

    Raises:
        StartupError: the address is not loopback and no authentication is configured.
    """
    database = rooms.journal.database
    async with AsyncExitStack() as stack:
        gate = Gate(database, settings.auth, _tokens(settings, stack))
        if not settings.is_loopback and not await gate.is_required():
            raise StartupError(
                f"Refusing to listen on {settings.host!r} without authentication. Make an API key first, with "
                "`suricate keys create --scope admin`, or set SURICATE_JWT_ISSUER; or set SURICATE_HOST=127.0.0.1."
            )
        limiter = Limiter(database, Rates(settings.rate_per_credential, settings.rate_per_realm))
        quotas = Quotas(database, rooms.pool.node_id, _most(settings))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for work in (gate.watch(), limiter.run(), quotas.run()):
            stack.callback(tasks.create_task(work).cancel)
        yield Guards(gate, limiter, quotas)


def _most(settings: Settings) -> Amounts:
    return Amounts(
        sessions=settings.realm_sessions,
        stored_bytes=settings.realm_stored_bytes,
        live_turns=settings.realm_live_turns,
        streams=settings.realm_streams,
    )


def _tokens(settings: Settings, stack: AsyncExitStack) -> Tokens | None:
    if settings.jwt_issuer is None:
        return None
    door = doors.outbound(settings)
    stack.push_async_callback(door.aclose)

    async def fetch(url: str) -> bytes:
        return await door.get(url, limit_bytes=MOST_JWKS_BYTES, seconds=JWKS_SECONDS)

    issuer = Issuer(
        settings.jwt_issuer,
        settings.jwt_audience or "",
        str(settings.jwt_jwks_url),
        settings.jwt_algorithms,
        settings.jwt_realm_claim,
        settings.jwt_scopes_claim,
    )
    return Tokens(issuer, fetch)
