"""The import contracts hold, and each of them would notice: every one is broken here once, on a copy."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import app
from tests.project.source import APP, ROOT

LIMIT_SECONDS = 60
MARK = "== the house of "
LINT = f"""
import os, sys
from importlinter.cli import lint_imports
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path[0] = folder
    print("{MARK}" + folder, flush=True)
    print("status", lint_imports(no_cache=True), flush=True)
"""
"""One process for all copies, because loading the linter takes longer than linting."""

FLOORS = "Floors: imports only go down"
SETTINGS = "Settings are read in main and cli alone"
WEB = "The web framework stays at the door"
DRIVER = "The database driver stays in db"
CONNECTIONS = "Connections are for rooms that speak SQL or look after leases"
TABLES = "The tables are described, never run"
CLIENT = "The outbound HTTP client stays with the way out and those that go by it"
CIPHERS = "Ciphers stay with the seals"
NATS = "The client of NATS stays with the carrier that is named after it"
OTLP = "OpenTelemetry stays with the module that is named after its protocol"
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
    "a tool calls out by itself": Break(CLIENT, "tools/http.py", "import httpx2"),
    "a room seals by itself": Break(CIPHERS, "realms.py", "import cryptography.fernet"),
    "wake-ups know their carrier": Break(NATS, "journal/wakeups.py", "import nats"),
    "the loop knows who follows it": Break(OTLP, "agent/step.py", "import opentelemetry.trace"),
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


def copy(folder: Path, broken: Break | None) -> None:
    """Copy what the linter reads into a folder, with one line more."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    if broken is not None:
        with (folder / "app" / broken.file).open("a", encoding="utf-8") as file:
            file.write(f"\n{broken.line}\n")


def lint(*folders: Path) -> list[str]:
    """Return the report on each folder; its last line is the exit status."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, *map(str, folders)],
        env={"PATH": os.defpath, "COLUMNS": "200"},
        capture_output=True,
        check=False,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    reports = done.stdout.split(MARK)[1:]
    assert len(reports) == len(folders), done.stderr
    return [report.strip() for report in reports]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The report on the house as it is, under "whole", and on it with each break."""
    folders = {name: tmp_path_factory.mktemp("house") for name in ["whole", *BREAKS]}
    for name, folder in folders.items():
        copy(folder, BREAKS.get(name))
    return dict(zip(folders, lint(*folders.values()), strict=True))


def test_the_house_keeps_all_contracts(reports: Mapping[str, str]) -> None:
    report = reports["whole"]

    assert report.endswith("status 0"), report
    assert f"Contracts: {len(contract_names())} kept, 0 broken" in report


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_noticed_by_its_contract_alone(name: str, reports: Mapping[str, str]) -> None:
    report = reports[name]

    assert report.endswith("status 1"), report
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
