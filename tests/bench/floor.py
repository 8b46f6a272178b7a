"""The floor: the least that can be called this service. Bare ASGI, asyncpg, one commit a turn, the answer passed through.

It numbers nothing, checks nothing, resumes nothing, and shows what is not stored yet. Nobody should run it; it tells what the
machine, uvicorn and Postgres cost before a service adds its own.
"""

import asyncio
import uuid
from argparse import Namespace
from typing import Any

import asyncpg
import orjson

from app import ids
from tests.bench.hosting import serve
from tests.bench.wire import Connection, connect

SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (id uuid PRIMARY KEY, at timestamptz DEFAULT now());
CREATE TABLE IF NOT EXISTS turns (id uuid PRIMARY KEY, session_id uuid, prompt text, answer text);
CREATE TABLE IF NOT EXISTS events (session_id uuid, seq bigint, data text, PRIMARY KEY (session_id, seq));
"""
JSON = (b"content-type", b"application/json")
SSE = (b"content-type", b"text/event-stream")


class Floor:
    """The app."""

    def __init__(self, arguments: Namespace) -> None:
        self._database_url: str = arguments.database_url
        self._provider: str = arguments.provider
        self._idle: list[Connection] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, or the app's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        match scope["method"], scope["path"].split("/"):
            case "POST", [_, _, "sessions"]:
                await self._create(send)
            case "POST", [_, _, "sessions", session_id, "turns"]:
                await self._turn(session_id, (await receive())["body"], send)
            case "GET", [_, _, "sessions", session_id, "events"]:
                await self._events(session_id, send)
            case _:
                await _answer(send, 404, JSON, b"{}")

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self._pool = await asyncpg.create_pool(self._database_url, min_size=2, max_size=16)
        await self._pool.execute(SCHEMA)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _create(self, send: Any) -> None:
        session_id = ids.session_id()
        await self._pool.execute("INSERT INTO sessions (id) VALUES ($1)", session_id)
        await _answer(send, 201, JSON, b'{"session_id":"%b"}' % session_id.encode())

    async def _turn(self, session_id: str, body: bytes, send: Any) -> None:
        prompt = orjson.loads(body)["prompt"]
        await send({"type": "http.response.start", "status": 200, "headers": [SSE]})
        pieces: list[bytes] = []
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask(prompt, queue))
            while piece := await queue.get():
                pieces.append(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._pool.execute(
            "INSERT INTO turns VALUES ($1, $2, $3, $4)", ids.turn_id(), uuid.UUID(session_id), prompt, b"".join(pieces).decode()
        )
        await send({"type": "http.response.body"})

    async def _ask(self, prompt: str, queue: asyncio.Queue[bytes]) -> None:
        connection = self._idle.pop() if self._idle else await connect(self._provider)
        body = {"model": "double", "stream": True, "messages": [{"role": "user", "content": prompt}]}
        await connection.request("POST", "/v1/chat/completions", body=body, sink=queue.put_nowait)
        queue.put_nowait(b"")
        if connection.is_open:
            self._idle.append(connection)

    async def _events(self, session_id: str, send: Any) -> None:
        rows = await self._pool.fetch("SELECT seq, data FROM events WHERE session_id = $1 ORDER BY seq", uuid.UUID(session_id))
        frames = b"".join([f"id: {row['seq']}\nevent: text_delta\ndata: {row['data']}\n\n".encode() for row in rows])
        await _answer(send, 200, SSE, frames)


async def _answer(send: Any, status: int, kind: tuple[bytes, bytes], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [kind]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    serve(Floor)
