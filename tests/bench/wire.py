"""A lean HTTP/1.1 client connection: httptools, one request at a time, body pieces handed over as they come."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import orjson

Sink = Callable[[bytes], None]


@dataclass(slots=True)
class Answer:
    """An answer as far as it came: without a head its status is 0, and a sink takes the body of a success."""

    status: int = 0
    is_complete: bool = False
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Read the body, which must be that of a success."""
        assert self.status < 300, f"{self.status}: {self.body[:300]!r}"
        return orjson.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection to one server, kept alive from request to request. Made by `connect`."""

    def __init__(self, host: bytes) -> None:
        self._host = host
        self._done: asyncio.Future[Answer] | None = None
        self.head_came = asyncio.Event()
        self.is_open = True

    async def request(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None, sink: Sink | None = None
    ) -> Answer:
        """Ask, and return when the answer is complete or the connection has ended."""
        self._done = asyncio.get_running_loop().create_future()
        self._answer, self._pieces = Answer(), list[bytes]()
        self._sink = sink or self._pieces.append
        self.head_came.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._written(method, path, body, headers or {}))
        return await self._done

    def close(self) -> None:
        """Go away, in the middle of an answer too."""
        self._transport.abort()

    def _written(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> bytes:
        payload = b"" if body is None else orjson.dumps(body)
        lines = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in headers.items())
        if payload:
            lines += b"content-type: application/json\r\ncontent-length: %d\r\n" % len(payload)
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n%b" % (method.encode(), path.encode(), self._host, lines, payload)

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._answer.body = b"".join(self._pieces)
            self._done.set_result(self._answer)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_open = False
        self._finish()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if self._answer.status >= 300:
            self._sink = self._pieces.append
        self.head_came.set()

    def on_body(self, piece: bytes) -> None:
        self._sink(piece)

    def on_message_complete(self) -> None:
        self._answer.is_complete = True
        self._finish()


async def connect(base_url: str) -> Connection:
    """Open a connection."""
    address = urlsplit(base_url)
    host, port = address.hostname or "", address.port or 80
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(address.netloc.encode()), host, port)
    return connection
