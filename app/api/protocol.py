"""HTTP/1.1 on one connection: uvicorn's protocol, with limits on how much a request is and how slowly it may come.

Who can have a connection closed, and what the client sees:

    it says nothing at all            the end, after the request timeout
    its head does not come to an end  408, after the request timeout
    its body trickles or stops        408, once a request timeout has brought less than the least rate
    its head has no bounds            431
    what it sends is no HTTP          400
    it comes when the house is full   429
    it takes nothing of its answer    the end, after the send timeout

Where another answer is under way, or is to come for a request that came whole, there is only the end. A request that came whole
may take its time, and so may the next one on the same connection.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app import ids
from app.api import browsers, front, problems

KEEP_ALIVE_SECONDS: Final = 75
GRACE_SECONDS: Final = 3  # for answers under way when the server stops; streams and waiting requests end at once
LEAST_BYTES_A_SECOND: Final = 16 * 1024  # of a body; as slow as the slowest of mobile networks
LOOSE_BYTES: Final = 4096  # beside what `front` counts of a head: its method, its version, its line ends
LINGER_SECONDS: Final = 2.0  # for a client to read that it is refused, while it still sends

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may do.

    Args:
        request_seconds: how long one may owe a request, or the rest of one.
        send_seconds: how long it may take nothing of what is sent.
        header_bytes: how large the head of a request may be.
        connections: how many there may be at once.
    """

    request_seconds: float
    send_seconds: float
    header_bytes: int
    connections: int


class Config(uvicorn.Config):
    """uvicorn's, with what the protocol should know besides."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(
            app,
            http=Protocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self.limits = limits


class Protocol(HttpToolsProtocol):
    """One connection."""

    config: Config
    _stall: asyncio.TimerHandle | None = None
    _arrival: asyncio.TimerHandle | None = None  # runs while the client owes more of a request
    _farewell: asyncio.TimerHandle | None = None
    _is_head: bool = True  # what comes next belongs to a head, not to a body
    _since: float = 0  # when the client began to owe what it owes now
    _heard: float = 0
    _came: int = 0  # bytes since then
    _loose: int = 0  # bytes since a head began or a piece of a body came: they are held by the parser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, for a while."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.config.limits.connections:
            self._refuse("CAPACITY_EXCEEDED", "This server has as many connections as it may have; try again.")
        else:
            self._owes()

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._farewell is not None:
            return
        self._heard = self.loop.time()
        if self._arrival is None:
            self._owes()
        self._loose += len(data)
        super().data_received(data)
        self._came += len(data)
        if self._loose > self.config.limits.header_bytes + LOOSE_BYTES and self._farewell is None:
            self._refuse("HEADERS_TOO_LARGE", f"The request's head is over {self.config.limits.header_bytes} bytes.")

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        if self._arrival is None:
            self._owes()
        self._since, self._came = self._heard, 0

    def on_headers_complete(self) -> None:
        """Begin a body."""
        super().on_headers_complete()
        self._since, self._came, self._loose, self._is_head = self._heard, 0, 0, False

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Owe the client an answer; one that has it already owes the next request."""
        super().on_message_complete()
        self._since, self._came, self._loose, self._is_head = self._heard, 0, 0, True
        if not self.cycle.response_complete:
            self._end_arrival()

    def pause_writing(self) -> None:
        """Wait for the client to take what fills the buffer, but not for ever: a timer runs only while it does not."""
        super().pause_writing()
        self._stall = self.loop.call_later(self.config.limits.send_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """Go on sending."""
        self._end_stall()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_stall()
        self._end_arrival()
        if self._farewell is not None:
            self._farewell.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the words are ours
        """Refuse bytes that are no HTTP request."""
        self._refuse("MALFORMED_REQUEST", "This is not an HTTP/1.1 request.")

    def _owes(self) -> None:
        self._since = self._heard = self.loop.time()
        self._came = 0
        self._arrival = self.loop.call_later(self.config.limits.request_seconds, self._look)

    def _look(self) -> None:
        """Close the connection where the client has been owing for too long, or look again later."""
        now, limit = self.loop.time(), self.config.limits.request_seconds
        if self.flow.read_paused:
            self._since = now  # it is this server that does not read
        elif not self._is_head and not self.cycle.response_complete and self._came >= limit * LEAST_BYTES_A_SECOND:
            self._since, self._came = self._heard, 0
        if now < self._since + limit:
            self._arrival = self.loop.call_at(self._since + limit, self._look)
        elif self._came or not self._is_head:
            self._refuse("REQUEST_TIMEOUT", f"The request did not come within {limit:g} s, or at less than 16 KiB/s.")
        else:
            self.transport.close()

    def _refuse(self, code: str, words: str) -> None:
        """Tell that this is no request, where that can be told; hear no more, and close."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # there is none before the first request
        is_free = cycle is None or (cycle.response_complete if self._is_head else not cycle.response_started)
        log.info("request_refused", code=code)
        self._end_arrival()
        self._farewell = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        if cycle is not None and not self._is_head:  # who waits for its body waits in vain
            cycle.disconnected = True
            cycle.message_event.set()
        if self.pipeline or not is_free:
            self.transport.close()
            return
        self.transport.write(_answer(code, words))
        self.flow.resume_reading()  # closing on bytes that were not read would reset the connection, and the answer with it
        self.transport.write_eof()

    def _end_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _cut_off(self) -> None:
        log.info("reader_cut_off", **front.ids_of(self.scope))
        self.transport.abort()


def _answer(code: str, words: str) -> bytes:
    status = problems.STATUS[code]
    document = problems.body(code, words)
    headers = browsers.secured([
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(document)).encode()),
        (b"x-request-id", ids.uuid7().encode()),
        (b"connection", b"close"),
    ])
    if code == "CAPACITY_EXCEEDED":
        headers.append((b"retry-after", str(problems.RETRY_AFTER_SECONDS).encode()))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(), *(b": ".join(header) for header in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + document
