"""The tools of a run behind HTTP: each puts its effect on record before it answers, and some take their time.

python -m tests.torture.tools --folder F --port P [--until-stdin-closes]
"""

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from app import clock
from tests.provider_double.connection import Answer, Connection, HttpRequest, Reply
from tests.torture import doubling, plan
from tests.torture.records import Book, Effect

SERVED = ("effect", "guarded", "lookup")
SLOW_SECONDS = (0.5, 1.0, 2.0)
SLOW_ONE_IN = 8
LONGEST_CALL_SECONDS = 5.0


def result(key: str) -> str:
    """Say what a call with this key gets."""
    return f"done {key}"


def described(base_url: str) -> Mapping[str, Any]:
    """Write the tools file of a node that reaches the tools at this address."""
    tools = [
        {
            "name": name,
            "description": f"Does {name}.",
            "input_schema": plan.SCHEMA,
            "url": f"{base_url}/{name}",
            "timeout_seconds": LONGEST_CALL_SECONDS,
            "is_idempotent": name == "lookup",
        }
        for name in SERVED
    ]
    return {"http_tools": tools}


class Tools:
    """Answers calls, and writes down what they did."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def answer(self, connection: Connection, request: HttpRequest) -> None:
        """Do one call."""
        name = request.path.removeprefix("/")
        if request.method != "POST" or name not in SERVED:
            Reply(connection).whole(404, b"{}")
            return
        call = orjson.loads(request.body)
        key = call["args"]["key"]
        self._book.write(Effect(key, name, call["tool_call_id"], clock.monotonic()))
        await asyncio.sleep(_seconds(key))
        Reply(connection).whole(200, result(key).encode(), {"content-type": "text/plain"})


def _seconds(key: str) -> float:
    mark = zlib.crc32(key.encode())
    return 0 if mark % SLOW_ONE_IN else SLOW_SECONDS[mark // SLOW_ONE_IN % len(SLOW_SECONDS)]


@contextmanager
def opened(folder: Path) -> Iterator[Answer]:
    """Open its book, and give what answers calls."""
    with Book(folder / "effects.jsonl") as book:
        yield Tools(book).answer


if __name__ == "__main__":
    doubling.run("python -m tests.torture.tools", __doc__, opened)
