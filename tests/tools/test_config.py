"""The tools file, and the registry that is opened from it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.errors import StartupError
from app.outbound.addresses import Inside
from app.outbound.door import Door, Policy
from app.tools import config
from app.tools.builtin import Datetime
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tell the weather.",
    "input_schema": {"type": "object"},
    "url": "https://tools.example/weather",
}


def written(folder: Path, content: object) -> Path:
    """Write a tools file."""
    path = folder / "tools.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def door() -> Door:
    """Make a door that leads to 127.0.0.1 alone."""
    return Door(Policy(Inside.parse(["127.0.0.1"]), allows_http=True))


async def test_registry_has_built_ins_http_tools_and_those_of_servers(tmp_path: Path) -> None:
    async with listening(Endpoint(answer(b"sunny"))) as endpoint:
        program = {
            "transport": "stdio",
            "command": [sys.executable, "-m", "tests.tools.mcp_server", "stdio"],
            "environment": {"PYTHONPATH": str(ROOT)},
            "folder": str(ROOT),
            "connect_seconds": 20,
        }
        asked = config.read(
            written(tmp_path, {"http_tools": [WEATHER | {"url": endpoint.url()}], "mcp_servers": {"double": program}})
        )
        async with config.opened(asked, door(), [Datetime()]) as registry:
            snapshot = registry.snapshot()
            weather, add = snapshot.find("weather"), snapshot.find("double__add")

            assert registry.names() == ["datetime", "weather"]
            assert weather is not None
            assert await weather.run({}) == "sunny"
            assert add is not None
            assert await add.run({"a": 1, "b": 1}) == "1 + 1 = 2"
            assert snapshot.fault(add, {"a": "one"})


async def test_server_that_cannot_be_reached_does_not_stop_the_start(tmp_path: Path) -> None:
    server = {"transport": "stdio", "command": ["/no/such/program"]}
    asked = config.read(written(tmp_path, {"mcp_servers": {"gone": server}}))

    async with config.opened(asked, door(), [Datetime()]) as registry:
        assert registry.snapshot().names() == ["datetime"]


async def test_tool_that_is_named_like_a_built_in_stops_the_start(tmp_path: Path) -> None:
    asked = config.read(written(tmp_path, {"http_tools": [WEATHER | {"name": "datetime"}]}))

    with pytest.raises(StartupError, match="named 'datetime'"):
        async with config.opened(asked, door(), [Datetime()]):
            pass


async def test_file_of_nothing_opens_the_built_ins(tmp_path: Path) -> None:
    async with config.opened(config.read(written(tmp_path, {})), door(), [Datetime()]) as registry:
        assert registry.snapshot().names() == ["datetime"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"tools": []}, "tools: Extra inputs"),
        ({"http_tools": [WEATHER | {"name": "a__b"}]}, "http_tools.0.name: .*may not hold '__'"),
        ({"http_tools": [WEATHER | {"name": "a b"}]}, "http_tools.0.name"),
        ({"http_tools": [WEATHER | {"input_schema": {"type": "string"}}]}, "input_schema: .*of an object"),
        ({"http_tools": [WEATHER | {"input_schema": {"type": "object", "required": 1}}]}, "is no JSON Schema"),
        ({"http_tools": [WEATHER | {"timeout_seconds": 0}]}, "timeout_seconds"),
        ({"mcp_servers": {"a_": {"transport": "http", "url": "https://a.example/"}}}, "mcp_servers.a_"),
        ({"mcp_servers": {"a": {"transport": "smoke", "url": "https://a.example/"}}}, "mcp_servers.a"),
        ({"mcp_servers": {"a": {"transport": "stdio", "command": []}}}, "command"),
        ({"mcp_servers": {"a": {"transport": "http", "command": ["sh"], "url": "https://a.example/"}}}, "command"),
        ([], "file: "),
    ],
)
def test_file_that_is_not_valid_stops_the_start_and_names_the_place(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(StartupError, match=words):
        config.read(written(tmp_path, content))


def test_file_that_is_missing_or_no_json_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: No such file"):
        config.read(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(StartupError, match="not valid"):
        config.read(tmp_path / "broken.json")


def test_fault_shows_no_secret(tmp_path: Path) -> None:
    with pytest.raises(StartupError) as caught:
        config.read(written(tmp_path, {"http_tools": [WEATHER | {"headers": {"authorization": ["hush"]}}]}))

    assert "hush" not in str(caught.value)
