"""A slice of the fuzzing that is the same in every run, and the command that fuzzes for as long as one likes."""

import asyncio
import base64
import sys

import pytest

from tests.fuzz.mutation import inputs
from tests.fuzz.targets import targets
from tests.service import ROOT

SEED = 1
COUNT = 1_000
LIMIT_SECONDS = 50


@pytest.mark.parametrize("name", targets())
def test_no_input_of_the_slice_breaks_a_property(name: str) -> None:
    target = targets()[name]

    for data in inputs(target.seeds, COUNT, SEED):
        try:
            target.check(data)
        except Exception as error:
            error.add_note(f"./run fuzz --only '{name}' --again {base64.b64encode(data).decode()}")
            raise


def test_slice_is_the_same_in_every_run() -> None:
    seeds = [b"abc", b'{"a": 1}']

    assert list(inputs(seeds, 50, SEED)) == list(inputs(seeds, 50, SEED))


@pytest.mark.anyio
async def test_command_fuzzes_a_target_and_says_how_much() -> None:
    pytest.importorskip("atheris", reason="atheris has no build for this platform")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fuzz", "--only", "event cursors", "--seconds", "1", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT_SECONDS):
        said, _ = await process.communicate()

    assert process.returncode == 0, said.decode()
    assert b"inputs tried" in said
