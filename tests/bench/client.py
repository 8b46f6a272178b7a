"""The load, in a process of its own: one job as a line of JSON on stdin, its outcome as a line on stdout.

The bench measures the servers' CPU from outside; here is only what a client sees: times, bytes, completeness.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson
import uvloop

from app import clock
from tests.bench.figures import Spread
from tests.bench.sinks import Frames, Stamps, Tally
from tests.bench.wire import Connection, connect

STREAM = {"accept": "text/event-stream"}
ASYNC = {"prefer": "respond-async"}
MOST_SAMPLED = 64  # streams whose every token is looked at; of the others only the ends

Json = dict[str, Any]


class Client:
    """Does one job after another; readers stay open from job to job."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._readers: list[tuple[Connection, Frames]] = []
        self.jobs: dict[str, Callable[..., Awaitable[Json]]] = {
            "create": self.create,
            "turns": self.turns,
            "fetch": self.fetch,
            "open_readers": self.open_readers,
            "read_turn": self.read_turn,
            "leave": self.leave,
            "interrupt": self.interrupt,
        }

    async def create(self, base_url: str, count: int, body: Json, key: str | None = None) -> Json:
        """Create sessions, 16 at a time."""
        ids: list[str] = []
        left = iter(range(count))

        async def worker() -> None:
            connection = await connect(base_url)
            for _ in left:
                answer = await connection.request("POST", "/v1/sessions", body=body, headers=_shown(key))
                ids.append(answer.json()["session_id"])
            connection.close()

        await _together(worker, 16)
        return {"ids": ids}

    async def turns(
        self,
        base_url: str,
        requests: list[tuple[str, Json]],
        concurrency: int,
        ramp_seconds: float = 0,
        key: str | None = None,
    ) -> Json:
        """Ask for answers as streams, so many at once, and read each to its end.

        Returns:
            `elapsed` seconds from the first request to the last end, `failed`, and spreads in milliseconds: `first` token and
            `lateness` of the stamped tokens that left while all the streams were live.
        """
        left, tallies, tokens = iter(requests), list[Tally](), list[tuple[float, float]]()
        ends: list[float] = []
        sampled_every = max(1, concurrency // MOST_SAMPLED)

        async def worker(number: int, connection: Connection) -> None:
            await asyncio.sleep(ramp_seconds * number / concurrency)
            for path, body in left:
                tally = Stamps(tokens) if number % sampled_every == 0 else Tally()
                tallies.append(tally)
                await connection.request("POST", path, body=body, headers=STREAM | _shown(key), sink=tally)
                ends.append(clock.monotonic())
                if not connection.is_open:
                    connection = await connect(base_url)

        connections = [await connect(base_url) for _ in range(concurrency)]
        began = clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number, connection in enumerate(connections):
                tasks.create_task(worker(number, connection))
        elapsed = clock.monotonic() - began
        for connection in connections:
            connection.close()
        lateness = [late for left_at, late in tokens if began + ramp_seconds <= left_at <= min(ends)]
        first = [tally.first_at - tally.asked_at for tally in tallies if tally.first_at is not None]
        return {
            "elapsed": elapsed,
            "failed": sum(not tally.is_complete for tally in tallies),
            "first": _milliseconds(first),
            "lateness": _milliseconds(lateness),
        }

    async def fetch(
        self, base_url: str, method: str, path: str, count: int, body: Json | None = None, headers: dict[str, str] | None = None
    ) -> Json:
        """Ask the same thing again and again on one connection.

        Returns:
            `took`: spread in milliseconds; `events` and `bytes` of the last answer, `last` its JSON where it is some.
        """
        connection = await connect(base_url)
        took: list[float] = []
        content, is_json = b"", False
        for _ in range(count):
            began = clock.monotonic()
            answer = await connection.request(method, path, body=body, headers=headers)
            took.append(clock.monotonic() - began)
            assert answer.status < 300, answer
            content = answer.body
            is_json = answer.headers.get(b"content-type", b"").startswith(b"application/json")
        connection.close()
        return {
            "took": _milliseconds(took),
            "bytes": len(content),
            "events": content.count(b"\ndata: "),
            "last": orjson.loads(content) if is_json else None,
        }

    async def open_readers(self, base_url: str, path: str, count: int) -> Json:
        """Open readers of one log and return when each has its head."""
        for _ in range(count):
            connection, frames = await connect(base_url), Frames()
            self._readers.append((connection, frames))
            self._tasks.create_task(connection.request("GET", path, headers=STREAM, sink=frames))
        for connection, _ in self._readers:
            await connection.head_came.wait()
        return {}

    async def read_turn(self, base_url: str, path: str, body: Json) -> Json:
        """Start a turn and return when it is over and every reader has its end; the readers leave.

        Returns:
            `events` delivered to all readers together.
        """
        connection, own = await connect(base_url), Frames()
        await connection.request("POST", path, body=body, headers=STREAM, sink=own)
        while not all(frames.is_over for _, frames in self._readers):
            await asyncio.sleep(0.005)
        delivered = sum(frames.events for _, frames in self._readers)
        await self.leave()
        connection.close()
        return {"events": delivered, "own": own.events}

    async def leave(self) -> Json:
        """Close every reader."""
        for reader, _ in self._readers:
            reader.close()
        self._readers.clear()
        return {}

    async def interrupt(self, base_url: str, start: str, stop: str | None, body: Json) -> Json:
        """Start an endless answer and, once it speaks, stop it: by a POST to `stop`, or by going away where that is None.

        Returns:
            `asked_at` on the machine's monotonic clock, `answered` milliseconds after that.
        """
        speaking, other, tally = await connect(base_url), await connect(base_url), Tally()
        streaming = self._tasks.create_task(speaking.request("POST", start, body=body, headers=STREAM, sink=tally))
        while tally.first_at is None:
            await asyncio.sleep(0.005)
        asked_at = clock.monotonic()
        if stop is None:
            speaking.close()
        else:
            (await other.request("POST", stop)).json()
        answered = clock.monotonic() - asked_at
        await streaming
        speaking.close()
        other.close()
        return {"asked_at": asked_at, "answered": answered * 1000}


async def _together(worker: Callable[[], Awaitable[None]], count: int) -> None:
    await asyncio.gather(*(worker() for _ in range(count)))


def _shown(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


def _milliseconds(seconds: list[float]) -> Json:
    return asdict(Spread.of([second * 1000 for second in seconds]))


async def _work() -> None:
    async with asyncio.TaskGroup() as tasks:
        client = Client(tasks)
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            job = orjson.loads(line)
            outcome = await client.jobs[job.pop("job")](**job)
            sys.stdout.buffer.write(orjson.dumps(outcome) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_work())
