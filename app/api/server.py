"""The HTTP server under the app: uvicorn, with our socket, our words for what is no HTTP, and our order of stopping."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import ids
from app.api import front, problems
from app.errors import StartupError

SEND_BUFFER_BYTES = 128 * 1024  # a reader that takes nothing costs no more kernel memory than this
BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
UNREADY_SECONDS = 0.15  # the door stays open, for balancers to see it close
GRACE_SECONDS = 3  # for answers under way; streams and waiting requests end at once

log = structlog.get_logger()


class Config(uvicorn.Config):
    """uvicorn's, with what its protocol should know besides.

    Args:
        send_timeout_seconds: how long a client may take nothing of what is sent.
    """

    def __init__(self, app: ASGIApp, *, send_timeout_seconds: float) -> None:
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
        self.send_timeout_seconds = send_timeout_seconds


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 that answers a broken request with a problem document too, and cuts off a client that does not read."""

    _stall: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Wait for the client to take what fills the buffer, but not for ever: a timer runs only while it does not."""
        super().pause_writing()
        assert isinstance(self.config, Config)
        self._stall = self.loop.call_later(self.config.send_timeout_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """Go on sending."""
        self._end_stall()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_stall()
        super().connection_lost(exc)

    def _cut_off(self) -> None:
        log.info("reader_cut_off", **front.ids_of(self.scope))
        self.transport.abort()

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the words are ours
        """Refuse bytes that are no HTTP request, and close."""
        document = problems.body("MALFORMED_REQUEST", "This is not an HTTP/1.1 request.")
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            f"content-type: {problems.MEDIA_TYPE}\r\n"
            f"content-length: {len(document)}\r\n"
            f"x-request-id: {ids.uuid7()}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + document)
        self.transport.close()


class Server(uvicorn.Server):
    """Serves one app until a signal.

    Args:
        on_ready: called with the address once requests are answered.
        on_stop: called when the process is told to stop, before anything closes.
    """

    def __init__(self, config: Config, *, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the app, then the door."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, after a moment in which who asks is told that this server is no longer ready."""
        if not self.force_exit:
            await asyncio.sleep(UNREADY_SECONDS)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal stops at once."""
        self._on_stop()
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        StartupError: the address cannot be had; the message says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartupError(f"Cannot listen on {host}:{port}: {error.strerror}. Set SURICATE_PORT to a free one.") from error
    return sock
