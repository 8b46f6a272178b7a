"""The server with its own Postgres: killed with everything it has started, it goes on at once when started again."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

RESUME_SECONDS = 3.0  # the lease is 15 s: it is not waited for
EXIT_SECONDS = 3.0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder in memory where there is room for one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="suricate-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


async def test_killed_server_resumes_its_turn_at_once_and_stops_in_order(
    data_dir: Path, tmp_path: Path, double: ProviderDouble
) -> None:
    settings = {"SURICATE_DATA_DIR": str(data_dir), "SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    await double.play([scripts.text("Lon"), scripts.hang()], [scripts.text("Paris."), scripts.finish()])
    async with Service.started(tmp_path, settings) as before:
        created = await before.create("Hello")
        follower = Follower(created["session_id"])
        await follower.follow(before, until=["text_delta"])
        await before.kill()

    async with Service.started(tmp_path, settings) as after:
        async with asyncio.timeout(RESUME_SECONDS):
            await follower.follow(after, until=["turn_completed"])
        log = await after.log_of(created["session_id"])
        async with asyncio.timeout(EXIT_SECONDS):
            await after.terminate()

    follower.assert_saw_everything(log)
    assert (follower.count("turn_resumed"), follower.count("step_discarded")) == (1, 1)
    assert log[-1]["text"] == "Paris."
    assert data_dir.stat().st_mode & 0o777 == 0o700
