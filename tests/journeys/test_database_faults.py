"""Postgres crashes, stands still or has no room left: nothing acknowledged is lost, and all goes on by itself after."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest

from app.db import embedded
from tests.api import shapes
from tests.freezing import frozen
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BACK_SECONDS = 20.0
DISK = "160m"  # a fresh cluster takes a third of it
ACKNOWLEDGED = 10
LEASE_SECONDS = 3.0
FROZEN_SECONDS = 2.5  # a lease is trusted for 2.4
MEANWHILE_SECONDS = 5.0


class OwnPostgres:
    """A Postgres of this test alone, which may end and come back."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stack = AsyncExitStack()
        self.server: embedded.Server

    async def start(self) -> None:
        """Start it on what it has stored."""
        self.server = await self._stack.enter_async_context(embedded.running(self._home))

    async def crash(self) -> None:
        """End it as `pg_ctl stop -m immediate` does."""
        os.kill(self.server.pid, signal.SIGQUIT)
        await self.server.died()
        await self._stack.aclose()

    async def stop(self) -> None:
        """End it in order."""
        await self._stack.aclose()

    async def backend(self, name: str) -> int:
        """Find the backend of a connection by its name."""
        connection = await asyncpg.connect(self.server.dsn)
        pid: int = await connection.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = $1", name)
        await connection.close()
        return pid


@asynccontextmanager
async def served(home: Path, folder: Path, double: ProviderDouble) -> AsyncIterator[tuple[OwnPostgres, Service]]:
    """Give a Postgres of the test's own, and a server on it with a short lease."""
    postgres = OwnPostgres(home)
    await postgres.start()
    settings = {
        "SURICATE_DATABASE_URL": postgres.server.dsn,
        "SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url,
        "SURICATE_LEASE_SECONDS": str(LEASE_SECONDS),
    }
    async with Service.started(folder, settings) as service:
        yield postgres, service
    await postgres.stop()


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a disk with little room, where that is allowed."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place], check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk; return what takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            return ballast


async def is_ready(service: Service) -> None:
    """Wait until the server takes traffic."""
    async with asyncio.timeout(BACK_SECONDS):
        while (await service.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def saw_the_end(follower: Follower, service: Service) -> None:
    """Read on until the turn has ended, coming back as often as needed; hold what was seen against the log."""
    async with asyncio.timeout(BACK_SECONDS):
        while not follower.count("turn_completed"):
            await follower.follow(service, until=shapes.TERMINAL)
    follower.assert_saw_everything(await service.log_of(follower.session_id))


async def test_crash_of_postgres_loses_nothing_acknowledged_and_the_live_turn_goes_on(
    double: ProviderDouble, tmp_path: Path
) -> None:
    await double.play([scripts.tokens(60, rate=60), scripts.finish()])
    async with served(tmp_path / "pg", tmp_path, double) as (postgres, service):
        follower = Follower((await service.create("Hello"))["session_id"])
        await follower.follow(service, most=8)
        made = [(await service.create(title=f"{number}"))["session_id"] for number in range(ACKNOWLEDGED)]

        await postgres.crash()
        refused = await service.client.post("/v1/sessions", json={})
        await postgres.start()
        await is_ready(service)

        assert (refused.status_code, refused.json()["code"]) == (503, "SESSION_STORE_ERROR")
        assert int(refused.headers["retry-after"]) >= 1
        await saw_the_end(follower, service)
        listed = (await service.client.get("/v1/sessions")).json()["sessions"]
        assert {session["session_id"] for session in listed} == {*made, follower.session_id}
        log = service.log.read_text(encoding="utf-8")
        assert "store_unavailable" in log
        assert "Traceback" not in log


async def test_backend_that_stands_still_stops_only_what_it_serves(double: ProviderDouble, tmp_path: Path) -> None:
    await double.play([scripts.tokens(100, rate=10), scripts.finish()])
    async with served(tmp_path / "pg", tmp_path, double) as (postgres, service):
        follower = Follower((await service.create("Hello"))["session_id"])
        await follower.follow(service, most=8)

        for name in ("suricate writer", "suricate leases", "suricate wakeups"):
            with frozen(await postgres.backend(name)):
                async with asyncio.timeout(MEANWHILE_SECONDS):
                    created = await service.create(title=name)
                await asyncio.sleep(FROZEN_SECONDS)
            state = (await service.client.get(f"/v1/sessions/{created['session_id']}")).json()["state"]
            assert state["title"] == name

        await saw_the_end(follower, service)
        assert follower.count("turn_resumed") == 0


async def test_full_disk_refuses_what_cannot_be_kept_and_nothing_else(double: ProviderDouble, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with served(disk / "pg", tmp_path, double) as (postgres, service):
            made = [(await service.create(title=f"{number}"))["session_id"] for number in range(ACKNOWLEDGED)]

            ballast = fill(disk)
            answers: list[httpx2.Response] = []
            async with asyncio.timeout(BACK_SECONDS):
                while not answers or answers[-1].status_code == 201:
                    answers.append(
                        await service.client.post("/v1/sessions", json={"title": "x", "system_prompt": "x" * 1_000_000})
                    )
            ballast.unlink()
            if not await postgres_lives(postgres):
                await postgres.stop()
                await postgres.start()
            await is_ready(service)

            refused = answers.pop()
            assert (refused.status_code, refused.json()["code"]) == (503, "SESSION_STORE_ERROR")
            kept = {*made, *(answer.json()["session_id"] for answer in answers)}
            listed = (await service.client.get("/v1/sessions", params={"limit": 200})).json()["sessions"]
            assert {session["session_id"] for session in listed} == kept
            assert (await service.client.post("/v1/sessions", json={})).status_code == 201


async def postgres_lives(postgres: OwnPostgres) -> bool:
    """Tell whether it has stayed up; one that cannot write its log ends itself."""
    try:
        async with asyncio.timeout(0.5):
            await postgres.server.died()
    except TimeoutError:
        return True
    return False
