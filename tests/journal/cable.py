"""A cable to a server that a test can cut: what is said arrives without the answers coming back, connections break."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

CHUNK_BYTES = 65_536

Reach: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to the server at the cable's far end."""


@dataclass(slots=True)
class Cable:
    """Carries bytes between clients and a server. Its near end is `port` on the loopback, or `dsn` for clients of Postgres."""

    reach: Reach
    port: int = 0
    dsn: str = ""
    is_deaf: bool = False
    """Whether answers are swallowed: what a client sends still arrives."""
    is_refusing: bool = False
    """Whether new connections are closed at once."""
    refused: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def recover(self) -> None:
        """Break what is deaf; new connections hear again."""
        self.is_deaf = False
        self.cut()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until one side closes."""
        if self.is_refusing:
            self.refused += 1
            writer.transport.abort()
            return
        server_reader, server_writer = await self.reach()
        self._writers |= {writer, server_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, server_writer, is_answer=False))
                tasks.create_task(self._pump(server_reader, writer, is_answer=True))
        finally:
            self._writers -= {writer, server_writer}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if not (is_answer and self.is_deaf):
                    sink.write(data)
                    await sink.drain()
        sink.close()


@asynccontextmanager
async def cable_to(dsn: str) -> AsyncIterator[Cable]:
    """Lay a cable to a Postgres that is reached by a Unix socket."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    path = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
    async with laid(lambda: asyncio.open_unix_connection(path)) as cable:
        user = query.get("user", [parts.username or "postgres"])[0]
        cable.dsn = f"postgresql://{user}@127.0.0.1:{cable.port}{parts.path}"
        yield cable


@asynccontextmanager
async def laid(reach: Reach) -> AsyncIterator[Cable]:
    """Lay a cable to any server."""
    cable = Cable(reach)
    server = await asyncio.start_server(cable.carry, "127.0.0.1", 0)
    cable.port = server.sockets[0].getsockname()[1]
    try:
        yield cable
    finally:
        cable.cut()
        server.close()
        await server.wait_closed()
