"""Turn a fresh interpreter into Postgres: run as a script, in front of each program of Postgres.

A process of its own, because the steps below are unsafe between fork and exec of a program with threads. It must not
import anything of ours: it runs isolated, possibly as another user. Surprising: Postgres refuses root by its effective
id alone, so a user namespace in which root has another number is enough; files stay root's.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def main(arguments: Sequence[str]) -> None:
    """Take an identity, tie this process's life to its parent's, and execute a command.

    Args:
        arguments: the parent's process id; `self`, `map` or `become`; user id; group id; directory to work in; command.

    Raises:
        OSError: the identity, the directory or the program is out of reach; nothing was executed.
    """
    parent, identity, uid, gid, directory, *command = arguments
    if identity == "map":
        _map_root_to(int(uid), int(gid))
    elif identity == "become":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.umask(0o077)
    os.chdir(directory)
    # Last, because the kernel forgets the signal when the process's credentials change.
    _end_with_parent(int(parent))
    os.execv(command[0], command)  # noqa: S606 - the whole purpose; the command comes from our own supervisor


def _map_root_to(uid: int, gid: int) -> None:
    """Enter a user namespace in which the present user and group have these numbers."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no user namespace: {os.strerror(number)}")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {outer_uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {outer_gid} 1", encoding="ascii")


def _end_with_parent(parent: int) -> None:
    """Ask the kernel for SIGINT, Postgres's fast shutdown, when the parent ends; elsewhere than on Linux do nothing."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:
        # It ended before the request was made, so the signal will never come.
        sys.exit("the parent process has ended")


if __name__ == "__main__":
    main(sys.argv[1:])
