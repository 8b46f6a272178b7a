"""How Postgres is reached: a pool for short work, connections of their own for what must not wait behind it.

Knows nothing of what the SQL says. What surprises: pooled work is a transaction in one realm, always, since row-level security
shows nothing without one (docs/decisions/0014-two-walls.md). asyncpg has neither keepalive nor a command limit of its own, so
both are set here; its pool's reset at each release (a third of the cost of a small query) is left out, because nothing in this
code leaves state on a connection.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias

import asyncpg

from app.db import walls
from app.errors import StartupError, StoreUnavailable

Row: TypeAlias = Any
"""One row: reached by column name or position."""

COMMAND_SECONDS = 20.0  # above statement_timeout, for a server that does not answer at all
CONNECT_SECONDS = 10.0
ACQUIRE_SECONDS = 30.0  # for a pooled connection while the process is busy; a database that is away fails at once
OLDEST_VERSION = 15
EVERY_REALM: Final = walls.EVERY_REALM  # for work of the service itself; no realm can have this name
SESSION_SETTINGS = {
    "application_name": "suricate",
    "statement_timeout": "15s",
    "lock_timeout": "8s",
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
    "jit": "off",  # every statement here is small
    "plan_cache_mode": "force_generic_plan",  # a custom plan per batch size would cost more than the batch
}

UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises where the database, not the statement, is at fault."""
UNAVAILABLE_OR_WRONG: tuple[type[BaseException], ...] = (*UNAVAILABLE, ValueError)
"""The same, and a URL that is none."""


