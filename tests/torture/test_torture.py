"""A short run of the whole: a small fleet under load, while things break, keeps every promise."""

import tempfile
from pathlib import Path

import pytest

from tests.torture import run
from tests.torture.run import Options

SECONDS = 14


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.timeout(180)
async def test_a_fleet_keeps_its_promises_while_everything_breaks() -> None:
    with tempfile.TemporaryDirectory(prefix="torture-") as name:  # a short one: sockets lie in it
        said: list[str] = []
        options = Options(Path(name), SECONDS, seed=7, nodes=2, clients=8, watchers=4, rate=60, lease_seconds=2)
        verdict = await run.torture(options, said.append)

    assert verdict.violations == [], "\n".join(said)
