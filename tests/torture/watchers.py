"""The readers of a run: streams of random sessions at random nodes, left at random and taken up again elsewhere.

python -m tests.torture.watchers --folder F --node n1=http://… --seed S --watchers W
"""

import argparse
import asyncio
import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import orjson
import uvloop

from app import clock
from tests.bench.wire import Answer, Connection, connect
from tests.provider_double.server import stdin_closes
from tests.torture import outside
from tests.torture.acts import STREAM
from tests.torture.frames import Frames, checksum
from tests.torture.records import Book, Shown

CONNECT_SECONDS = 3.0
LIST_SECONDS = 10.0
FRAMES_A_LINE = 2_000
STAYS_SECONDS = (0.5, 12.0)
VISITS = 5  # connections to one session, at most, before another is chosen
REMEMBERED = 60  # sessions whose cursor is kept
FROM_THE_START = 0.3
PAUSE_SECONDS = 0.3


@dataclass
class Reading:
    """One connection's frames, written down as they pile up."""

    book: Book
    watcher: str
    session_id: str
    node: str
    connection: int
    after: int
    frames: list[tuple[int, int]] = field(default_factory=list)
    cursor: int = 0

    def take(self, seq: int, _kind: bytes, envelope: bytes) -> None:
        """Take a frame."""
        self.frames.append((seq, checksum(envelope)))
        self.cursor = seq
        if len(self.frames) >= FRAMES_A_LINE:
            self.write("more")

    def write(self, end: str) -> None:
        """Write down what has come since the last time, and how it goes on."""
        shown = Shown(
            self.watcher, self.session_id, self.node, self.connection, self.after, self.frames, end, clock.monotonic()
        )  # fmt: skip
        self.book.write(shown)
        self.frames = []


class Watcher:
    """One of them."""

    def __init__(self, number: int, seed: int, nodes: Mapping[str, str], book: Book) -> None:
        self._name = f"w{number}"
        self._rng = random.Random(f"{seed} {number}")
        self._nodes = nodes
        self._book = book
        self._connections = 0
        self._cursors: dict[str, int] = {}

    async def work(self) -> None:
        """Watch until cancelled."""
        while True:
            session_id = await self._choose()
            if session_id is None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            after = 0 if self._rng.random() < FROM_THE_START else self._cursors.pop(session_id, 0)
            for _ in range(self._rng.randint(1, VISITS)):
                after, may_go_on = await self._visit(session_id, after)
                if not may_go_on:
                    break
            self._remember(session_id, after)

    async def _choose(self) -> str | None:
        """Choose a session that changed lately, or one that was left before."""
        if self._cursors and self._rng.random() < 0.3:
            return self._rng.choice(list(self._cursors))
        node = self._rng.choice(list(self._nodes))
        answer = await self._fetch(self._nodes[node], "/v1/sessions?limit=15&archived=any")
        if answer.status != 200 or not answer.is_complete:
            return None
        found = orjson.loads(answer.body)["sessions"]
        return str(self._rng.choice(found)["session_id"]) if found else None

    async def _fetch(self, base_url: str, path: str) -> Answer:
        try:
            async with asyncio.timeout(LIST_SECONDS):
                connection = await connect(base_url)
                answer = await connection.request("GET", path)
        except (OSError, TimeoutError):
            return Answer()
        connection.close()
        return answer

    async def _visit(self, session_id: str, after: int) -> tuple[int, bool]:
        """Read for a while at some node; return the cursor and whether to come back."""
        node = self._rng.choice(list(self._nodes))
        self._connections += 1
        reading = Reading(self._book, self._name, session_id, node, self._connections, after, cursor=after)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await connect(self._nodes[node])
        except (OSError, TimeoutError):
            await asyncio.sleep(PAUSE_SECONDS)
            return after, True
        end = await self._read(connection, reading)
        reading.write(end)
        await asyncio.sleep(0 if end == "left" else PAUSE_SECONDS)
        return reading.cursor, end in {"left", "lost", "draining", "ended"}

    async def _read(self, connection: Connection, reading: Reading) -> str:
        """Read until the stream ends or it is time to leave; return how it ended."""
        frames, leaving = Frames(reading.take), asyncio.Event()

        def leave() -> None:
            leaving.set()
            connection.close()

        timer = asyncio.get_running_loop().call_later(self._rng.uniform(*STAYS_SECONDS), leave)
        path, headers = f"/v1/sessions/{reading.session_id}/events", STREAM | {"last-event-id": str(reading.after)}
        try:
            answer = await connection.request("GET", path, headers=headers, sink=frames)
        finally:
            timer.cancel()
            connection.close()
        return _end(answer, frames, has_left=leaving.is_set())

    def _remember(self, session_id: str, cursor: int) -> None:
        self._cursors[session_id] = cursor
        if len(self._cursors) > REMEMBERED:
            del self._cursors[next(iter(self._cursors))]


def _end(answer: Answer, frames: Frames, *, has_left: bool) -> str:
    if answer.status not in {0, 200}:
        return str(answer.status)
    if "stream_reset" in frames.said:
        return "reset"
    if frames.is_malformed:
        return "malformed"
    if not answer.is_complete:
        return "left" if has_left else "lost"
    return "draining" if "stream_draining" in frames.said else "ended"


async def _run(given: argparse.Namespace) -> None:
    with ExitStack() as stack:
        async with asyncio.TaskGroup() as tasks:
            working = []
            for number in range(given.watchers):
                book = stack.enter_context(Book(given.folder / f"shown-w{number}.jsonl"))
                working.append(tasks.create_task(Watcher(number, given.seed, dict(given.node), book).work()))
            await stdin_closes()
            for task in working:
                task.cancel()


def main() -> None:
    """Watch until stdin closes."""
    parser = outside.parser("watchers", __doc__)
    parser.add_argument("--seed", type=int, default=1, help="what is drawn follows from it")
    parser.add_argument("--watchers", type=int, default=16, help="streams at once")
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
