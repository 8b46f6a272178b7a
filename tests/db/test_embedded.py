"""The supervised Postgres, held by processes of their own so that they can be killed."""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from app.db import directory, embedded
from app.db.directory import Identity
from app.errors import StartupError

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 8.0
HOLDER = """
import asyncio, sys
from pathlib import Path
from app.db import embedded

async def main():
    async with embedded.running(Path(sys.argv[1])) as server:
        print("ready", server.pid, server.dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another identity")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")


class Holder(NamedTuple):
    """A process that holds a server; it stops in order when its standard input is closed."""

    process: subprocess.Popen[str]
    postmaster: int
    dsn: str

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_SECONDS)

    def stop(self) -> int:
        self.process.communicate(timeout=LIMIT_SECONDS)
        return self.process.returncode


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that other users may walk through, with a short path."""
    outer = Path(tempfile.mkdtemp(prefix="s-"))
    outer.chmod(0o755)
    yield outer / "data"
    shutil.rmtree(outer, ignore_errors=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Path, Holder]]:
    """One server for the tests that only look at it."""
    outer = Path(tempfile.mkdtemp(prefix="s-"))
    with holder(outer / "data") as server:
        yield outer / "data", server
    shutil.rmtree(outer, ignore_errors=True)


def test_server_is_durable_and_private(shared: tuple[Path, Holder]) -> None:
    home, server = shared
    names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "server_encoding")

    settings = [run(server.dsn, f"SHOW {name}") for name in names]

    assert settings == ["on", "on", "on", "", "UTF8"]
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "socket").stat().st_mode & 0o777 == 0o700


@only_root
def test_started_by_root_it_does_not_run_as_root_s_equal(shared: tuple[Path, Holder]) -> None:
    home, server = shared
    identity = directory.identity(home, embedded.find_binaries())

    assert run(server.dsn, "SELECT 1") == 1
    assert identity.uid != 0
    assert (home / "cluster").stat().st_uid == (0 if identity.way == "map" else identity.uid)


def test_second_process_on_one_directory_is_told_who_holds_it(shared: tuple[Path, Holder]) -> None:
    home, server = shared

    with pytest.raises(StartupError, match=f"already running on {home}, pid {server.process.pid}"):
        asyncio.run(started_and_stopped(home))

    assert run(server.dsn, "SELECT 1") == 1


def test_terminal_s_interrupt_does_not_reach_the_server(shared: tuple[Path, Holder]) -> None:
    _, server = shared

    assert os.getsid(server.postmaster) == server.postmaster


def test_started_by_an_ordinary_user_it_answers(home: Path) -> None:
    opening: list[str] = []
    if os.geteuid() == 0:
        ordinary = next(user for user in pwd.getpwall() if user.pw_uid != 0)
        opening = Identity("map", ordinary.pw_uid, ordinary.pw_gid).command(ROOT)
        if subprocess.run([*opening, "/bin/true"], check=False, capture_output=True).returncode:
            pytest.skip("no user namespaces here: run the suite as an ordinary user to see this test")

    with holder(home, *opening) as server:
        assert run(server.dsn, "SELECT 1") == 1


