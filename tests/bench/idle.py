"""Part l: streams on which nothing happens."""

import asyncio

import psutil

from tests.bench.ground import SESSION, SURICATE, Ground
from tests.bench.table import Row

STREAMS, SESSIONS = 10_000, 100
IDLE_SECONDS = 30  # two comments on each stream
LEAVE_SECONDS = 20


async def idle_streams(ground: Ground, *, quick: bool) -> list[Row]:
    """Part l."""
    streams, sessions, seconds = (500, 5, 2) if quick else (STREAMS, SESSIONS, IDLE_SECONDS)
    server = await ground.server(SURICATE)
    process = psutil.Process(server.process.pid)
    created = await ground.load("create", base_url=server.base_url, count=sessions, body=SESSION)
    files, memory = process.num_fds(), server.rss_bytes
    for session_id in created["ids"]:
        path = f"/v1/sessions/{session_id}/events"
        await ground.load("open_readers", base_url=server.base_url, path=path, count=streams // sessions)
    before = ground.cpu(server)
    await asyncio.sleep(seconds)
    cpu = ground.cpu(server).since(before).server / seconds
    held, grown = process.num_fds() - files, server.rss_bytes - memory
    left = await _left_behind(ground, process, files)
    what = f"{streams:,} streams on which nothing happens"
    return [
        Row("l", "l-memory", f"{what}: memory a stream", "KiB", grown / streams / 1024),
        Row("l", "l-files", "the same: open files a stream", "number", held / streams),
        Row("l", "l-cpu", "the same: server's CPU, a comment each 15 s", "% of a core", cpu * 100),
        Row("l", "l-left", "the same: open files that are left once all have gone", "number", left),
    ]


async def _left_behind(ground: Ground, process: psutil.Process, before: int) -> int:
    await ground.load("leave")
    for _ in range(LEAVE_SECONDS):
        if process.num_fds() <= before:
            break
        await asyncio.sleep(1)
    return max(int(process.num_fds()) - before, 0)
