"""One Postgres that is broken on purpose and keeps what it has: `python -m tests.torture.postgres HOME [--bytes N]`.

Words on standard input say what to do: `fast`, `immediate` and `kill` end it in that way, `start` starts it again on the same
files and socket; `full` takes all room from its disk, `roomy` gives it back. Lines on standard output say how it is:

    {"state": "up", "dsn": …, "pid": …, "can_fill": …}
    {"state": "down"}, with "died" and the end of its log where nobody had asked for it
    {"state": "failed", "error": …}     after a start
    {"room": "full"}, {"room": "roomy"}

The disk is a file system in memory where this user may mount one; elsewhere HOME is an ordinary folder, and nothing fills it.
"""

import argparse
import asyncio
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from enum import StrEnum
from pathlib import Path
from signal import SIGKILL, SIGQUIT

from app import telemetry
from app.db import embedded
from app.errors import StartupError
from tests.torture import lines
from tests.torture.processes import Mark

SPARE_BYTES = [16 * 1024 * 4**growth for growth in range(5)]  # what a full disk has left; more where it fills meanwhile
SIGNALS = {"immediate": SIGQUIT, "kill": SIGKILL}


class Room(StrEnum):
    """How much a disk has."""

    FULL = "full"
    ROOMY = "roomy"


class Disk:
    """What Postgres's files lie on.

    Args:
        size_bytes: 0 for an ordinary folder.
    """

    def __init__(self, home: Path, size_bytes: int) -> None:
        self._home = home
        self._size_bytes = size_bytes

    @property
    def can_fill(self) -> bool:
        """Whether its size is ours to change."""
        return bool(self._size_bytes)

    def set_room(self, room: Room) -> None:
        """Shrink it to what is used, or give it its size again.

        Raises:
            OSError: it could not be done.
        """
        sizes = (self._size_bytes,) if room is Room.ROOMY else (self._used_bytes() + spare for spare in SPARE_BYTES)
        if not any(self._resize(size_bytes) for size_bytes in sizes):
            raise OSError(f"the disk cannot be made {room}")
        lines.say(room=room)

    def _used_bytes(self) -> int:
        found = os.statvfs(self._home)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _resize(self, size_bytes: int) -> bool:
        mounting = subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(self._home)], check=False)
        return mounting.returncode == 0


@contextmanager
def mounted(home: Path, size_bytes: int) -> Iterator[Disk]:
    """Offer a disk of a limited size while the block runs, or the folder as it is where mounting is not allowed.

    Postgres's messages go beside it, so that they outlive it.
    """
    home.mkdir(parents=True, mode=0o700)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "torture", str(home)]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False).returncode:
        yield Disk(home, 0)
        return
    (home / "postgres.log").symlink_to(home.parent / "postgres.log")
    try:
        yield Disk(home, size_bytes)
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


async def keep(home: Path, disk: Disk, words: asyncio.Queue[str]) -> None:
    """Run Postgres again and again, as the words say."""
    while True:
        try:
            async with embedded.running(home) as server:
                lines.say(state="up", dsn=server.dsn, pid=server.pid, can_fill=disk.can_fill)
                died = await _end(server, disk, words)
        except StartupError as error:
            lines.say(state="failed", error=str(error))
        else:
            lines.say(state="down", **({"died": died} if died else {}))
        while (word := await words.get()) != "start":
            disk.set_room(Room(word))


async def _end(server: embedded.Server, disk: Disk, words: asyncio.Queue[str]) -> str:
    """Wait for the word that ends it and end it so, or for its end by itself: then return the end of its log."""
    postmaster = Mark.of(server.pid)
    async with asyncio.TaskGroup() as tasks:
        dying = tasks.create_task(server.died())
        while True:
            asking = tasks.create_task(words.get())
            await asyncio.wait([dying, asking], return_when=asyncio.FIRST_COMPLETED)
            if dying.done():
                asking.cancel()
                return dying.result()
            word = asking.result()
            if word in SIGNALS:
                postmaster.send(SIGNALS[word])
                await dying
                return ""
            if word == "fast":  # the way in which the block ends it anyway
                dying.cancel()
                return ""
            disk.set_room(Room(word))


async def _run(home: Path, size_bytes: int) -> None:
    words: asyncio.Queue[str] = asyncio.Queue()
    with mounted(home, size_bytes) as disk:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(keep(home, disk, words))
            async with aclosing(lines.heard()) as heard:
                async for word in heard:
                    words.put_nowait(word)
            keeping.cancel()


def main() -> None:
    """Keep it until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.postgres", description="Keep a Postgres that is broken.")
    parser.add_argument("home", type=Path)
    parser.add_argument("--bytes", type=int, default=1024**3, help="size of its disk, where one can be mounted")
    given = parser.parse_args()
    telemetry.configure_logging(threshold=logging.INFO, style="json")  # to standard error: the other one is listened to
    asyncio.run(_run(given.home, given.bytes))


if __name__ == "__main__":
    main()
