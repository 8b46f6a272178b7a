"""A server of a run: a process on a fixed port that is started again as it was, however it ended."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.torture.processes import Child, NotOurs

START_SECONDS = 120.0  # with tries again: a node does not start without its database
PAUSE_SECONDS = 0.5  # between two of them
POLL_SECONDS = 0.05


class Member:
    """One server.

    Args:
        address: where it listens, `host:port`; empty where it does not.
        arguments: Python's.
        ready_words: what it says once it is ready.

    Attributes:
        is_wanted: whether it has come up and was not told to end since.
        failed_starts: how often it has ended instead of coming up.
    """

    def __init__(self, name: str, address: str, arguments: Sequence[str], environment: Mapping[str, str], *,
                 folder: Path, ready_words: str) -> None:  # fmt: skip
        self.name = name
        self.address = address
        self.is_wanted = False
        self.failed_starts = 0
        self._arguments = arguments
        self._environment = environment
        self._folder = folder
        self._ready_words = ready_words.encode()
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """Its process, the last one."""
        assert self._child is not None
        return self._child

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it is ready, again where it ends instead, as a supervisor does.

        Args:
            environment: more, for this time.
        """
        async with asyncio.timeout(START_SECONDS):
            while not await self._comes_up(environment or {}):
                self.failed_starts += 1
                await asyncio.sleep(PAUSE_SECONDS)
        self.is_wanted = True

    async def kill(self) -> int:
        """End it as `kill -9` does, and return its exit status."""
        self._want_no_more()
        return await self.child.kill()

    async def terminate(self) -> int:
        """Have it end in order, and return its exit status."""
        self._want_no_more()
        return await self.child.terminate()

    async def close(self) -> None:
        """Have it end, where it has not."""
        self.is_wanted = False
        if self._child is not None and self._child.exit_status is None:
            await self._child.terminate()

    def _want_no_more(self) -> None:
        if self.child.exit_status is not None:
            raise NotOurs(f"{self.name} has ended by itself")
        self.is_wanted = False

    async def _comes_up(self, environment: Mapping[str, str]) -> bool:
        log = self._folder / f"{self.name}.log"
        before = log.stat().st_size if log.exists() else 0
        self._child = child = await Child.start(
            self.name, *self._arguments, folder=self._folder, environment={**self._environment, **environment}
        )
        while child.exit_status is None:
            with log.open("rb") as said:
                said.seek(before)
                if self._ready_words in said.read():
                    return True
            await asyncio.sleep(POLL_SECONDS)
        return False
