"""An HTTP endpoint on loopback that answers as it is told and remembers what it was asked."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


def answer(body: bytes = b"", *, status: int = 200, kind: str = "text/plain", head: str = "") -> bytes:
    """Write a whole response; `head` is more header lines, each with its line end."""
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body


@dataclass
class Endpoint:
    """What it answers, and the heads and bodies that came.

    Args:
        reply: raw bytes written for each request; None answers never.
        repeats: how often `repeated` follows them.
        hangs: whether the connection stays open after that.
    """

    reply: bytes | None = field(default_factory=answer)
    repeated: bytes = b""
    repeats: int = 0
    hangs: bool = False
    port: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, host: str = "127.0.0.1", *, scheme: str = "http") -> str:
        """Return its address under a host name."""
        return f"{scheme}://{host}:{self.port}/tool"

    @property
    def calls(self) -> list[Any]:
        """The bodies as JSON."""
        return [json.loads(body) for body in self.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(next((line[15:] for line in head.lower().splitlines() if line.startswith("content-length:")), "0"))
            self.heads.append(head)
            self.bodies.append(await reader.readexactly(length))
            if self.reply is None:
                await reader.read()
                self.hung_up.set()
                return
            writer.write(self.reply)
            for _ in range(self.repeats):
                writer.write(self.repeated)
                await writer.drain()
            if self.hangs:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def listening(endpoint: Endpoint, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    """Let it listen on a free port for the length of the block."""
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=tls)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
