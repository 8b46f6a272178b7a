"""What every measurement stands on: one Postgres, one provider double, one load client, and servers, a process each.

All servers get the same Postgres (a database each), on a disk, with fsync on; and the same double.
"""

import asyncio
import os
import re
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import psutil

from app.db import embedded
from tests.provider_double.client import ProviderDouble

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 10
JOB_SECONDS = 120
LINE_BYTES = 64 * 1024 * 1024
SESSION = {"model": "double", "provider": "openai_compatible"}
SURICATE, FLOOR, PLAIN, PLAIN_BY_EVENT = "Suricate", "floor", "plain", "plain, a commit an event"
SERVERS = (SURICATE, FLOOR, PLAIN, PLAIN_BY_EVENT)
UNWALLED = "without walls"


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU: of one server, and of all of Postgres."""

    server: float
    postgres: float

    def since(self, earlier: "Cpu") -> "Cpu":
        """Subtract an earlier reading."""
        return Cpu(self.server - earlier.server, self.postgres - earlier.postgres)


@dataclass(frozen=True, slots=True)
class Server:
    """One running server and the database it has for itself.

    Args:
        key: what its clients show; None where it asks for nothing.
    """

    name: str
    process: asyncio.subprocess.Process
    base_url: str
    database_url: str
    key: str | None = None

    @property
    def rss_bytes(self) -> int:
        """Memory that it holds now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@dataclass
class Ground:
    """Everything that runs. `server` starts what is asked for first."""

    folder: Path
    postgres: embedded.Server
    double: ProviderDouble
    _load: asyncio.subprocess.Process
    _stack: AsyncExitStack
    _servers: dict[str, Server] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    async def load(self, job: str, **arguments: Any) -> dict[str, Any]:
        """Have the client process do a job, and return its outcome."""
        assert self._load.stdin is not None
        assert self._load.stdout is not None
        self._load.stdin.write(orjson.dumps({"job": job, **arguments}) + b"\n")
        async with asyncio.timeout(JOB_SECONDS):
            line = await self._load.stdout.readline()
        assert line, f"the load client has ended in {job}; its words are above"
        outcome: dict[str, Any] = orjson.loads(line)
        return outcome

    async def server(self, name: str) -> Server:
        """Return a server of this name; started once, ended with the ground or by `clear`."""
        if name not in self._servers:
            url = await self.database(f"bench_{next(self._numbers)}")
            self._servers[name] = await self._stack.enter_async_context(self.started(name, url))
        return self._servers[name]

    async def clear(self) -> None:
        """End the servers, so that what is measured next has the machine and Postgres' connections to itself."""
        await self._stack.aclose()
        self._servers.clear()

    async def database(self, name: str) -> str:
        """Make an empty database."""
        connection = await asyncpg.connect(self.postgres.dsn)
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        await connection.close()
        return self.postgres.dsn.replace(f"/{embedded.DATABASE}?", f"/{name}?")

    @asynccontextmanager
    async def started(self, name: str, database_url: str, *, key: str | None = None, **settings: str) -> AsyncIterator[Server]:
        """Run a server for the length of the block."""
        command, env = self._command(name, database_url)
        async with process(command, env=env | settings, stderr=self.folder / "servers.log") as running:
            assert running.stdout is not None
            line, found = b"", None
            async with asyncio.timeout(START_SECONDS):
                while line := await running.stdout.readline():
                    if found := re.search(rb"listens on (\S+)", line):
                        break
            assert line, f"{name} did not start: {(self.folder / 'servers.log').read_text()[-2000:]}"
            assert found is not None
            yield Server(name, running, found[1].decode(), database_url, key)

    def cpu(self, server: Server) -> Cpu:
        """Read the clocks of a server and of Postgres."""
        return Cpu(_cpu_seconds(psutil.Process(server.process.pid)), self.postgres_cpu())

    def postgres_cpu(self) -> float:
        """Return the seconds of CPU that Postgres has used, those of ended backends too."""
        postmaster = psutil.Process(self.postgres.pid)
        ended = postmaster.cpu_times()
        seconds = _cpu_seconds(postmaster) + ended.children_user + ended.children_system
        for child in postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                seconds += _cpu_seconds(child)
        return float(seconds)

    def _command(self, name: str, database_url: str) -> tuple[Sequence[str], dict[str, str]]:
        if name in {SURICATE, UNWALLED}:
            settings = {
                "SURICATE_PORT": "0",
                "SURICATE_DATABASE_URL": database_url,
                "SURICATE_OPENAI_COMPATIBLE_BASE_URL": self.double.base_url,
            }
            return [sys.executable, "-m", "app.cli" if name == SURICATE else "tests.bench.unwalled", "serve"], settings
        module = f"tests.bench.{'floor' if name == FLOOR else 'plain'}"
        command = [sys.executable, "-m", module, "--database-url", database_url, "--provider", self.double.base_url]
        return [*command, "--commit", "event" if name == PLAIN_BY_EVENT else "turn"], {}


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ground]:
    """Start Postgres, the double and the client in a folder that is removed afterwards."""
    _raise_limit_of_files()
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="suricate-bench-", dir=folder)))
        postgres = await stack.enter_async_context(embedded.running(home / "postgres"))
        double = await stack.enter_async_context(ProviderDouble(records=100))
        command = [sys.executable, "-m", "tests.bench.client"]
        load = await stack.enter_async_context(process(command, stdin=asyncio.subprocess.PIPE))
        servers = await stack.enter_async_context(AsyncExitStack())
        yield Ground(home, postgres, double, load, servers)


@asynccontextmanager
async def process(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: int | None = None, stderr: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Python process from the checkout for the length of the block; ended in order, or by force."""
    basis = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": sys.pycache_prefix or "", "HOME": str(ROOT)}
    with (stderr or Path(os.devnull)).open("ab") as errors:
        running = await asyncio.create_subprocess_exec(
            *command, env=basis | dict(env or {}), stdin=stdin, stdout=asyncio.subprocess.PIPE,
            stderr=errors if stderr else None, limit=LINE_BYTES,
        )  # fmt: skip
    try:
        yield running
    finally:
        if running.returncode is None:
            running.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await running.wait()
            except TimeoutError:
                running.kill()
                await running.wait()


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _raise_limit_of_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65_536), hard))
