"""The process that keeps Postgres (`postgres`), from the side of those who break it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from app.errors import StartupError
from tests.torture.processes import Child, Mark, kept

DISK_BYTES = 6 * 1024**3  # of memory, taken as it is used; a run of an hour fits
START_SECONDS = 120.0  # crash recovery under load
STOP_SECONDS = 45.0


class Keeper:
    """Tells the process what to do, and knows what it has said.

    Attributes:
        dsn: where Postgres is, for a superuser; the same after each start.
        can_fill: whether its disk can be made full.
        deaths: the ends of Postgres's log at ends that nobody had asked for.
    """

    def __init__(self, child: Child) -> None:
        self.dsn = ""
        self.can_fill = False
        self.deaths: list[str] = []
        self.child = child
        self._postmaster: Mark | None = None
        self._state = "starting"
        self._room = "roomy"
        self._news = asyncio.Condition()

    @property
    def is_up(self) -> bool:
        """Whether Postgres runs."""
        return self._state == "up"

    @property
    def postmaster(self) -> Mark:
        """The process that all of Postgres's are children of, or were."""
        assert self._postmaster is not None
        return self._postmaster

    async def end(self, how: str) -> None:
        """End Postgres: `fast`, `immediate` or `kill`."""
        await self.child.say(how)
        assert await self.is_down_within(STOP_SECONDS), f"Postgres does not end; {self.child.log} says why"

    async def start(self) -> None:
        """Start Postgres where it does not run.

        Raises:
            StartupError: it did not start.
        """
        if self._state not in {"up", "starting"}:
            self._state = "starting"
            await self.child.say("start")
        async with self._news, asyncio.timeout(START_SECONDS):
            await self._news.wait_for(lambda: self._state != "starting")
        if not self.is_up:
            raise StartupError(f"Postgres did not start; {self.child.log} says why")

    async def is_down_within(self, seconds: float) -> bool:
        """Tell whether Postgres ends within a time."""
        with suppress(TimeoutError):
            async with self._news, asyncio.timeout(seconds):
                await self._news.wait_for(lambda: not self.is_up)
        return not self.is_up

    async def set_room(self, room: str) -> None:
        """Take all room from its disk, `full`, or give it back, `roomy`."""
        await self.child.say(room)
        async with self._news, asyncio.timeout(STOP_SECONDS):
            await self._news.wait_for(lambda: self._room == room)

    async def follow(self) -> None:
        """Take in what the process says, until it ends."""
        with suppress(EOFError):
            while True:
                await self._take(await self.child.hear())

    async def _take(self, told: Any) -> None:
        async with self._news:
            if "room" in told:
                self._room = told["room"]
            else:
                self._state = told["state"]
            if "pid" in told:
                self.dsn, self.can_fill = told["dsn"], told["can_fill"]
                self._postmaster = Mark.of(told["pid"])
            if "died" in told:
                self.deaths.append(told["died"])
            self._news.notify_all()


@asynccontextmanager
async def running(folder: Path, *, disk_bytes: int = DISK_BYTES) -> AsyncIterator[Keeper]:
    """Keep a Postgres in a folder while the block runs."""
    arguments = ("-m", "tests.torture.postgres", str(folder / "postgres"), "--bytes", str(disk_bytes))
    async with (
        kept(await Child.start("keeper", *arguments, folder=folder, is_heard=True)) as child,
        asyncio.TaskGroup() as tasks,
    ):
        keeper = Keeper(child)
        following = tasks.create_task(keeper.follow())
        await keeper.start()
        yield keeper
        await child.close(STOP_SECONDS)
        following.cancel()
