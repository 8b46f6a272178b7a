"""HTTP/1.1 for streams of small pieces: an httpx2 transport on asyncio's protocols and llhttp.

Reading a model's stream is the hottest path after the journal, and httpx2's own transport takes several times longer for
a piece. This one does what is needed here and no more: no HTTP/2, no proxies, no redirects, no decompression. A response that
is closed before its end takes its connection with it. A connection that is kept serves the name alone that it was opened for.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self, TypeAlias, cast

import httptools
import httpx2

from app.pace import UNHURRIED, Pace

MAX_HEAD_BYTES: Final = 64 * 1024
HIGH_WATER_BYTES: Final = 256 * 1024  # a body that is not read stops being received above it
KEEP_ALIVE_SECONDS: Final = 4.0  # under the 5 s after which common servers hang up, so that none is used while it does
MAX_IDLE_PER_ORIGIN: Final = 256
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Origin: TypeAlias = tuple[str, str, int]
Places: TypeAlias = Callable[[httpx2.URL], Awaitable[Sequence[str]]]
"""Says at which addresses a URL's host may be connected to, in the order to try; raises where it may not."""


class Transport(httpx2.AsyncBaseTransport):
    """Keeps connections for the next request; any number may be open at once.

    Args:
        ssl_context: for https; by default one that trusts the system's certificates, made when it is first needed.
        places: asked before each connection, and believed; None leaves it to the system where a name leads.
        pace: how soon after one piece of a body the next is received.
        max_idle: connections to one origin that are kept; 0 makes one for each request, where none may fail on an old one.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None = None,
        *,
        places: Places | None = None,
        pace: Pace = UNHURRIED,
        max_idle: int = MAX_IDLE_PER_ORIGIN,
    ) -> None:
        self._ssl_context = ssl_context
        self._places = places
        self._max_idle = max_idle
        self._pace = pace
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its response as soon as the head is there.

        Raises:
            httpx2.TransportError: there is no connection, or it ended or turned unreadable before the head was there.
        """
        head = _head(request)
        content = await request.aread()
        connection = await self._connection(request)
        try:
            body = await connection.exchange(head + content)
        except BaseException:
            connection.abort()
            raise
        return httpx2.Response(body.status, headers=body.headers, stream=body, request=request)

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        for connection in tuple(self._open):
            connection.abort()

    async def _connection(self, request: httpx2.Request) -> "_Connection":
        url = request.url
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or DEFAULT_PORTS.get(url.scheme, 0))
        idle = self._idle.get(origin, [])
        earliest = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while idle:
            connection = idle.pop()
            if connection.is_usable(earliest):
                return connection
            connection.abort()
        places = [origin[1]] if self._places is None else await self._places(url)
        return await self._connect(origin, places, request.extensions.get("timeout", {}).get("connect"))

    async def _connect(self, origin: Origin, places: Sequence[str], timeout_seconds: float | None) -> "_Connection":
        """Connect to the first place that can be; nothing was sent to those before it."""
        failure: httpx2.TransportError = httpx2.ConnectError("no place to connect to")
        for place in places:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await self._connected(origin, place)
            except TimeoutError:
                failure = httpx2.ConnectTimeout("no connection in time")
            except (OSError, UnicodeError) as error:  # the latter of a name that the resolver cannot take
                failure = httpx2.ConnectError("no connection")
                failure.__cause__ = error
        raise failure

    async def _connected(self, origin: Origin, place: str) -> "_Connection":
        scheme, host, port = origin
        is_secure = scheme == "https"
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._open, lambda ready: self._keep(origin, ready), self._pace),
            place,
            port,
            ssl=self._tls() if is_secure else None,
            server_hostname=host if is_secure else None,
        )
        return connection

    def _keep(self, origin: Origin, connection: "_Connection") -> None:
        if len(self._idle.get(origin, ())) < self._max_idle:
            self._idle[origin].append(connection)
        else:
            connection.abort()

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = httpx2.create_ssl_context(trust_env=False)
        return self._ssl_context


