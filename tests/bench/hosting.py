"""How the floor and the plain app are served: uvicorn on a free port, which is told as Suricate tells it."""

import argparse
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        print(f"listens on http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)


def serve(make_app: Callable[[argparse.Namespace], ASGIApp]) -> None:
    """Serve an app, made from the command line's arguments, until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--commit", choices=("turn", "event"), default="turn")
    app = make_app(parser.parse_args())
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    _Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none")).run([sock])
