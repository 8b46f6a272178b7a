"""Faults of servers: killed, stopped in order, frozen, with a wrong clock, drained."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2

from app import clock
from tests.torture.fleet import Fleet
from tests.torture.processes import NotOurs
from tests.torture.strikes import Evidence

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
WRONG_SECONDS = 7_200
NEAR_SECONDS = 60  # of what the wrong clock should say
ANSWER_SECONDS = 5.0
HEAL_SECONDS = 120.0
PAUSE_SECONDS = 0.3


@asynccontextmanager
async def kill(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Kill a server as `kill -9` does; start it again after a while."""
    member = fleet.members[target]
    status = await member.kill()
    try:
        yield Evidence(status == -signal.SIGKILL, {"exit_status": status})
    finally:
        await member.start()


@asynccontextmanager
async def restart(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Stop a server in order and start it again, as a rolling restart does."""
    member, began = fleet.members[target], clock.monotonic()
    status = await member.terminate()
    seconds = round(clock.monotonic() - began, 3)
    try:
        yield Evidence(status != -signal.SIGKILL, {"exit_status": status, "seconds": seconds})
    finally:
        await member.start()


@asynccontextmanager
async def freeze(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Freeze a server, and let it wake up as if nothing had been."""
    child = fleet.members[target].child
    child.pause()
    evidence = Evidence()
    try:
        yield evidence
        evidence.facts["state"] = child.mark.state
        evidence.has_bitten = child.mark.state == "T"
    finally:
        child.resume()


@asynccontextmanager
async def wrong_clock(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Have a node run with a clock that is two hours off; its monotonic one is right."""
    member, off = fleet.members[target], WRONG_SECONDS if chance < 0.5 else -WRONG_SECONDS
    await member.terminate()
    try:
        await member.start({"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{off:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
        evidence = Evidence()
        yield evidence
        seen = await _clock_of(member.address) - clock.now().timestamp()
        evidence.facts["seconds_off"] = round(seen)
        evidence.has_bitten = abs(seen - off) < NEAR_SECONDS
    finally:
        await member.close()
        await member.start()


@asynccontextmanager
async def drain(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Have a node give its turns and readers to others, as before a deploy, and have it work again."""
    member = fleet.members[target]
    async with httpx2.AsyncClient(base_url=f"http://{member.address}", trust_env=False, timeout=ANSWER_SECONDS) as asked:
        path = f"/v1/nodes/{(await _view_of(asked, member.child.pid))['instance_id']}"
        (await asked.post(f"{path}/drain")).raise_for_status()
        evidence = Evidence()
        try:
            yield evidence
            seen = await _view_of(asked, member.child.pid)
            evidence.facts |= {"status": seen["status"], "live_turns": seen["live_turns"]}
            evidence.has_bitten = seen["status"] == "draining"
        finally:
            await _undrain(asked, path)


async def _view_of(asked: httpx2.AsyncClient, pid: int) -> Mapping[str, Any]:
    """Read how a node is seen by all.

    Raises:
        NotOurs: no process of that id is known.
    """
    found = (await asked.get("/v1/nodes")).raise_for_status().json()["nodes"]
    for view in found:
        if view["pid"] == pid:
            return dict(view)
    raise NotOurs(f"no node says that it is process {pid}")


async def _undrain(asked: httpx2.AsyncClient, path: str) -> None:
    """Ask until it is granted, whatever else is broken meanwhile."""
    async with asyncio.timeout(HEAL_SECONDS):
        while True:
            with suppress(httpx2.HTTPError):
                if (await asked.post(f"{path}/undrain")).is_success:
                    return
            await asyncio.sleep(PAUSE_SECONDS)


async def _clock_of(address: str) -> float:
    """Read a server's clock off its answer's `date`."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
    date = next(line for line in head.splitlines() if line.lower().startswith("date:"))
    return parsedate_to_datetime(date.partition(":")[2].strip()).timestamp()
