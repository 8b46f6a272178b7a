"""The HTTP server under the app: uvicorn, with our socket, our protocol, and our order of stopping."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from app.api.protocol import Config
from app.errors import StartupError

SEND_BUFFER_BYTES = 128 * 1024  # a reader that takes nothing costs no more kernel memory than this
BACKLOG = 2048
UNREADY_SECONDS = 0.15  # the door stays open, for balancers to see it close


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
