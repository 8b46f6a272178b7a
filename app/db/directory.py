"""The embedded Postgres's directory: who holds it, whose files are in it, and what an earlier life left there.

Must not start the server. Surprising: a lock file of ours decides who holds the directory, not Postgres's own
`postmaster.pid`, which trusts process ids and so mistakes strangers for itself after a reboot or in a container.
"""

import asyncio
import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import structlog

from app import clock
from app.db import launch
from app.db.binaries import WAY_OUT
from app.errors import StartupError

_SOCKET_PATH_BYTES = 107  # the kernel's sun_path, less its final NUL
_HOLDER_SECONDS = 1.0  # a holder writes its process id just after it has the lock
_TRIAL_SECONDS = 10.0
_FAST_SECONDS = 60.0  # an earlier server's shutdown checkpoint on a slow disk
_ABORT_SECONDS = 10.0
_POLL_SECONDS = 0.02
_NEEDS_NO_QUOTES = re.compile(r"[\w/.+@ -]+")

_log = structlog.get_logger(__name__)


class Identity(NamedTuple):
    """The user that Postgres runs as, and how it gets there from ours.

    Attributes:
        way: `self` stays who we are; `map` is root under another number; `become` is another user.
    """

    way: Literal["self", "map", "become"]
    uid: int
    gid: int

    def command(self, directory: Path, *command: str | Path) -> list[str]:
        """Return the command that runs another one under this identity and ends it when this thread ends."""
        opening = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        return [*opening, self.way, str(self.uid), str(self.gid), str(directory), *map(str, command)]

    def give(self, path: Path) -> None:
        """Make a file or a directory of ours this identity's."""
        if self.way == "become":
            os.chown(path, self.uid, self.gid)


def made(data_dir: Path) -> Path:
    """Make the directory with mode 0700 where it is missing, and return its true path.

    Raises:
        StartupError: it cannot be made or is none.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"SURICATE_DATA_DIR {data_dir} cannot be made: {error.strerror}. {WAY_OUT}") from error
    return data_dir.resolve()


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold the directory against every other process while the block runs.

    Raises:
        StartupError: it is held already; the message names the holder's process id.
    """
    lock = _opened(home / "lock")
    try:
        _lock(lock, home)
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartupError(
            f"{path.parent} belongs to another user or is read-only ({error.strerror}). Start as its owner, or set "
            f"SURICATE_DATA_DIR to a directory of your own. {WAY_OUT}"
        ) from error


def _lock(lock: int, home: Path) -> None:
    limit = clock.monotonic() + _HOLDER_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        holder = os.pread(lock, 20, 0).strip().decode(errors="replace")
        is_known = holder.isdecimal() and is_alive(int(holder))
        if is_known or clock.monotonic() > limit:
            raise StartupError(
                f"Suricate is already running on {home}, pid {holder if is_known else 'unknown'}. Stop that process, "
                "or give this one another SURICATE_DATA_DIR (or SURICATE_DATABASE_URL, which many may share)."
            )
        time.sleep(_POLL_SECONDS)


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def identity(home: Path, binaries: Path) -> Identity:
    """Choose the user that Postgres runs as, and hand the directory over where that is not ours.

    Postgres refuses root. Root's files stay root's in a user namespace; where those are forbidden, or the files are
    another user's already, it runs as such a user.

    Raises:
        StartupError: root, and no way out of it worked.
    """
    if os.geteuid() != 0:
        return Identity("self", os.geteuid(), os.getegid())
    faults = []
    for candidate in _candidates(home):
        if candidate.way == "become" and home.stat().st_uid != candidate.uid:
            # It may walk through to its own files, and see nothing else.
            home.chmod(home.stat().st_mode | 0o011)
        fault = _trial(candidate, home, binaries)
        if fault is None:
            _hand_over(home, candidate)
            return candidate
        faults.append(f"{candidate.way} {candidate.uid}: {fault}")
    raise StartupError(
        "Postgres does not run as root, and this system lets root neither enter a user namespace nor run it as "
        f"`postgres` or `nobody` on {home} ({'; '.join(faults)}). Start Suricate as an ordinary user. {WAY_OUT}"
    )


