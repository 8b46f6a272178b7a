"""A server as its users have it: a process of its own, spoken to over HTTP."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson

from tests import nursery
from tests.nursery import Child

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 30
STOP_SECONDS = 10
LEAVE = {"Connection": "close"}  # so that the connection does not count among those that a test opens


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE frame: `id` is None where it has none, `data` is parsed."""

    id: int | None
    event: str
    data: Any


@dataclass
class Service:
    """A running server. `client` speaks to it; the log is at `log`. A worker has no address."""

    process: Child | asyncio.subprocess.Process
    base_url: str
    log: Path
    client: httpx2.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        limits = httpx2.Limits(max_connections=500)
        self.client = httpx2.AsyncClient(base_url=self.base_url, timeout=30, limits=limits, trust_env=False)

    @classmethod
    @asynccontextmanager
    async def started(cls, folder: Path, settings: Mapping[str, str], command: str = "serve") -> AsyncIterator["Service"]:
        """Start `suricate serve`, or `worker`, with settings and wait until it works; killed at the end of the block."""
        number = len(list(folder.glob("suricate-*.log")))
        log = folder / f"suricate-{number}.log"
        log.touch()  # so that one that is started at the same time has another
        env = {"PATH": os.defpath, "HOME": str(folder), "SURICATE_PORT": "0"} | dict(settings)
        begin = nursery.sent_out if "PYTHONPATH" in env else nursery.born  # code of another version is not loaded there
        process = await begin([command], env, cwd=folder, log=log)
        try:
            service = cls(process, await _address(process, log), log)
            await service.ready()
            yield service
            await service.client.aclose()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def ready(self) -> None:
        """Wait until it would take traffic; a worker has no way to say so."""
        async with asyncio.timeout(START_SECONDS):
            while self.base_url and (await self.client.get("/readyz", headers=LEAVE)).status_code != 200:
                await asyncio.sleep(0.002)

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """End it in order, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def create(self, prompt: str | list[dict[str, str]] | None = None, **fields: Any) -> dict[str, Any]:
        """Create a session by the double's provider, asynchronously where there is a prompt, and return the answer."""
        body = {"model": "double", "provider": "openai_compatible"} | fields
        if prompt is not None:
            body["prompt"] = prompt
        answer = await self.client.post("/v1/sessions", json=body, headers={"Prefer": "respond-async"})
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    async def frames(
        self, path: str, *, after: int | None = None, until: Sequence[str] = (), method: str = "GET", **request: Any
    ) -> list[Frame]:
        """Read a stream until it ends or shows one of the types in `until`."""
        headers = {"Accept": "text/event-stream"} | request.pop("headers", {})
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        found: list[Frame] = []
        async with self.client.stream(method, path, headers=headers, **request) as answer:
            assert answer.status_code in {200, 201}, (await answer.aread()).decode()
            async for frame in read_frames(answer):
                found.append(frame)
                if frame.event in until:
                    break
        return found

    async def log_of(self, session_id: str) -> list[dict[str, Any]]:
        """Read a session's whole log as JSON pages."""
        events: list[dict[str, Any]] = []
        while True:
            answer = await self.client.get(
                f"/v1/sessions/{session_id}/events",
                params={"after": events[-1]["seq"] if events else 0, "limit": 1000},
                headers={"Accept": "application/json"},
            )
            page = answer.json()["events"]
            if not page:
                return events
            events += page

    async def ended(self, session_id: str, turn_id: str, seconds: float = 30) -> dict[str, Any]:
        """Wait for a turn's end by its stream, and return its view."""
        async with asyncio.timeout(seconds):
            await self.frames(f"/v1/sessions/{session_id}/turns/{turn_id}/events")
        view: dict[str, Any] = (await self.client.get(f"/v1/sessions/{session_id}/turns/{turn_id}")).json()
        return view


async def read_frames(answer: httpx2.Response) -> AsyncIterator[Frame]:
    """Read SSE frames off an answer; comments and `retry` are passed over."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            number = fields.get("id")
            yield Frame(None if number is None else int(number), fields.get("event", ""), orjson.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


async def _address(process: Child | asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        async for line in process.stdout:
            match = re.search(rb"listens on (\S+)|runs turns", line)
            if match:
                return (match[1] or b"").decode()
    raise AssertionError(f"the server did not start: {log.read_text()}")
