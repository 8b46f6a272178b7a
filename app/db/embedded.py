"""The embedded Postgres: one supervised server on one directory, alive exactly as long as this process.

Knows binaries, processes and directories; must not know tables, roles or settings objects. The server listens on a Unix
socket in a private directory and nowhere else. What surprises: the kernel ends the server when the *thread* that
started it ends, so `running` is entered from the main thread's event loop (or from another that lives as long).

    <data directory>/lock           held while a process owns the directory; contains its process id
                     cluster/       Postgres's own files
                     socket/        its Unix socket, where the path is short enough
                     postgres.log   its messages, the last run's in postgres.log.1 once it grew
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import quote

import asyncpg
import structlog

from app import clock
from app.db import directory
from app.db.binaries import WAY_OUT, find_binaries
from app.db.directory import Identity
from app.errors import StartupError

__all__ = ["Server", "beside", "find_binaries", "running"]

DATABASE = "suricate"
USER = "postgres"
PORT = 5432  # names the socket file; nothing listens on it

_START_SECONDS = 600.0  # crash recovery replays up to max_wal_size; giving up on it helps nobody
REMOVALS, REMOVAL_PAUSE_SECONDS = 40, 0.05
_STOP_SECONDS = 30.0  # a fast shutdown writes the dirty part of shared_buffers
_ABORT_SECONDS = 10.0
_INITDB_SECONDS = 120.0
_POLL_SECONDS = 0.01
_REPORT_SECONDS = 5.0
_LOG_BYTES = 10_000_000
_STATUS_LINES = 8  # of `postmaster.pid`; the last says `ready`

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # max_wal_size stays 1GB: 2GB gained nothing measurable, and recovery reads it all (4 s for 660 MB).
    "checkpoint_warning": "0",  # being busy is no news
    "jit": "off",  # compiling costs more than any query here takes
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_checkpoints": "off",
    # Errors of statements are told to the client that sent them; their text and details may hold a prompt.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
}

_log = structlog.get_logger(__name__)


class _Plan(NamedTuple):
    """What a start needs to know."""

    home: Path
    binaries: Path
    sockets: Path
    identity: Identity

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"


@asynccontextmanager
async def running(data_dir: Path, *, binaries: Path | None = None) -> AsyncIterator["Server"]:
    """Run Postgres on a directory while the block runs; make the directory and the database where they are missing.

    A server that an earlier, killed process left behind is waited for, and crash recovery is sat through; both are told
    on the log. On leaving the block every session of the database is cut and the server has ended.

    Args:
        data_dir: made with mode 0700 where it is missing; at most one process holds it.
        binaries: the configured directory of `postgres` and `initdb`; None looks for one, as `find_binaries` says.

    Raises:
        StartupError: another process holds the directory, no binaries, or Postgres did not start; nothing is left
            running, and what was stored is untouched.
    """
    tools = find_binaries(binaries)
    home = directory.made(data_dir)
    with directory.held(home):
        identity = directory.identity(home, tools)
        with directory.sockets(home, identity, name=f".s.PGSQL.{PORT}") as sockets:
            plan = _Plan(home, tools, sockets, identity)
            await directory.wait_until_free(plan.cluster)
            await _initialise(plan)
            async with _started(plan) as server:
                yield server


def beside(data_dir: Path) -> str | None:
    """Return where the Postgres is that another process runs on a directory; None where none runs."""
    with suppress(OSError):
        lines = (data_dir / "cluster" / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        if _is_status_ready(lines) and directory.is_alive(int(lines[0])):
            return _dsn(Path(lines[4]), DATABASE)
    return None


class Server:
    """A running Postgres.

    Attributes:
        dsn: where it is, as asyncpg and SQLAlchemy read it; the user is a superuser.
        pid: the postmaster's process id.
    """

    def __init__(self, dsn: str, process: "_Process") -> None:
        self.dsn = dsn
        self.pid = process.pid
        self._process = process

    async def died(self) -> str:
        """Wait until Postgres has ended without being asked to, and return the end of its log.

        Run it beside the work and cancel it: where Postgres is stopped in order it never returns. A death stands on our
        own log too.
        """
        await self._process.ended.wait()
        if not self._process.is_wanted:
            await asyncio.Event().wait()
        return self._process.log_tail()


class _Process(asyncio.SubprocessProtocol):
    """The postmaster as the event loop shows it."""

    def __init__(self, log: Path) -> None:
        self.pid = 0
        self.ended = asyncio.Event()
        self.is_wanted = False
        self._log = log
        self._log_start = log.stat().st_size
        self._transport: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's is one by its methods alone
        self.pid = self._transport.get_pid() or 0

    def process_exited(self) -> None:
        self.ended.set()
        if self.is_wanted:
            _log.error("postgres_died", pid=self.pid, postgres_log=self.log_tail())

    def log_tail(self) -> str:
        """Return what Postgres wrote since it was started, the last 4,000 bytes at most."""
        with self._log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._log_start, size - 4_000))
            return stream.read().decode(errors="replace").strip()

    async def wait_ready(self, cluster: Path) -> None:
        """Wait until this very process takes connections.

        Raises:
            StartupError: it ended instead, or the limit passed.
        """
        began = reported = clock.monotonic()
        while not _is_ready(cluster, self.pid):
            now = clock.monotonic()
            if await self._ends_within(_POLL_SECONDS) or now - began > _START_SECONDS:
                raise StartupError(f"Postgres did not start on {cluster}: {self.log_tail() or 'no message'}\n{WAY_OUT}")
            if now - reported > _REPORT_SECONDS:
                reported = now
                _log.info("postgres_recovering", seconds=round(now - began))
        self.is_wanted = True

    async def stop(self) -> None:
        """End the server: a fast shutdown, an immediate one where that takes too long, and the kernel's last."""
        self.is_wanted = False
        for request, seconds in (
            (signal.SIGINT, _STOP_SECONDS),
            (signal.SIGQUIT, _ABORT_SECONDS),
            (signal.SIGKILL, _ABORT_SECONDS),
        ):
            with suppress(ProcessLookupError):
                self._transport.send_signal(request)
            if await self._ends_within(seconds):
                break
            _log.warning("postgres_slow_to_stop", pid=self.pid, seconds=seconds)
        self._transport.close()

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)
        return self.ended.is_set()


