"""The fleet of a run: nodes and a worker on one Postgres, a provider and tools, and an edge of the network between any two.

    clients → n1.clients → node n1 → n1.postgres, n1.provider, n1.tools → Postgres, provider, tools

Addresses stay the same over every restart. A server's port lies below those that the kernel gives out by itself, so that nobody
takes it while the server is down.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import orjson

from tests.torture import edges, keeper, tools
from tests.torture.edges import Edges
from tests.torture.keeper import Keeper
from tests.torture.member import Member
from tests.torture.processes import ROOT

PORTS = range(20_000, 32_000)
ANSWER_SECONDS = 120.0
PATIENCE_SECONDS = 5  # of nodes with a provider that says nothing
POOL_SIZE = 12  # four nodes of it, and the connections that they have besides, leave room below a hundred


@dataclass(slots=True)
class Fleet:
    """Everything that can be broken.

    Args:
        code: the folder whose `app` the nodes run.
        members: nodes, the worker, `provider` and `tools`, by name.
        runners: the names of those that carry out turns.
        urls: of the nodes, as clients reach them.
        deaths: ends that nobody had asked for.
    """

    folder: Path
    code: Path
    lease_seconds: float
    postgres: Keeper
    network: Edges
    members: dict[str, Member] = field(default_factory=dict)
    runners: list[str] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)

    async def ask(self, statement: str, *arguments: object) -> Any:
        """Ask Postgres for one value, past the network."""
        async with self.connected() as connection:
            return await connection.fetchval(statement, *arguments)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection to Postgres, past the network, as a superuser."""
        connection = await asyncpg.connect(self.postgres.dsn, timeout=5, command_timeout=30)
        try:
            yield connection
        finally:
            connection.terminate()

    async def revive_postgres(self) -> None:
        """Start Postgres where it does not run, and wait until it answers."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                await self.postgres.start()
                try:
                    await self.ask("SELECT 1")
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.1)
                else:
                    return

    async def look_after(self) -> None:
        """Start again who has ended without being told to, and put it on record."""
        for member in self.members.values():
            if member.is_wanted and member.child.exit_status is not None:
                member.is_wanted = False
                self.deaths.append(f"{member.name} ended by itself with {member.child.exit_status}; {member.child.log}")
                await member.start()


@asynccontextmanager
async def running(folder: Path, *, nodes: int, lease_seconds: float, code: Path = ROOT) -> AsyncIterator[Fleet]:
    """Have a fleet while the block runs; all of it has ended afterwards."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(keeper.running(folder))
        network = await stack.enter_async_context(edges.running(folder))
        fleet = Fleet(folder, code, lease_seconds, postgres, network)
        stack.push_async_callback(_end, fleet)
        await _build(fleet, nodes)
        async with asyncio.TaskGroup() as tasks:
            for member in fleet.members.values():
                tasks.create_task(member.start())
        yield fleet


async def _build(fleet: Fleet, nodes: int) -> None:
    ports = _free_ports()
    for name in ("provider", "tools"):
        port = next(ports)
        arguments = ("-m", f"tests.torture.{name}", "--folder", str(fleet.folder), "--port", str(port))
        fleet.members[name] = Member(
            name, f"127.0.0.1:{port}", arguments, {}, folder=fleet.folder, ready_words=f"http://127.0.0.1:{port}"
        )
    for name in [*(f"n{number}" for number in range(1, nodes + 1)), "w1"]:
        environment = await _node_environment(fleet, name)
        command, address, words = "worker", "", "runs turns"
        if name != "w1":
            port = next(ports)
            command, address, words = "serve", f"127.0.0.1:{port}", "listens on"
            environment["SURICATE_PORT"] = str(port)
            fleet.urls[name] = f"http://{await fleet.network.make(f'{name}.clients', address)}"
        fleet.runners.append(name)
        fleet.members[name] = Member(
            name, address, ("-m", "app.cli", command), environment, folder=fleet.folder, ready_words=words
        )


async def _node_environment(fleet: Fleet, name: str) -> dict[str, str]:
    """Make a node's edges, and settings that lead through them."""
    database, provider, tool_server = [
        await fleet.network.make(f"{name}.{end}", to)
        for end, to in (
            ("postgres", _socket_of(fleet.postgres.dsn)),
            ("provider", fleet.members["provider"].address),
            ("tools", fleet.members["tools"].address),
        )
    ]
    tools_file = fleet.folder / f"{name}-tools.json"
    tools_file.write_bytes(orjson.dumps(tools.described(f"http://{tool_server}")))
    return {
        "PYTHONPATH": str(fleet.code),
        "PYTHONSAFEPATH": "1",  # else the folder in which a node is started would come first
        "SURICATE_DATABASE_URL": f"postgresql://postgres@{database}/suricate?sslmode=disable",
        "SURICATE_OPENAI_COMPATIBLE_BASE_URL": f"http://{provider}/v1",
        "SURICATE_TOOLS_FILE": str(tools_file),
        "SURICATE_OUTBOUND_INSIDE": '["127.0.0.0/8"]',
        "SURICATE_OUTBOUND_HTTP": "true",
        "SURICATE_LEASE_SECONDS": str(fleet.lease_seconds),
        "SURICATE_POOL_SIZE": str(POOL_SIZE),
        "SURICATE_PROVIDER_FIRST_BYTE_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "SURICATE_PROVIDER_IDLE_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
    }


async def _end(fleet: Fleet) -> None:
    async with asyncio.TaskGroup() as tasks:
        for member in fleet.members.values():
            tasks.create_task(member.close())


def _socket_of(dsn: str) -> str:
    query: Mapping[str, list[str]] = parse_qs(urlsplit(dsn).query)
    return f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"


def _free_ports() -> Iterator[int]:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                yield port