class _Body(httpx2.AsyncByteStream):
    """One response: its head, and its body as an iterator of what has come since the last look."""

    def __init__(self, connection: "_Connection") -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        self.is_complete = False
        self._connection = connection
        self._failure: httpx2.TransportError | None = None
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            await self.progress()
        if self._pieces:
            piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._waiting_bytes = 0
            self._connection.go_on()
            return piece
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if not self.is_complete:
            self._connection.abort()

    async def progress(self) -> None:
        """Wait until there is something new; at once where the end is known."""
        if not self.is_complete and self._failure is None:
            self._waiter = self._connection.loop.create_future()
            await self._waiter

    async def head(self) -> None:
        """Wait for the head."""
        while not self.has_head:
            await self.progress()
            if self._failure is not None:
                raise self._failure

    # What the connection calls.

    def add(self, piece: bytes) -> bool:
        """Take a piece; return whether it is enough for now."""
        self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        return self._waiting_bytes > HIGH_WATER_BYTES

    def fail(self, failure: httpx2.TransportError) -> None:
        self._failure = failure
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection, for one exchange at a time.

    Args:
        open_connections: where it stands while it is open.
        when_ready: called when an exchange is complete and the server will take another.
        pace: how soon after one piece of a body the next is received.
    """

    def __init__(self, open_connections: set["_Connection"], when_ready: Callable[["_Connection"], None], pace: Pace) -> None:
        self.loop = asyncio.get_running_loop()
        self._pace = pace
        self._idle_since = 0.0
        self._open = open_connections
        self._when_ready = when_ready
        self._body: _Body | None = None
        self._is_paused = False

    async def exchange(self, request: bytes) -> _Body:
        """Write a request and return its response as soon as the head is there."""
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._is_delimited = False
        self._body = body = _Body(self)
        self._transport.write(request)
        await body.head()
        return body

    def is_usable(self, earliest: float) -> bool:
        """Whether the server has not hung up and was heard of since `earliest`."""
        return not self._transport.is_closing() and self._idle_since > earliest

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def go_on(self) -> None:
        """Receive again after the body was read: at once, or after a while that gathers more where the process is busy."""
        pause = self._pace.reading_seconds
        if pause == 0:
            self.resume()
            return
        self.pause()
        self.loop.call_later(pause, self.resume)

    def pause(self) -> None:
        """Leave to the kernel what comes next."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Receive again."""
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def _fail(self, failure: httpx2.TransportError) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.fail(failure)
        self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        body = self._body
        if body is None:
            self.abort()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(httpx2.RemoteProtocolError("not HTTP/1.1"))
            return
        if not body.has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(httpx2.RemoteProtocolError("the head is too large"))
        body.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        body, self._body = self._body, None
        if body is None:
            return
        if exc is None and body.has_head and not self._is_delimited:
            body.is_complete = True
            body.wake()
        else:
            body.fail(httpx2.ReadError("the connection ended before its response did"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._body is None:
            self.abort()  # a second response, which was not asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body is not None and not self._body.has_head:
            self._body.headers.append((name, value))

    def on_headers_complete(self) -> None:
        body = self._body
        if body is None:
            return
        body.status = self._parser.get_status_code()
        if body.status < httpx2.codes.OK:
            body.headers.clear()  # an interim response; the real one follows
            return
        if sum(len(name) + len(value) for name, value in body.headers) > MAX_HEAD_BYTES:
            return  # without a head, `data_received` counts the bytes and gives up
        body.has_head = True
        names = {name.lower() for name, _ in body.headers}
        self._is_delimited = not names.isdisjoint({b"content-length", b"transfer-encoding"})

    def on_body(self, piece: bytes) -> None:
        if self._body is not None and self._body.add(piece):
            self.pause()

    def on_message_complete(self) -> None:
        body = self._body
        if body is None or not body.has_head:
            return
        self._body = None
        body.is_complete = True
        self.resume()
        if self._parser.should_keep_alive():
            self._idle_since = self.loop.time()
            self._when_ready(self)
        else:
            self.abort()


def _head(request: httpx2.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [name + b": " + value for name, value in request.headers.raw]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise httpx2.LocalProtocolError("a header holds a line end")
    return b"\r\n".join([*lines, b"", b""])
