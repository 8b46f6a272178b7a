"""How a process of a run is spoken to: lines in, JSON lines out; it ends when nobody can speak to it any more."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

import orjson

LINE_BYTES = 16 * 1024 * 1024


async def heard() -> AsyncGenerator[str, None]:
    """Yield what standard input says, line by line, until it closes."""
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def say(**told: Any) -> None:
    """Say something to who listens."""
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    sys.stdout.buffer.flush()
