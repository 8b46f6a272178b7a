"""The command of the benchmarks runs, and its table says what it is to say."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.bench import page
from tests.bench.ground import ROOT, process
from tests.bench.table import Aim, Row, markdown_table

pytestmark = pytest.mark.anyio
LIMIT_SECONDS = 50


async def test_command_measures_parts_and_prints_them_beside_the_floor_and_the_plain_app(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "a,g,i", "--folder", str(tmp_path)]

    async with process(command) as bench, asyncio.timeout(LIMIT_SECONDS):
        assert bench.stdout is not None
        shown = (await bench.stdout.read()).decode()
        status = await bench.wait()

    assert status == 0
    assert all(f"part {part}: " in shown for part in "agi")
    assert "interrupt to" in shown
    assert "plain" in shown


def test_missed_aim_is_shown_with_its_reason() -> None:
    [row] = page.explained([Row("e", "e-p99", "lateness", "ms", 900, {"floor": 400}, Aim(300))])

    line = markdown_table([row]).splitlines()[-1]

    assert "≤ 300: missed, because " in line
    assert page.REASONS["e-p99"] in line


def test_met_aim_is_shown_without_a_reason() -> None:
    [row] = page.explained([Row("e", "e-p99", "lateness", "ms", 90, {}, Aim(300))])

    assert row.verdict == "≤ 300: met"


def test_page_keeps_the_lines_of_parts_that_were_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    rows = {part: Row(part, f"{part}-key", f"what {part} measures", "ms", 1) for part in "abc"}
    page.PAGE.write_text(markdown_table([rows["a"], rows["b"], rows["c"]]))

    page.write([Row("b", "b-key", "what b measures now", "ms", 2)])

    told = [line for line in page.PAGE.read_text().splitlines() if line.startswith(("| a", "| b", "| c"))]
    assert told == [
        "| a | what a measures, ms | 1 | – | – |",
        "| b | what b measures now, ms | 2 | – | – |",
        "| c | what c measures, ms | 1 | – | – |",
    ]


def test_page_is_of_this_table() -> None:
    keys = [
        line.split(" | ")[0] for line in (ROOT / "docs" / "benchmarks.md").read_text().splitlines() if line.startswith("| ")
    ]

    assert sorted({key.removeprefix("| ") for key in keys if len(key) == 3}) == list("abcdefghijklm")
