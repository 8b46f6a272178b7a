"""A server on loopback that hooks are sent to: it keeps what it was sent and says exactly what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

SECRET = "a secret of sixteen characters"


@dataclass(frozen=True, slots=True)
class Received:
    """One request; header names are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """What runs: its URL, and the requests so far."""

    url: str
    requests: list[Received] = field(default_factory=list)

    async def heard(self, count: int) -> list[Received]:
        """Wait for so many requests."""
        async with asyncio.timeout(10):
            while len(self.requests) < count:
                await asyncio.sleep(0.01)
        return self.requests


def whole(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """Write an answer with its length."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def deciding(decision: Any) -> bytes:
    """Write an answer that is a decision."""
    return whole(orjson.dumps(decision), headers="Content-Type: application/json\r\n")


@asynccontextmanager
async def receiving(answer: bytes | Callable[[Received], bytes], *, hangs: bool = False) -> AsyncIterator[Receiver]:
    """A server that answers each request so, and with `hangs` keeps the connection open after it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while (line := await reader.readline()) not in {b"", b"\r\n"}:
                receiver.requests.append(await _read(line, reader))
                writer.write(answer(receiver.requests[-1]) if callable(answer) else answer)
                await writer.drain()
                if not hangs:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver = Receiver(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook")
    async with server:
        yield receiver


async def _read(line: bytes, reader: asyncio.StreamReader) -> Received:
    headers: dict[str, str] = {}
    while (header := await reader.readline()) not in {b"", b"\r\n"}:
        name, _, value = header.decode().partition(":")
        headers[name.strip().lower()] = value.strip()
    return Received(line.decode().strip(), headers, await reader.readexactly(int(headers["content-length"])))