@only_root
def test_directory_of_another_user_is_served_as_that_user(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    if directory._trial(Identity("become", nobody.pw_uid, nobody.pw_gid), home, embedded.find_binaries()):
        pytest.skip("the programs stand where only root can read them")

    with holder(home) as server:
        assert run(server.dsn, "SELECT 1") == 1
        assert Path(f"/proc/{server.postmaster}").stat().st_uid == nobody.pw_uid


@only_linux
def test_clean_stop_leaves_no_process_and_no_socket(home: Path) -> None:
    with holder(home) as server:
        assert server.stop() == 0

        assert not directory._residents(home / "cluster", server.postmaster)
        assert not (home / "socket").exists()
        assert not (home / "cluster" / "postmaster.pid").exists()


@only_linux
def test_killed_holder_takes_its_server_along_and_the_row_is_recovered(home: Path) -> None:
    with holder(home) as server:
        run(server.dsn, "CREATE TABLE kept (n int)")
        run(server.dsn, "INSERT INTO kept VALUES (7)")

        server.kill()

        until(lambda: not directory._residents(home / "cluster", server.postmaster))
    with holder(home) as again:
        assert run(again.dsn, "SELECT n FROM kept") == 7


@only_linux
def test_after_everything_was_killed_a_committed_row_is_recovered(home: Path) -> None:
    with holder(home) as server:
        run(server.dsn, "CREATE TABLE kept (n int)")
        run(server.dsn, "INSERT INTO kept VALUES (7)")
        everything = [server.process.pid, *directory._residents(home / "cluster", server.postmaster)]

        for pid in everything:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.process.wait(LIMIT_SECONDS)
    # A container that starts anew gives the numbers of the dead to others.
    marks = home / "cluster" / "postmaster.pid"
    marks.write_text(marks.read_text().replace(str(server.postmaster), str(os.getpid()), 1))

    with holder(home) as again:
        assert run(again.dsn, "SELECT n FROM kept") == 7


@only_linux
def test_server_of_a_killed_holder_that_still_ends_is_waited_for(home: Path) -> None:
    with holder(home) as server:
        os.kill(server.postmaster, signal.SIGSTOP)
        server.kill()
        successor = begun(home)
        until(lambda: f"[{server.postmaster}," in read_line(successor))

        os.kill(server.postmaster, signal.SIGCONT)

        with ended(successor):
            assert run(made_ready(successor).dsn, "SELECT 1") == 1


@only_linux
def test_kill_while_the_cluster_is_made_is_harmless(home: Path) -> None:
    process = begun(home)
    until(lambda: any(home.glob("initdb-*/global")))
    process.kill()
    process.communicate()
    assert not (home / "cluster").exists()

    with holder(home) as server:
        assert run(server.dsn, "SELECT 1") == 1
        assert not list(home.glob("initdb-*"))


def test_death_of_the_server_is_noticed(home: Path) -> None:
    async def check() -> str:
        async with embedded.running(home) as server:
            os.kill(server.pid, signal.SIGKILL)
            return await asyncio.wait_for(server.died(), LIMIT_SECONDS)

    assert "database system is ready" in asyncio.run(check())


def test_socket_stands_in_the_data_directory_only_where_its_path_will_do(tmp_path: Path) -> None:
    here = Identity("self", os.geteuid(), os.getegid())
    short, long, odd = Path(tempfile.mkdtemp(prefix="s-")), tmp_path / ("d" * 100), tmp_path / "a, 'b'"
    odd.mkdir()

    with (
        directory.sockets(short, here, name=".s") as plain,
        directory.sockets(long, here, name=".s") as shortened,
        directory.sockets(odd, here, name=".s") as renamed,
    ):
        assert plain == short / "socket"
        assert {shortened.parent, renamed.parent} == {Path(tempfile.gettempdir())}
        assert {place.stat().st_mode & 0o777 for place in (plain, shortened, renamed)} == {0o700}

    assert not any(place.exists() for place in (plain, shortened, renamed))
    short.rmdir()


def test_directory_with_a_long_and_odd_path_is_served(home: Path) -> None:
    with holder(home / ("d" * 100) / "a, 'b' & \"c\"") as server:
        assert run(server.dsn, "SELECT 1") == 1


def test_server_that_does_not_start_says_why(home: Path) -> None:
    asyncio.run(started_and_stopped(home))
    (home / "cluster" / "PG_VERSION").write_text("9\n")

    with pytest.raises(StartupError, match=r"(?s)version 9.*SURICATE_DATABASE_URL"):
        asyncio.run(started_and_stopped(home))


def test_platform_without_binaries_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StartupError, match=r"platform.*SURICATE_DATABASE_URL"):
        embedded.find_binaries()


def test_configured_directory_without_binaries_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=rf"SURICATE_POSTGRES_BIN_DIR \({tmp_path}\).*SURICATE_DATABASE_URL"):
        embedded.find_binaries(tmp_path)


async def started_and_stopped(home: Path) -> None:
    async with embedded.running(home):
        pass


@contextmanager
def holder(home: Path, *opening: str) -> Iterator[Holder]:
    process = begun(home, *opening)
    with ended(process):
        yield made_ready(process)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(ValueError):  # it was stopped by the test
            process.communicate(timeout=LIMIT_SECONDS)


def begun(home: Path, *opening: str) -> subprocess.Popen[str]:
    command = [*opening, sys.executable, "-c", HOLDER, str(home)]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def made_ready(process: subprocess.Popen[str]) -> Holder:
    printed = ""
    while line := read_line(process):
        if line.startswith("ready "):
            _, postmaster, dsn = line.split()
            return Holder(process, int(postmaster), dsn)
        printed += line
    raise AssertionError(f"the holder ended: {printed}")


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def run(dsn: str, statement: str) -> object:
    async def answer() -> object:
        connection = await asyncpg.connect(dsn, timeout=LIMIT_SECONDS)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(answer())


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for LIMIT_SECONDS at most."""
    limit = time.perf_counter() + LIMIT_SECONDS
    while not condition():
        assert time.perf_counter() < limit, "the condition did not come true"
        time.sleep(0.005)
