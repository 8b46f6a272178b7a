"""HTTP/1.1 on one connection: a request in, its answer played by a task that dies with the connection."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias, cast

import httptools


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One whole request; header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer: TypeAlias = Callable[["Connection", HttpRequest], Awaitable[None]]


class Connection(asyncio.Protocol):
    """A client's connection, kept alive from request to request."""

    def __init__(self, answer: Answer, tasks: asyncio.TaskGroup, open_connections: set["Connection"]) -> None:
        self._answer = answer
        self._tasks = tasks
        self._open_connections = open_connections
        self._task: asyncio.Task[None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def client_port(self) -> int:
        """What tells this connection from others; 0 where its client was gone before it was looked at."""
        peer = self._transport.get_extra_info("peername")
        return int(peer[1]) if peer else 0

    def write(self, data: bytes) -> None:
        """Write without waiting."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        await self._may_write.wait()

    def close(self, *, is_reset: bool = False) -> None:
        """End the connection: by FIN after what was written, or by RST at once."""
        if not is_reset:
            self._transport.close()
            return
        linger_for_nothing = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)
        self._transport.abort()

    async def _run(self, request: HttpRequest) -> None:
        await self._answer(self, request)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._open_connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, path = self._parser.get_method().decode(), self._url.decode("latin-1")
        request = HttpRequest(method, path, self._headers, b"".join(self._body))
        self._task = self._tasks.create_task(self._run(request))


class Reply:
    """One answer on a connection: the head once, the body in pieces, the end."""

    def __init__(self, connection: Connection, when_begun: Callable[[], None] | None = None) -> None:
        self.connection = connection
        self._is_chunked = True
        self._is_begun = False
        self._when_begun = when_begun

    def head(self, *, is_chunked: bool = True, content_type: str = "text/event-stream") -> None:
        """Write the head of a 200 that streams; a second time does nothing."""
        if self._is_begun:
            return
        self._begin()
        self._is_chunked = is_chunked
        framing = "transfer-encoding: chunked" if is_chunked else "connection: close"
        self.connection.write(f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode())

    def body(self, data: bytes) -> None:
        """Write a piece of the body as one chunk."""
        self.head()
        self.connection.write(framed(data) if self._is_chunked else data)

    def end(self) -> None:
        """End the body as its framing does."""
        self.head()
        if self._is_chunked:
            self.connection.write(b"0\r\n\r\n")
        else:
            self.connection.close()

    def whole(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Write an answer that is no stream."""
        self._begin()
        lines = {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.connection.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + body)

    def _begin(self) -> None:
        self._is_begun = True
        if self._when_begun is not None:
            self._when_begun()


def framed(data: bytes) -> bytes:
    """Frame a piece as one chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)
