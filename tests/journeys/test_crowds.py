"""Crowds of readers: that come back all at once, and that never read. Neither leaves anything behind, nor costs the others."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import psutil
import pytest

from tests.api import raw
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

STORM, STORMS = 120, 3
SILENT = 30
MOST_BYTES_A_READER = 5 * 1024 * 1024  # two pages of the log, and what Python holds around them
LIMIT_SECONDS = 12


@pytest.fixture
async def service(serve: Callable[..., Awaitable[Service]], double: ProviderDouble) -> Service:
    """A server that soon cuts off who does not read."""
    return await serve(SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url, SURICATE_SSE_SEND_TIMEOUT_SECONDS="0.5")


async def test_storm_of_reconnects_leaves_nothing_behind_and_loses_nothing(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.endless(rate=200)])
    session_id = (await service.create("Hello"))["session_id"]
    path = f"/v1/sessions/{session_id}/events"
    follower = Follower(session_id)

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(follower.follow(service, until=["turn_interrupted"]))
        for _ in range(STORMS):
            await asyncio.gather(*(_glimpse(service, path) for _ in range(STORM)))
        assert (await service.client.post(f"/v1/sessions/{session_id}/interrupt")).status_code == 200

    await _alone(service)
    follower.assert_saw_everything(await service.log_of(session_id))
    assert "Traceback" not in service.log.read_text()


async def test_readers_that_never_read_are_cut_off_and_cost_no_memory(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text(*["word " * 5_000] * 40), scripts.finish()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}/events"
    await service.ended(created["session_id"], created["turn"]["turn_id"])
    process = psutil.Process(service.process.pid)
    memory, grown = process.memory_info().rss, 0

    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT_SECONDS):
        for _ in range(SILENT):
            silent = stack.enter_context(socket.socket())
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect(_address(service))
            silent.sendall(raw.request("GET", path, b"", b"accept: text/event-stream"))
        while service.log.read_text().count("reader_cut_off") < SILENT:
            grown = max(grown, process.memory_info().rss - memory)
            await asyncio.sleep(0.05)
        await _alone(service)

    assert grown < SILENT * MOST_BYTES_A_READER
    assert len(await service.frames(f"{path}?follow=false")) == len(await service.log_of(created["session_id"]))


async def test_reader_that_is_slow_gets_everything(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text(*["word " * 5_000] * 40), scripts.finish()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await service.ended(created["session_id"], created["turn"]["turn_id"])
    log = await service.log_of(created["session_id"])

    reader, writer = await asyncio.open_connection(*_address(service), limit=4096)
    writer.write(raw.request("GET", f"{path}/events?follow=false", b"", b"accept: text/event-stream", b"connection: close"))
    seen = b""
    async with asyncio.timeout(LIMIT_SECONDS):
        while piece := await reader.read(65_536):
            seen += piece
            await asyncio.sleep(0.02)
    writer.close()

    assert seen.count(b"\ndata: ") == len(log)
    assert seen.endswith(b"0\r\n\r\n")
    assert "reader_cut_off" not in service.log.read_text()


async def _glimpse(service: Service, path: str) -> None:
    """Ask for a stream from somewhere, look at what comes first, and break the connection."""
    reader, writer = await asyncio.open_connection(*_address(service))
    writer.write(raw.request("GET", f"{path}?after={random.randint(0, 50)}", b"", b"accept: text/event-stream"))
    if random.random() < 0.8:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()


async def _alone(service: Service, *, most: int = 4) -> None:
    """Wait until the server has no stream, and no connections but those that its client keeps."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while "\nsuricate_streams 0.0" not in (await service.client.get("/metrics")).text or _clients(service) > most:
            await asyncio.sleep(0.05)


def _clients(service: Service) -> int:
    """Count the connections that a server holds."""
    _, port = _address(service)
    held = psutil.Process(service.process.pid).net_connections("tcp")
    return sum(one.laddr.port == port and one.status != psutil.CONN_LISTEN for one in held)


def _address(service: Service) -> tuple[str, int]:
    host, _, port = service.base_url.removeprefix("http://").partition(":")
    return host, int(port)
