"""Requests as bytes, for what no HTTP client would send, and answers read to their end."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import orjson

LIMIT_SECONDS = 10
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body."""
        return orjson.loads(self.body)


async def ask(base_url: str, *pieces: bytes) -> Answer:
    """Send bytes over a connection of their own and read one answer."""
    async with asyncio.timeout(LIMIT_SECONDS), connection(base_url) as (reader, writer), asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(_send(writer, pieces))
        answer = await read(reader)
        sending.cancel()
        return answer
    raise AssertionError("no answer")


@asynccontextmanager
async def connection(base_url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to a server; it is closed at the end of the block."""
    address = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**20)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader) -> Answer:
    """Read one answer that has a length."""
    head = await read_head(reader)
    return replace(head, body=await reader.readexactly(int(head.headers.get("content-length", "0"))))


async def read_head(reader: asyncio.StreamReader) -> Answer:
    """Read an answer up to its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ")[1]), headers, b"")


def request(method: str, path: str, body: bytes = b"", *lines: bytes, kind: str | None = "application/json") -> bytes:
    """Write a request; further header lines are given as bytes."""
    head = [f"{method} {path} HTTP/1.1".encode("utf-8", "surrogateescape"), b"host: localhost", *lines]
    if body:
        head.append(b"content-length: %d" % len(body))
        head += [] if kind is None else [f"content-type: {kind}".encode()]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(method: str, path: str, pieces: Iterable[bytes]) -> list[bytes]:
    """Write a request whose body comes in chunks and has no length."""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return [head.encode(), *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]


async def _send(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    with suppress(ConnectionError):  # the server may answer and close before it has read everything
        for piece in pieces:
            for start in range(0, len(piece), CHUNK_BYTES):
                writer.write(piece[start : start + CHUNK_BYTES])
                await writer.drain()
