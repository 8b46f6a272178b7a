"""Nothing is signalled that is not of this run, whatever its id."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.torture.processes import Child, Mark, NotOurs, kept

pytestmark = pytest.mark.anyio

SLEEPER = ("-c", "import time; time.sleep(60)")


async def test_a_process_with_the_id_of_another_is_not_signalled() -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    meant = Mark(stranger.pid, Mark.of(stranger.pid).started - 1)

    assert not meant.is_own()
    with pytest.raises(NotOurs):
        meant.send(signal.SIGKILL)

    assert stranger.returncode is None
    assert meant.state == ""
    stranger.kill()
    await stranger.wait()


async def test_another_process_s_child_is_not_taken_for_ours(tmp_path: Path) -> None:
    child = await Child.start("sleeper", *SLEEPER, folder=tmp_path)

    assert Mark.of_child(child.pid, Mark.of(os.getpid())) == child.mark
    with pytest.raises(NotOurs):
        Mark.of_child(os.getpid(), child.mark)
    with pytest.raises(NotOurs):
        Mark.of_child(child.pid, Mark(os.getpid(), 1))

    await child.kill()


async def test_one_that_has_ended_is_not_signalled(tmp_path: Path) -> None:
    child = await Child.start("sleeper", *SLEEPER, folder=tmp_path)

    assert await child.kill() == -signal.SIGKILL
    with pytest.raises(NotOurs):
        child.resume()
    with pytest.raises(NotOurs):
        child.mark.send(signal.SIGTERM)
    assert child.mark.state == ""


async def test_a_paused_process_stands_still_and_goes_on(tmp_path: Path) -> None:
    program = "import sys\nfor line in sys.stdin: print(len(line), flush=True)"
    async with kept(await Child.start("counter", "-c", program, folder=tmp_path, is_heard=True)) as child:
        assert await child.ask("four", 10) == 5
        child.pause()
        async with asyncio.timeout(10):
            while child.mark.state != "T":
                await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await child.ask("silence", 0.2)
        child.resume()
        assert await child.hear() == 8

    assert child.exit_status == 0