@asynccontextmanager
async def _started(plan: _Plan) -> AsyncIterator[Server]:
    _turn_over(plan.log)
    process = _Process(plan.log)
    settings = _SETTINGS | {"unix_socket_directories": str(plan.sockets)}
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = plan.identity.command(plan.home, plan.binaries / "postgres", "-D", plan.cluster, *options)
    with plan.log.open("ab") as log:
        # A session of its own: Ctrl-C at a terminal reaches us alone, and we stop Postgres in order.
        await asyncio.get_running_loop().subprocess_exec(
            lambda: process, *command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await process.wait_ready(plan.cluster)
        await _create_database(plan.sockets)
        yield Server(_dsn(plan.sockets, DATABASE), process)
    finally:
        await process.stop()


def _is_ready(cluster: Path, pid: int) -> bool:
    """Tell whether the server's status file is this process's and says `ready`."""
    with suppress(OSError):
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        return _is_status_ready(lines) and lines[0] == str(pid)
    return False


def _is_status_ready(lines: Sequence[str]) -> bool:
    return len(lines) >= _STATUS_LINES and lines[_STATUS_LINES - 1].strip() == "ready"


async def _remove_remains(home: Path) -> None:
    """Remove what killed starts have left; their last programs may still be writing there for a moment."""
    for _ in range(REMOVALS):
        if not _removed_remains(home):
            return
        await asyncio.sleep(REMOVAL_PAUSE_SECONDS)


def _removed_remains(home: Path) -> bool:
    """Remove what is there, and tell whether there was something."""
    remains = list(home.glob("initdb-*"))
    for folder in remains:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(remains)


async def _initialise(plan: _Plan) -> None:
    """Make the cluster where there is none: under another name first, so that a kill leaves no half of one."""
    await _remove_remains(plan.home)
    if plan.cluster.exists():
        return
    fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=plan.home))
    plan.identity.give(fresh)
    options: list[str | Path] = [
        "-D",
        fresh,
        "-U",
        USER,
        "-E",
        "UTF8",
        "--no-locale",
        "--auth=trust",
        "--no-instructions",
    ]
    process = await asyncio.create_subprocess_exec(
        *plan.identity.command(plan.home, plan.binaries / "initdb", *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _INITDB_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise StartupError(f"initdb failed in {plan.home}: {output.decode(errors='replace').strip()}\n{WAY_OUT}")
    _settle(fresh, plan.cluster)


async def _create_database(sockets: Path) -> None:
    connection = await asyncpg.connect(_dsn(sockets, "postgres"), timeout=_ABORT_SECONDS)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close(timeout=_ABORT_SECONDS)


def _dsn(sockets: Path, database: str) -> str:
    return f"postgresql:///{database}?host={quote(str(sockets), safe='/')}&port={PORT}&user={USER}"


def _turn_over(log: Path) -> None:
    """Begin a new log file once the old one is large; the one before it is dropped."""
    log.touch(mode=0o600)
    if log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name("postgres.log.1"))
        log.touch(mode=0o600)


def _settle(fresh: Path, place: Path) -> None:
    """Give a directory its final name, durably."""
    fresh.rename(place)
    parent = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