class Connection(Protocol):
    """What rooms may do with a connection: run parameterised SQL, in one realm."""

    @property
    def realm(self) -> str:
        """The realm whose rows it sees; `EVERY_REALM` sees all."""

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        """Return all rows."""

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """Return the first row, or None."""

    async def fetchval(self, query: str, *args: object) -> Any:
        """Return the first column of the first row, or None."""

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement and return its command tag."""


class _Lent:
    """A pooled connection inside a transaction."""

    __slots__ = ("_db", "realm")

    def __init__(self, realm: str, db: Any) -> None:
        self.realm = realm
        self._db = db

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        rows: Sequence[Row] = await self._db.fetch(query, *args)
        return rows

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        return await self._db.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        return await self._db.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        tag: str = await self._db.execute(query, *args)
        return tag


class Database:
    """The way to one Postgres. Open it with `connect`, close it with `aclose`."""

    def __init__(self, dsn: str, *, pool_size: int) -> None:
        self._dsn = dsn
        self._pool_size = pool_size
        self._role: dict[str, str] = {}
        self._pool: Any = None  # until `connect`

    async def connect(self) -> None:
        """Open the pool, under a role that row-level security binds, and check that this Postgres keeps what it acknowledges.

        Raises:
            StartupError: it cannot be reached, is too old, does not make commits durable, or cannot wall realms.
        """
        try:
            async with self.dedicated("start") as db:
                await _check_server(db)
                self._role = await walls.role(db)
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=2,
                max_size=self._pool_size,
                command_timeout=COMMAND_SECONDS,
                timeout=CONNECT_SECONDS,
                server_settings=SESSION_SETTINGS | self._role,
                init=_keep_alive,
                reset=_keep_as_it_is,
            )
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise StartupError("Postgres refused the role or password of SURICATE_DATABASE_URL.") from error
        except asyncpg.InvalidCatalogNameError as error:
            raise StartupError("The database that SURICATE_DATABASE_URL names does not exist; create it.") from error
        except StoreUnavailable as error:
            raise _unreachable(error.__cause__) from error
        except UNAVAILABLE_OR_WRONG as error:
            raise _unreachable(error) from error

    async def aclose(self) -> None:
        """Close the pool; what still runs on it gets a moment, then is cut."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def transaction(self, realm: str) -> AsyncIterator[Connection]:
        """Lend a pooled connection inside a transaction: committed at the end, rolled back on any error.

        Args:
            realm: the one whose rows are seen and written; `EVERY_REALM` only for work that no caller asks for.

        Raises:
            StoreUnavailable: Postgres could not be reached or gave up; whether a commit under way was kept is unknown.
        """
        with translated():
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as db:
                try:
                    await db.execute(walls.begin(realm))
                    yield _Lent(realm, db)
                    await _commit(db)
                except BaseException:
                    await _roll_back(db)
                    raise

    @contextlib.asynccontextmanager
    async def dedicated(self, name: str, **settings: str) -> AsyncIterator[Any]:
        """Open a connection outside the pool, for one purpose of the service itself and for long; it sees every realm.

        Args:
            name: what `pg_stat_activity` shows behind `suricate `.
            settings: Postgres settings of this connection alone.

        Raises:
            StoreUnavailable: it could not be opened, or broke inside the block.
        """
        with translated():
            db = await asyncpg.connect(
                self._dsn,
                command_timeout=COMMAND_SECONDS,
                timeout=CONNECT_SECONDS,
                server_settings=SESSION_SETTINGS
                | self._role
                | {"application_name": f"suricate {name}", walls.SETTING: EVERY_REALM}
                | settings,
            )
            try:
                await _keep_alive(db)
                yield db
            finally:
                db.terminate()

    async def is_answering(self, seconds: float) -> bool:
        """Tell whether Postgres answers within a time."""
        try:
            async with asyncio.timeout(seconds), self.transaction(EVERY_REALM) as db:
                return bool(await db.fetchval("SELECT true"))
        except (StoreUnavailable, TimeoutError):
            return False

    @property
    def pool_in_use(self) -> int:
        """Pooled connections that are lent out now."""
        return int(self._pool.get_size() - self._pool.get_idle_size())


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the database's faults into `StoreUnavailable`; faults of a statement stay what they are.

    Raises:
        StoreUnavailable: as its docstring says.
    """
    try:
        yield
    except UNAVAILABLE as error:
        if isinstance(error, ValueError):  # asyncpg's name for an argument of the wrong kind: our mistake, not Postgres'
            raise
        raise StoreUnavailable("The database cannot be reached or refused the work; try again shortly.") from error


async def _keep_alive(db: Any) -> None:
    transport: asyncio.Transport = db._transport  # noqa: SLF001 - asyncpg offers no other way to its socket
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


async def _commit(db: Any) -> None:
    if await db.execute("COMMIT") != "COMMIT":  # Postgres' answer where a statement had failed and its error was swallowed
        raise RuntimeError("The transaction had failed before its commit; nothing of it was kept.")


async def _roll_back(db: Any) -> None:
    """End what was not committed; a connection that cannot even do that is not lent again."""
    with contextlib.suppress(asyncpg.InterfaceError):  # it is gone, and the transaction with it
        try:
            if db.is_in_transaction():
                await db.execute("ROLLBACK")
        except BaseException:
            db.terminate()
            raise


async def _keep_as_it_is(_db: Any) -> None:
    """Leave a released connection alone."""


async def _check_server(db: Connection) -> None:
    version = int(await db.fetchval("SHOW server_version_num")) // 10_000
    if version < OLDEST_VERSION:
        raise StartupError(f"Postgres {version} is too old; Suricate needs {OLDEST_VERSION} or newer.")
    for setting in ("fsync", "synchronous_commit"):
        if await db.fetchval(f"SHOW {setting}") == "off":
            raise StartupError(f"Postgres runs with {setting} off: an accepted turn could be lost. Turn it on.")
    if await db.fetchval("SHOW server_encoding") != "UTF8":
        raise StartupError("The database's encoding is not UTF8; create one with ENCODING 'UTF8'.")


def _unreachable(error: BaseException | None) -> StartupError:
    return StartupError(f"Postgres cannot be reached: {str(error) or type(error).__name__}. Check SURICATE_DATABASE_URL.")