def _candidates(home: Path) -> Iterator[Identity]:
    cluster = home / "cluster"
    owner = (cluster if cluster.exists() else home).stat()
    if owner.st_uid != 0:
        yield Identity("become", owner.st_uid, owner.st_gid)
        return
    ordinary = [user for user in pwd.getpwall() if user.pw_uid != 0]
    preferred = [user for name in ("postgres", "nobody") for user in ordinary if user.pw_name == name]
    # initdb asks for its user's name, so the number that root is mapped to must have one.
    for user in (preferred or ordinary)[:1]:
        yield Identity("map", user.pw_uid, user.pw_gid)
    for user in preferred:
        yield Identity("become", user.pw_uid, user.pw_gid)


def _trial(candidate: Identity, home: Path, binaries: Path) -> str | None:
    """Say why Postgres would not run under an identity; None where it would."""
    try:
        done = subprocess.run(  # noqa: S603 - our own launcher and the program that was found
            candidate.command(home, binaries / "initdb", "--version"),
            capture_output=True,
            check=False,
            text=True,
            timeout=_TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1] if done.returncode else None


def _hand_over(home: Path, owner: Identity) -> None:
    cluster = home / "cluster"
    if owner.way != "become" or not cluster.exists() or cluster.stat().st_uid == owner.uid:
        return
    # The top last: an interrupted handing over is then begun again.
    for place, _, files in os.walk(cluster, topdown=False):
        for name in files:
            os.lchown(Path(place) / name, owner.uid, owner.gid)
        os.lchown(place, owner.uid, owner.gid)


@contextmanager
def sockets(home: Path, owner: Identity, *, name: str) -> Iterator[Path]:
    """Offer an empty private directory for the socket: in the data directory, or a temporary one if that is too long.

    Args:
        name: the socket file's name, which counts towards the limit of 107 bytes.
    """
    place = home / "socket"
    if len(os.fsencode(place / name)) > _SOCKET_PATH_BYTES or not _NEEDS_NO_QUOTES.fullmatch(str(place)):
        place = Path(tempfile.mkdtemp(prefix="suricate-"))
    else:
        # A stale socket's lock file may name a process id that is a stranger's by now.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
    owner.give(place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def wait_until_free(cluster: Path) -> None:
    """Wait until no process of an earlier server is on the files, asking it to end, and clear its marks away.

    Only the holder of the directory may call this: such a server is an orphan.

    Raises:
        StartupError: it does not end.
    """
    marks = cluster / "postmaster.pid"
    if not marks.exists():
        return
    postmaster = int((marks.read_text(errors="replace").splitlines() or ["0"])[0])
    remaining = _residents(cluster, postmaster)
    if remaining:
        _log.warning("postgres_of_earlier_run_still_ending", pids=sorted(remaining), directory=str(cluster))
    for request, seconds in ((signal.SIGINT, _FAST_SECONDS), (signal.SIGQUIT, _ABORT_SECONDS)):
        if postmaster in remaining:
            with suppress(ProcessLookupError):
                os.kill(postmaster, request)
        limit = clock.monotonic() + seconds
        while remaining and clock.monotonic() < limit:
            await asyncio.sleep(_POLL_SECONDS)
            remaining = _residents(cluster, postmaster)
    if remaining:
        raise StartupError(f"An earlier Postgres on {cluster} does not end: stop processes {sorted(remaining)}.")
    marks.unlink(missing_ok=True)


def _residents(cluster: Path, postmaster: int) -> set[int]:
    """Return the ids of the Postgres processes that work in a directory."""
    proc = Path("/proc/self").parent
    if not (proc / "self").exists():
        return {postmaster} if str(cluster) in _command_line(postmaster) else set()
    found = set()
    for entry in proc.iterdir():
        # Processes end while we look, and others' may not be looked at.
        with suppress(OSError):
            is_postgres = entry.name.isdecimal() and (entry / "comm").read_text().strip() == "postgres"
            if is_postgres and (entry / "cwd").readlink() == cluster:
                found.add(int(entry.name))
    return found


def _command_line(pid: int) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(  # noqa: S603 - a constant program on a number
            ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=True, text=True, timeout=10
        ).stdout
    return ""
