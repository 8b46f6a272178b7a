"""The import contracts hold, and each of them would notice: every one is broken here once, on a copy."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import app
from tests.project.source import APP, ROOT

LIMIT_SECONDS = 30
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

FLOORS = "Floors: imports only go down"
SETTINGS = "Settings are read in main and cli alone"
WEB = "The web framework stays at the door"
DRIVER = "The database driver stays in db"
CONNECTIONS = "Connections are for rooms that speak SQL or look after leases"
TABLES = "The tables are described, never run"
CLIENT = "The outbound HTTP client stays with vendors and tools"
VENDORS = "Vendors know nothing of each other"
JOURNAL = "Inside the journal, imports only go down"
APPEND = "Events are appended through the journal's own hands"
KNOTS = "No knots inside a room"


@dataclass(frozen=True)
class Break:
    """One line added to one file, and the contract that must notice."""

    contract: str
    file: str
    line: str


BREAKS = {
    "a floor looks up": Break(FLOORS, "ids.py", "import app.errors"),
    "a stray module": Break(FLOORS, "utils.py", "import app.clock"),
    "the workshop knows the door": Break(FLOORS, "worker/housekeeping.py", "import app.api.strict_json"),
    "a room reads the settings": Break(SETTINGS, "api/service.py", "import app.settings"),
    "a rule knows the framework": Break(WEB, "turns/turn.py", "import fastapi"),
    "a rule knows the server": Break(WEB, "turns/turn.py", "import uvicorn"),
    "the journal knows Starlette": Break(WEB, "journal/reader.py", "import starlette.responses"),
    "the journal writes frames by itself": Break(WEB, "journal/reader.py", "import sse_starlette"),
    "the journal opens connections": Break(DRIVER, "journal/reader.py", "import asyncpg"),
    "sessions build statements": Break(DRIVER, "sessions.py", "import sqlalchemy"),
    "the loop speaks SQL": Break(CONNECTIONS, "agent/step.py", "from app.db.engine import Connection"),
    "the door speaks SQL": Break(CONNECTIONS, "api/sessions.py", "from app.db.engine import Connection"),
    "the running server loads the tables": Break(TABLES, "db/engine.py", "from app.db import tables"),
    "the loop calls out": Break(CLIENT, "agent/step.py", "import httpx2"),
    "one vendor leans on another": Break(VENDORS, "providers/scripted.py", "import app.providers.openai_compatible"),
    "an entry reads": Break(JOURNAL, "journal/entry.py", "from app.journal import reader"),
    "a stray module in the journal": Break(JOURNAL, "journal/buffer.py", "import app.journal.types"),
    "a rule appends past the journal": Break(APPEND, "turns/desk.py", "from app.journal import append"),
    "two modules hold each other": Break(KNOTS, "turns/claims.py", "from app.turns import desk"),
}


def contract_names() -> list[str]:
    """Return the names of the contracts in pyproject.toml."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["name"] for contract in document["tool"]["importlinter"]["contracts"]]


def layers() -> list[set[str]]:
    """Return the floors of the first contract, from the top."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [set(layer.split(" | ")) for layer in document["tool"]["importlinter"]["contracts"][0]["layers"]]


def lint(folder: Path) -> tuple[int, str]:
    """Run the contracts in a folder, and return the exit status and the report."""
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        check=False,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, str]]:
    """The report on the house as it is, under "whole", and on it with each break."""

    def report(item: tuple[str, Break | None]) -> tuple[str, tuple[int, str]]:
        name, broken = item
        folder = tmp_path_factory.mktemp("house")
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        if broken is not None:
            with (folder / "app" / broken.file).open("a", encoding="utf-8") as file:
                file.write(f"\n{broken.line}\n")
        return name, lint(folder)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        return dict(threads.map(report, [("whole", None), *BREAKS.items()]))


def test_the_house_keeps_all_contracts(reports: Mapping[str, tuple[int, str]]) -> None:
    status, report = reports["whole"]

    assert status == 0, report
    assert f"Contracts: {len(contract_names())} kept, 0 broken" in report


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_noticed_by_its_contract_alone(name: str, reports: Mapping[str, tuple[int, str]]) -> None:
    status, report = reports[name]

    assert status == 1, report
    assert re.findall(r"^(.+) BROKEN", report, re.MULTILINE) == [BREAKS[name].contract], report


def test_every_contract_is_broken_once() -> None:
    assert {broken.contract for broken in BREAKS.values()} == set(contract_names())


def test_the_map_shows_the_house_as_it_is() -> None:
    rooms = {path.stem for path in APP.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}

    assert sorted(name for floor in floors() for name in floor) == sorted(rooms)


def test_the_map_stacks_the_floors_as_the_contract_does() -> None:
    level = {name: number for number, layer in enumerate(layers()) for name in layer}
    levels = [[level[name] for name in floor] for floor in floors()]

    assert len(levels) == 7
    assert all(max(above) < min(below) for above, below in itertools.pairwise(levels))


def floors() -> list[list[str]]:
    """Return the rooms of each floor, as the map in app/__init__.py has them, from the top."""
    found: list[list[str]] = []
    for line in (app.__doc__ or "").splitlines():
        if not re.match(r"(F\d|  )  [a-z]", line):
            continue
        if line.startswith("F"):
            found.append([])
        found[-1] += re.split(r" {3,}", line[4:])[0].split()
    return found
