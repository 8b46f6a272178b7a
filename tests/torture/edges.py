"""The network between the processes of a run (`proxies`), from the side of those who break it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from tests.torture.processes import Child, kept

ANSWER_SECONDS = 10.0
BOTH = ("up", "down")

Counts: TypeAlias = Mapping[str, int]
"""`cut` and `refused` connections, `held_bytes`, `slow_bytes`, connections to an `unreachable` upstream."""


class Edges:
    """Every edge by its name."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.names: list[str] = []

    async def make(self, name: str, to: str) -> str:
        """Make one to an upstream (`host:port` or a Unix socket's path), and return its address, `host:port`."""
        self.names.append(name)
        return f"127.0.0.1:{(await self._tell('make', name, to=to))['port']}"

    async def cut(self, name: str) -> None:
        """Reset its connections and refuse new ones."""
        await self._tell("cut", name)

    async def hold(self, name: str, ways: Sequence[str] = BOTH) -> None:
        """Swallow what comes on these ways: `up` from who connects, `down` to them."""
        await self._tell("hold", name, ways=ways)

    async def slow(self, name: str, latency_seconds: float, bytes_per_second: float) -> None:
        """Let it crawl."""
        await self._tell("slow", name, latency_seconds=latency_seconds, bytes_per_second=bytes_per_second)

    async def count(self, name: str) -> Counts:
        """Return what was done to it since it was broken."""
        return await self._tell("count", name)

    async def open(self, name: str, *, is_late: bool = True) -> Counts:
        """Have it be as before, and return what was done to it meanwhile.

        Args:
            is_late: what was held arrives now; else its connections are reset.
        """
        return await self._tell("open", name, is_late=is_late)

    async def _tell(self, what: str, name: str, **more: object) -> Counts:
        counts: Counts = await self._child.ask({"do": what, "edge": name, **more}, ANSWER_SECONDS)
        return counts


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Edges]:
    """Have the network while the block runs."""
    child = await Child.start("proxies", "-m", "tests.torture.proxies", folder=folder, is_heard=True)
    async with kept(child):
        yield Edges(child)
