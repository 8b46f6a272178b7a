"""A program that speaks MCP over its stdin and stdout, one JSON message a line.

The SDK's own transport gathers a line without limit; this one ends the connection when a line is too long. The program leads a
process group of its own, and the whole group is gone when the block is left.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

MOST_LINE_BYTES: Final = 4 * 1024 * 1024
GRACE_SECONDS: Final = 1.0  # after stdin was closed, and again after SIGTERM
REAP_SECONDS: Final = 2.0  # after SIGKILL

Incoming: TypeAlias = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing: TypeAlias = MemoryObjectSendStream[SessionMessage]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Program:
    """What to start; only the server's own configuration names programs.

    Args:
        command: the program, then its arguments.
        environment: added to PATH, HOME and the like; nothing else of this process's environment is passed on.
        folder: where it runs; None is where this process does.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None


@asynccontextmanager
async def started(program: Program, *, on_end: Callable[[], None]) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """Start a program and give the two streams of its messages; leaving the block ends it.

    Args:
        on_end: called when it says nothing more, because it ended or broke the protocol.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *program.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=get_default_environment() | dict(program.environment),
        cwd=program.folder,
        start_new_session=True,
        limit=MOST_LINE_BYTES,
    )
    said, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, asked = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(_listen(process, said, on_end))
            telling = tasks.create_task(_tell(process, asked))
            try:
                yield incoming, outgoing
            finally:
                listening.cancel()
                telling.cancel()
    finally:
        for stream in (said, incoming, outgoing, asked):
            stream.close()
        await _end(process)


async def _listen(
    process: asyncio.subprocess.Process, said: MemoryObjectSendStream[SessionMessage | Exception], on_end: Callable[[], None]
) -> None:
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            with suppress(ValueError):  # what is no message is not meant for us
                await said.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
    except ValueError:
        _signal(process, signal.SIGKILL)  # it would wait for its reader, and for nothing else
        log.warning("mcp_line_too_long", program=process.pid, limit_bytes=MOST_LINE_BYTES)
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    finally:
        on_end()
        said.close()


async def _tell(process: asyncio.subprocess.Process, asked: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # that it ended is noticed by whoever listens
        async for message in asked:
            process.stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the program to end, then make it, with all that it started."""
    assert process.stdin is not None
    try:
        process.stdin.close()
        if not await _has_ended(process, GRACE_SECONDS):
            _signal(process, signal.SIGTERM)
            await _has_ended(process, GRACE_SECONDS)
    finally:
        _signal(process, signal.SIGKILL)
    await _has_ended(process, REAP_SECONDS)


async def _has_ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)
    return process.returncode is not None


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
