"""Processes of a run, and the one rule about them: nothing is signalled that was not proved to be ours just before.

A process is known by its id and the moment at which the kernel started it, since ids are given out again. A signal goes through
a descriptor of the process that was opened before the proof, so that it cannot reach another one that has the id by then.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from app.db.directory import Identity

ROOT = Path(__file__).resolve().parents[2]
LINE_BYTES = 16 * 1024 * 1024
STOP_SECONDS = 15.0  # for a process that was asked to end


class NotOurs(Exception):
    """A process is not the one that was meant, or none of this run's; nothing was sent to it."""


class _Stat(NamedTuple):
    """What is read of it: its state, its parent's id, and when it was started."""

    state: str
    parent: int
    started: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A process beyond doubt.

    Args:
        started: when the kernel started it, in ticks since boot.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Mark the process that has an id now.

        Raises:
            ProcessLookupError: there is none.
        """
        return cls(pid, _stat(pid).started)

    @classmethod
    def of_child(cls, pid: int, parent: "Mark") -> Self:
        """Mark a child of a process of ours, as one of Postgres's.

        Raises:
            NotOurs: it is gone, or another's child.
        """
        if not parent.is_own():
            raise NotOurs(f"process {parent.pid} is not the one that was meant")
        try:
            found = _stat(pid)
        except ProcessLookupError as error:
            raise NotOurs(f"process {pid} is gone") from error
        if found.parent != parent.pid:
            raise NotOurs(f"process {pid} is not a child of {parent.pid}")
        return cls(pid, found.started)

    def is_own(self) -> bool:
        """Tell whether the id is still this process's."""
        with suppress(ProcessLookupError):
            return _stat(self.pid).started == self.started
        return False

    @property
    def state(self) -> str:
        """The kernel's letter: R runs, S sleeps, T is stopped, Z has ended; empty once it is gone."""
        with suppress(ProcessLookupError):
            found = _stat(self.pid)
            return found.state if found.started == self.started else ""
        return ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal.

        Raises:
            NotOurs: the id is not this process's any more.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            raise NotOurs(f"process {self.pid} is gone") from error
        try:
            if not self.is_own():
                raise NotOurs(f"process {self.pid} is not the one that was meant")
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


class Child:
    """A process that this run has started. It ends with the run, whatever ends that.

    Args:
        log: what it says on standard error, and on standard output where nobody listens to that.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self.mark = Mark.of(process.pid)
        self._process = process
        self._saying = asyncio.Lock()

    @classmethod
    async def start(cls, name: str, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None,
                    is_heard: bool = False) -> Self:  # fmt: skip
        """Start Python with arguments, in a session of its own.

        Args:
            folder: gets `<name>.log`, to which starts append.
            environment: on top of a small one.
            is_heard: whether `hear` will be called, instead of its standard output going to the log.
        """
        log = folder / f"{name}.log"
        command = Identity("self", 0, 0).command(ROOT, sys.executable, *arguments)
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *command, env=_environment(folder) | dict(environment or {}), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if is_heard else file, stderr=file, start_new_session=True, limit=LINE_BYTES,
            )  # fmt: skip
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.mark.pid

    @property
    def exit_status(self) -> int | None:
        """What it ended with, negative for a signal; None while it lives."""
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal.

        Raises:
            NotOurs: it has ended.
        """
        if self._process.returncode is not None:
            raise NotOurs(f"{self.name} has ended")
        self.mark.send(number)

    async def kill(self) -> int:
        """End it as `kill -9` does, also where it is stopped, and return its exit status."""
        self.send(signal.SIGKILL)
        return await self.wait()

    async def terminate(self, seconds: float = STOP_SECONDS) -> int:
        """Have it end in order, or kill it after a time, and return its exit status."""
        self.send(signal.SIGTERM)
        return await self._end(seconds)

    def pause(self) -> None:
        """Stop it where it is, until `resume`."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        return await self._process.wait()

    async def say(self, told: str | Mapping[str, Any]) -> None:
        """Write a line to its standard input: a word, or an object as JSON."""
        assert self._process.stdin is not None
        line = told.encode() if isinstance(told, str) else orjson.dumps(told)
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> Any:
        """Return the next line of its standard output, parsed.

        Raises:
            EOFError: it says nothing any more.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EOFError(f"{self.name} has ended; {self.log} says why")
        return orjson.loads(line)

    async def ask(self, told: str | Mapping[str, Any], seconds: float) -> Any:
        """Write a line and return the next that it says; one asks at a time."""
        async with self._saying, asyncio.timeout(seconds):
            await self.say(told)
            return await self.hear()

    async def close(self, seconds: float = STOP_SECONDS) -> int:
        """Close its standard input, wait for its end, and kill it after a time."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._end(seconds)

    async def _end(self, seconds: float) -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.wait()
        return await self.kill()


@asynccontextmanager
async def kept(child: Child) -> AsyncIterator[Child]:
    """Keep a process while the block runs, then close its standard input and see it end."""
    try:
        yield child
    finally:
        if child.exit_status is None:
            await child.close()


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def _stat(pid: int) -> _Stat:
    """Read what the kernel says of a process.

    Raises:
        ProcessLookupError: there is none.

    Source: proc_pid_stat(5)
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(pid) from error
    state, parent, *more = text.rpartition(")")[2].split()
    return _Stat(state, int(parent), int(more[17]))
