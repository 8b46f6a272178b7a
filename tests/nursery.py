"""Where servers of the tests are born: a process that has the service loaded already, and forks.

To load it takes a second and a half of CPU, to fork takes hundredths; a run of all tests starts hundreds of servers. What is
born is a process like any other: with its own environment, folder and output, to be stopped, killed and waited for.
"""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import orjson

ROOT = Path(__file__).resolve().parents[1]
ORDER_BYTES = 1024 * 1024
STOP_SECONDS = 10


class Child:
    """A process that was born: what `asyncio.subprocess.Process` is, as far as tests need it."""

    def __init__(self, pid: int, stdout: "_Pipe", end: "_Pipe") -> None:
        self.pid = pid
        self.stdout = stdout.reader
        self.returncode: int | None = None
        self._pipes = stdout, end
        self._end = end.reader
        self._waiting = asyncio.Lock()

    def send_signal(self, number: int) -> None:
        """Send a signal; one that has ended hears nothing."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end; the negative number of the signal where one has ended it."""
        async with self._waiting:
            if self.returncode is None:
                self.returncode = int(await self._end.read())
                for pipe in self._pipes:
                    pipe.transport.close()
        return self.returncode


async def born(arguments: Sequence[str], env: Mapping[str, str], *, cwd: Path, log: Path) -> Child:
    """Start `suricate` with some arguments.

    Args:
        log: where its standard error goes.
    """
    stdout, stdout_of_child = os.pipe()
    end, end_for_nursery = os.pipe()
    order = orjson.dumps({"arguments": arguments, "env": env, "cwd": str(cwd), "log": str(log)})
    nursery, _ = _nursery()
    socket.send_fds(nursery, [order], [stdout_of_child, end_for_nursery])
    os.close(stdout_of_child)
    os.close(end_for_nursery)
    pid = int(nursery.recv(32))
    return Child(pid, await _Pipe.at(stdout), await _Pipe.at(end))


async def sent_out(arguments: Sequence[str], env: Mapping[str, str], *, cwd: Path, log: Path) -> asyncio.subprocess.Process:
    """Start it in an interpreter of its own, as users do."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    with log.open("wb") as errors:
        return await asyncio.create_subprocess_exec(*command, env=env, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=errors)


@dataclass(frozen=True, slots=True)
class _Pipe:
    reader: asyncio.StreamReader
    transport: asyncio.BaseTransport

    @classmethod
    async def at(cls, descriptor: int) -> "_Pipe":
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        return cls(reader, transport)


@contextmanager
def opened() -> Iterator[None]:
    """Have a nursery while the block runs, once a server is to be born; its end ends all that were born."""
    yield
    if _nursery.cache_info().currsize:
        parent, process = _nursery()
        parent.close()
        process.wait(STOP_SECONDS)
        _nursery.cache_clear()


@cache
def _nursery() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.nursery", str(there.fileno())]
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
    there.close()
    return here, process


def _run(parent: socket.socket) -> None:
    """Give birth as ordered, and tell of each end, until the parent is gone; then end all that is left."""
    children: dict[int, int] = {}
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([parent, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _bury(children)
        if parent in ready:
            order, descriptors, _, _ = socket.recv_fds(parent, ORDER_BYTES, 2)
            if not order:
                break
            pid = os.fork()
            if pid == 0:
                _live(orjson.loads(order), descriptors[0], [parent, woken, waking])
            children[pid] = descriptors[1]
            os.close(descriptors[0])
            parent.send(str(pid).encode())
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _bury(children: dict[int, int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            end = children.pop(pid)
            with suppress(BrokenPipeError):
                os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(end)


def _live(order: dict[str, Any], stdout: int, strangers: Sequence[socket.socket]) -> NoReturn:
    from app import cli

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stranger in strangers:
        stranger.close()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stdout, 1)
    os.dup2(log, 2)
    os.closerange(3, 1024)
    os.environ.clear()  # noqa: TID251 - to be born is to get one's environment
    os.environ.update(order["env"])  # noqa: TID251
    os.chdir(order["cwd"])
    sys.argv = ["suricate", *order["arguments"]]
    cli.main()
    raise SystemExit(0)


if __name__ == "__main__":
    import app.main.service  # noqa: F401 - what a server would load

    _run(socket.socket(fileno=int(sys.argv[1])))
