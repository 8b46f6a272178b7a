"""The README keeps its word: its commands are there, its table is the settings, its session runs as it stands."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer.main
import yaml  # type: ignore[import-untyped]

from app import settings
from app.cli import cli
from app.settings import Settings
from tests.project.source import README, ROOT, blocks, documents, relative, rows, section
from tests.service import Service

pytestmark = pytest.mark.anyio

ADDRESS = "http://127.0.0.1:8000"
BLOCK_SECONDS = 20
MARK = "== that was all =="
PROMISES = {f"G{number}" for number in range(1, 16)}


@dataclass
class Shell:
    """One bash that remembers, as a reader's terminal does."""

    process: asyncio.subprocess.Process

    @classmethod
    @asynccontextmanager
    async def started(cls, home: Path) -> AsyncIterator["Shell"]:
        """Start it in a folder that is its home, too."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-u", cwd=home, env={"PATH": os.defpath, "HOME": str(home)}, limit=2**24,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def run(self, block: str) -> str:
        """Type a block, and return what it printed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{block}\nprintf '\\n%s\\n' '{MARK}'\n".encode())
        printed: list[str] = []
        async with asyncio.timeout(BLOCK_SECONDS):
            async for line in self.process.stdout:
                if line.decode().strip() == MARK:
                    return "".join(printed).strip()
                printed.append(line.decode())
        raise AssertionError(f"bash ended in:\n{block}")


def test_the_commands_of_every_document_exist() -> None:
    usage = set(re.findall(r"^\./run (\w+)", (ROOT / "run").read_text(encoding="utf-8"), re.MULTILINE))
    subcommands = set(typer.main.get_group(cli).commands)
    said = {
        (relative(page), name)
        for page in documents()
        for name in re.findall(r"(?:\./run|suricate) (serve|migrate|worker|[a-z]+)(?=`| *$)", page.read_text(encoding="utf-8"))
    }

    assert {"serve", "test"} <= {name for _, name in said}
    assert {(page, name) for page, name in said if name not in usage | subcommands} == set()
    assert subcommands <= usage


def test_the_table_of_settings_is_what_the_code_reads() -> None:
    told = rows(section(README, "Settings"))

    assert told == [
        [f"`{Settings.variables()[name]}`", _default(field.default), _meaning(name, field.description or "")]
        for name, field in Settings.model_fields.items()
    ]


def test_no_document_names_a_setting_that_is_gone() -> None:
    known = set(Settings.variables().values())
    known |= set(re.findall(r"SURICATE_DB_\w+", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    named = {name for page in documents() for name in re.findall(r"SURICATE_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8"))}

    assert named <= known


def test_compose_names_settings_that_exist_and_takes_the_others_from_a_file() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    node = compose["services"]["node"]

    assert node["environment"].keys() <= set(Settings.variables().values())
    assert node["env_file"] == [{"path": ".env", "required": False}]
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_empty_setting_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.variables().values():
        monkeypatch.delenv(name, raising=False)
    unset = settings.read()
    for name in Settings.variables().values():
        monkeypatch.setenv(name, "")

    assert settings.read() == unset


def test_each_promise_has_a_number_and_tests_that_exist() -> None:
    promised = rows(section(README, "What is promised"))

    assert promised
    for number, promise, proofs in promised:
        files = re.findall(r"`(tests/[^`]+)`", proofs)
        assert number in PROMISES
        assert promise
        assert files, f"{number} names no test"
        assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="the session is written for curl")
@pytest.mark.slow
async def test_the_curl_session_runs_as_it_stands(tmp_path: Path) -> None:
    create, kill, read_on, second, stop, look = _session()
    rate = {"SURICATE_SCRIPTED_TOKENS_PER_SECOND": "200"}
    async with Shell.started(tmp_path) as shell:
        async with Service.started(tmp_path, rate) as service:
            address = service.base_url
            seen = _events(await shell.run(create.replace(ADDRESS, address)))
            await shell.run(kill)
            async with asyncio.timeout(BLOCK_SECONDS):
                assert await service.process.wait() == -9
        async with Service.started(tmp_path, rate | {"SURICATE_PORT": address.rpartition(":")[2]}) as service:
            rest = _events(await shell.run(read_on))
            answer = orjson.loads(await shell.run(second))
            accepted, stopped = _objects(await shell.run(stop))
            listed, messages, archived = _objects(await shell.run(look))
            await service.terminate()

    numbers = [event["seq"] for event in seen + rest]
    assert numbers == list(range(2, len(numbers) + 2))
    assert "turn_resumed" in {event["type"] for event in rest}
    assert rest[-1]["type"] == "turn_completed"
    assert (answer["status"], answer["number"]) == ("completed", 2)
    assert accepted["status"] == "running"
    assert (stopped["status"], stopped["turn_id"]) == ("interrupted", accepted["turn_id"])
    assert stopped["text"]
    assert [session["session_id"] for session in listed["sessions"]] == [stopped["session_id"]]
    assert messages["messages"][-1]["stop_reason"] == "interrupted"
    assert archived["state"]["status"] == "archived"


def _session() -> list[str]:
    wanted = [block for block in blocks(README, "bash") if not block.startswith("./run")]
    assert f"{ADDRESS}/v1/sessions" in wanted[0]
    return wanted


def _events(printed: str) -> list[dict[str, Any]]:
    """Return the events whose frames arrived whole."""
    events = []
    for line in printed.splitlines():
        if line.startswith("data: {"):
            try:
                events.append(orjson.loads(line.removeprefix("data: ")))
            except orjson.JSONDecodeError:
                break
    return events


def _objects(printed: str) -> list[Any]:
    """Return JSON objects that stand one behind the other."""
    return list(map(orjson.loads, re.sub(r"\}\s*\{\"", '}\n{"', printed).split("\n")))


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{orjson.dumps(value).decode()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _meaning(name: str, description: str) -> str:
    return f"Seconds. {description}" if name.endswith("_seconds") else description
