"""The network between the processes of a run, which can be broken edge by edge: `python -m tests.torture.proxies`.

An edge is a TCP port on loopback that leads to an upstream (`host:port`, or the path of a Unix socket). `up` is the way from
who connects, `down` the way back. Objects on standard input say what to do, one a line, and each is answered:

    {"do": "make", "edge": "n1.postgres", "to": …}               answers with its "port"
    {"do": "cut", "edge": …}                                     resets every connection, each new one too
    {"do": "hold", "edge": …, "ways": ["up", "down"]}            swallows what comes on these ways, ends too; stays connected
    {"do": "slow", "edge": …, "latency_seconds": …, "bytes_per_second": …}
    {"do": "count", "edge": …}                                   changes nothing
    {"do": "open", "edge": …, "is_late": …}                      passes all; what was held arrives late, or is reset

The answer counts what was done to the edge since it was broken last. What is held or slowed is bounded: past
the bound the sender is not read any more, as on a real network.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import orjson
import uvloop

from tests.torture import lines

HELD_BYTES = 1024 * 1024  # of one way of one connection
CONNECT_SECONDS = 10
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST

Way: TypeAlias = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Slow:
    """How slow an edge is."""

    latency_seconds: float
    bytes_per_second: float


class Edge:
    """One port and all connections through it."""

    def __init__(self, to: str, tasks: asyncio.TaskGroup) -> None:
        self.to = to
        self.counts: Counter[str] = Counter()
        self.is_cut = False
        self.held: frozenset[Way] = frozenset()
        self.slow: Slow | None = None
        self.ends: set[End] = set()
        self._tasks = tasks

    async def listen(self) -> asyncio.Server:
        """Take connections from now on."""
        return await asyncio.get_running_loop().create_server(lambda: End(self, "up"), "127.0.0.1", 0, backlog=1024)

    def cut(self) -> None:
        """Reset every connection, and each that comes."""
        self.is_cut = True
        self.counts["cut"] += len(self.ends) // 2
        _reset(self.ends)

    def open(self, *, is_late: bool) -> None:
        """Be as before."""
        self.is_cut, self.held, self.slow = False, frozenset(), None
        if not is_late:
            _reset([end for end in self.ends if end.is_waiting])
        for end in list(self.ends):
            end.flush()

    def connect(self, end: "End") -> None:
        """Connect who has come with the upstream."""
        self._tasks.create_task(self._connect(end))

    async def _connect(self, near: "End") -> None:
        loop, far = asyncio.get_running_loop(), End(self, "down")
        far.other, near.other = near, far
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self.to.startswith("/"):
                    await loop.create_unix_connection(lambda: far, self.to)
                else:
                    host, _, port = self.to.rpartition(":")
                    await loop.create_connection(lambda: far, host, int(port))
        except OSError:  # a TimeoutError is one
            self.counts["unreachable"] += 1
            near.reset()


class End(asyncio.Protocol):
    """One end of a connection through an edge, and what came from there and is not passed on yet.

    Args:
        way: on which what comes from here goes.
    """

    def __init__(self, edge: Edge, way: Way) -> None:
        self.other: End | None = None
        self._edge = edge
        self._way = way
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes | None]] = deque()  # when each is due; None is the end
        self._waiting_bytes = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pauses: set[str] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def is_waiting(self) -> bool:
        """Whether something that came from here is not passed on yet."""
        return bool(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse it, or connect it with the other side."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone
        if self._edge.is_cut:
            self._edge.counts["refused"] += 1
            self.reset()
            return
        self._edge.ends.add(self)
        if self._way == "up":
            self._edge.connect(self)
        elif self.other is not None:
            self.other.flush()

    def data_received(self, data: bytes) -> None:
        """Pass it on, now or later."""
        edge = self._edge
        if self._waiting or edge.slow or self._way in edge.held or not self._can_pass():
            self._keep(data)
            self.flush()
        else:
            self._pass(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Tell the other end, behind all that came before."""
        self._edge.ends.discard(self)
        self._waiting.append((self._due, None))
        self.flush()

    def pause_writing(self) -> None:
        """Read no more from the other end than goes out here."""
        if self.other is not None:
            self.other.pause("full")

    def resume_writing(self) -> None:
        """Read on."""
        if self.other is not None:
            self.other.resume("full")

    def pause(self, why: str) -> None:
        """Read no more from here."""
        if self._transport is not None and not self._pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses.add(why)

    def resume(self, why: str) -> None:
        """Read on, where nothing else speaks against it."""
        was_paused = why in self._pauses
        self._pauses.discard(why)
        if self._transport is not None and was_paused and not self._pauses and not self._transport.is_closing():
            self._transport.resume_reading()

    def reset(self) -> None:
        """End it as a broken network does."""
        self._waiting.clear()
        if self._transport is not None and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    def flush(self) -> None:
        """Pass on what is due."""
        while self._waiting and self._way not in self._edge.held and self._can_pass():
            due, data = self._waiting[0]
            if self._edge.slow and due > self._loop.time():
                self._wake_at(due)
                return
            self._waiting.popleft()
            self._pass(data)
        if self._waiting_bytes < HELD_BYTES:
            self.resume("waiting")

    def _keep(self, data: bytes) -> None:
        slow = self._edge.slow
        if self._way in self._edge.held:
            self._edge.counts["held_bytes"] += len(data)
        elif slow:
            self._edge.counts["slow_bytes"] += len(data)
            self._due = max(self._due, self._loop.time() + slow.latency_seconds) + len(data) / slow.bytes_per_second
        self._waiting.append((self._due, data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= HELD_BYTES:
            self.pause("waiting")

    def _can_pass(self) -> bool:
        return self.other is not None and self.other._transport is not None

    def _pass(self, data: bytes | None) -> None:
        assert self.other is not None
        assert self.other._transport is not None
        if data is None:
            self.other._transport.close()
            return
        self._waiting_bytes = max(0, self._waiting_bytes - len(data))
        if not self.other._transport.is_closing():
            self.other._transport.write(data)

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(moment, self.flush)


class Proxies:
    """All edges by their names."""

    def __init__(self, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        self._tasks = tasks
        self._stack = stack
        self._edges: dict[str, Edge] = {}

    async def obey(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what an object says, and answer it."""
        if told["do"] == "make":
            return {"port": await self._make(told["edge"], told["to"])}
        edge = self._edges[told["edge"]]
        if told["do"] not in {"open", "count"}:
            edge.counts = Counter()
        match told["do"]:
            case "cut":
                edge.cut()
            case "hold":
                edge.held = frozenset(told["ways"])
            case "slow":
                edge.slow = Slow(told["latency_seconds"], told["bytes_per_second"])
            case "count":
                pass
            case "open":
                edge.open(is_late=told["is_late"])
            case other:
                raise ValueError(f"nothing to do for {other!r}")
        return edge.counts

    async def _make(self, name: str, to: str) -> int:
        edge = self._edges[name] = Edge(to, self._tasks)
        server = await edge.listen()
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])


def _reset(ends: Iterable[End]) -> None:
    for end in list(ends):
        if end.other is not None:
            end.other.reset()
        end.reset()


async def _run() -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks, aclosing(lines.heard()) as heard:
        proxies = Proxies(tasks, stack)
        async for line in heard:
            lines.say(**await proxies.obey(orjson.loads(line)))


def main() -> None:
    """Be the network until standard input closes."""
    uvloop.run(_run())


if __name__ == "__main__":
    main()
