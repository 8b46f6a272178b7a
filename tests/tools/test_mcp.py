"""MCP servers, against one made with the SDK: as a program, and over HTTP in a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mcp import types

from app.outbound.addresses import Inside
from app.outbound.door import Door, Policy
from app.tools.base import ToolError
from app.tools.mcp import (
    MOST_DESCRIPTION_CHARACTERS,
    MOST_NAME_CHARACTERS,
    MOST_SCHEMA_BYTES,
    McpTool,
    Place,
    Remote,
    Server,
    tool_name,
)
from app.tools.stdio import Program
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.tools.mcp_server"]
PROGRAM = Program([*COMMAND, "stdio"], {"PYTHONPATH": str(ROOT)}, ROOT)
LIMIT_SECONDS = 30
LISTS_NOTHING = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "a", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
    elif "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": 5}}), flush=True)
"""


@asynccontextmanager
async def running(
    place: Place,
    *,
    timeout_seconds: float = 20,
    connect_seconds: float = 20,
    relist_seconds: float = 60,
    max_response_bytes: int = 4_000_000,
) -> AsyncIterator[Server]:
    """Run a server for the length of the block."""
    policy = Policy(Inside.parse(["127.0.0.1"]), allows_http=True, max_response_bytes=max_response_bytes)
    server = Server(
        "double",
        place,
        Door(policy),
        timeout_seconds=timeout_seconds,
        connect_seconds=connect_seconds,
        relist_seconds=relist_seconds,
    )
    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.run())
        await server.settled()
        yield server
        task.cancel()


class Remotely:
    """The double over HTTP: started, killed and started again on one port."""

    def __init__(self) -> None:
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def place(self) -> Remote:
        return Remote(f"http://127.0.0.1:{self._port}/mcp", {"authorization": "Bearer secret"})

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND, "http", str(self._port), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._port = int(await self._process.stdout.readline())

    async def kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@pytest.fixture
async def remotely() -> AsyncIterator[Remotely]:
    """The double over HTTP, started."""
    double = Remotely()
    await double.start()
    yield double
    await double.kill()


@pytest.fixture(params=["stdio", "http"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """The double, both ways."""
    if request.param == "stdio":
        yield PROGRAM
        return
    double = Remotely()
    await double.start()
    yield double.place
    await double.kill()


def find(server: Server, name: str) -> McpTool:
    """Return the tool that a model knows under this name."""
    return next(tool for tool in server.tools() if tool.spec.name == name)


async def refusal(server: Server, name: str, args: dict[str, object]) -> str:
    """Call a tool that fails and return what the model reads."""
    with pytest.raises(ToolError) as caught:
        await server.call(name, args)
    return str(caught.value)


async def test_tools_are_listed_under_their_servers_name_and_called_under_their_own(place: Place) -> None:
    async with running(place) as server:
        tool = find(server, "double__add")
        odd = next(tool for tool in server.tools() if tool.spec.name.startswith("double__odd_name"))

        assert tool.spec.description == "Add two numbers."
        assert tool.spec.input_schema["required"] == ["a", "b"]
        assert tool.is_idempotent
        assert not odd.is_idempotent
        assert await tool.run({"a": 1, "b": 2}) == "1 + 2 = 3"
        assert await odd.run({}) == "odd"


async def test_text_blocks_are_joined_and_others_are_named(place: Place) -> None:
    async with running(place) as server:
        assert await server.call("blocks", {}) == "one\n\n[left out: image/png]\n\ntwo"


async def test_failure_is_an_error_with_the_servers_words(place: Place) -> None:
    async with running(place) as server:
        assert "out of milk" in await refusal(server, "fail", {"why": "out of milk"})
        assert await refusal(server, "no such tool", {})


async def test_call_has_a_deadline_and_the_others_go_on(place: Place) -> None:
    async with running(place, timeout_seconds=0.5) as server:
        said = await refusal(server, "hang", {})

        assert said == "The tool server 'double' did not answer within 0.5 s."
        assert await server.call("add", {"a": 1, "b": 1}) == "1 + 1 = 2"


async def test_calls_run_side_by_side(place: Place) -> None:
    async with running(place) as server, asyncio.TaskGroup() as tasks:
        hanging = tasks.create_task(server.call("hang", {}))
        said = await asyncio.gather(*(server.call("add", {"a": n, "b": 0}) for n in range(20)))
        hanging.cancel()

    assert said == [f"{n} + 0 = {n}" for n in range(20)]


async def test_program_that_dies_in_a_call_is_told_and_the_next_call_starts_it_again() -> None:
    async with running(PROGRAM) as server:
        first = await server.call("pid", {})
        said = await refusal(server, "die", {})
        second = await server.call("pid", {})

    assert "whether the call was carried out is unknown" in said
    assert first != second


async def test_program_that_died_between_calls_is_started_again_by_the_next() -> None:
    async with running(PROGRAM) as server:
        first = await server.call("pid", {})
        os.kill(int(first), signal.SIGKILL)
        while server._is_open:
            await asyncio.sleep(0.01)

        assert await server.call("pid", {}) != first


async def test_server_that_was_started_anew_is_called_without_an_error(remotely: Remotely) -> None:
    async with running(remotely.place) as server:
        first = await server.call("pid", {})
        await remotely.kill()
        await remotely.start()

        assert await server.call("pid", {}) != first


async def test_server_that_is_down_is_an_error_without_its_address_until_it_is_up(remotely: Remotely) -> None:
    async with running(remotely.place) as server:
        await remotely.kill()
        said = [await refusal(server, "pid", {}) for _ in range(2)]
        await remotely.start()

        assert not any("127.0.0.1" in words for words in said)
        assert said[1] == "The tool server 'double' cannot be reached now."
        assert await server.call("pid", {})


async def test_list_that_grows_is_seen_by_those_who_look_again() -> None:
    async with running(PROGRAM, relist_seconds=0.05) as server:
        before = server.tools()
        await server.call("grow", {})
        while len(server.tools()) == len(before):
            await asyncio.sleep(0.01)

        assert "double__grown" in [tool.spec.name for tool in server.tools()]
        assert "double__grown" not in [tool.spec.name for tool in before]


async def test_answer_over_the_limit_costs_the_connection_and_no_more(remotely: Remotely) -> None:
    async with running(PROGRAM) as server:
        assert "was lost" in await refusal(server, "big", {"size": 5_000_000})
        assert await server.call("add", {"a": 1, "b": 1}) == "1 + 1 = 2"
    async with running(remotely.place, max_response_bytes=100_000) as server:
        assert await refusal(server, "big", {"size": 5_000_000})
        assert await server.call("add", {"a": 1, "b": 1}) == "1 + 1 = 2"


async def test_stopping_ends_the_program_and_what_it_started() -> None:
    async with running(PROGRAM) as server:
        pids = [int(await server.call("pid", {})), int(await server.call("spawn", {}))]

    async with asyncio.timeout(LIMIT_SECONDS):
        while any(_is_alive(pid) for pid in pids):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "place",
    [
        Program(["/no/such/program"]),
        Program([sys.executable, "-c", "print('no MCP here')"]),
        Program([sys.executable, "-c", "import time; time.sleep(60)"]),
    ],
    ids=["missing", "ends", "silent"],
)
async def test_program_that_is_no_server_has_no_tools_and_stops_nothing(place: Place) -> None:
    async with running(place, connect_seconds=0.5) as server:
        assert server.tools() == ()
        assert await refusal(server, "add", {}) == "The tool server 'double' cannot be reached now."


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"<html>", kind="text/html"),
        answer(status=307, head="location: http://10.0.0.1/\r\n"),
        answer(status=500),
        b"\0\n\n",
    ],
    ids=["page", "redirect", "failing", "no HTTP"],
)
async def test_endpoint_that_is_no_server_has_no_tools_and_stops_nothing(reply: bytes) -> None:
    async with listening(Endpoint(reply)) as endpoint, running(Remote(endpoint.url()), connect_seconds=2) as server:
        assert server.tools() == ()
        assert await refusal(server, "add", {}) == "The tool server 'double' cannot be reached now."


async def test_place_that_was_not_let_in_is_not_called() -> None:
    async with listening(Endpoint()) as endpoint, running(Remote(endpoint.url("127.0.0.2"))) as server:
        assert server.tools() == ()

    assert endpoint.heads == []


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "object", "properties": 7},
        {"type": "object", "description": "x" * MOST_SCHEMA_BYTES},
        {"type": "object", "default": 2**80},
    ],
    ids=["empty", "no object", "invalid", "too large", "no JSON"],
)
async def test_tool_whose_schema_no_model_can_be_given_is_left_out(schema: dict[str, Any]) -> None:
    server = Server("double", PROGRAM, Door(Policy()))

    assert server._tool(types.Tool(name="odd", input_schema=schema)) is None


async def test_description_without_end_is_cut() -> None:
    listed = types.Tool(name="long", description="x" * 1_000_000, input_schema={"type": "object"})

    tool = Server("double", PROGRAM, Door(Policy()))._tool(listed)

    assert tool is not None
    assert len(tool.spec.description) == MOST_DESCRIPTION_CHARACTERS


@pytest.mark.parametrize("tool", ["a.b", "a/b", "", "ü", "x" * 65, "a b", "\ud800", "read\n"])
def test_name_that_no_vendor_takes_is_made_to_fit_and_stays_apart(tool: str) -> None:
    name = tool_name("files", tool)

    assert name.startswith("files__")
    assert len(name) <= MOST_NAME_CHARACTERS
    assert name.replace("_", "").replace("-", "").isalnum()
    assert name.isascii()
    assert name not in {tool_name("files", tool + "."), tool_name("files", tool.replace(".", "_") + "_")}


def test_name_that_fits_is_kept() -> None:
    assert tool_name("files", "read-all_2") == "files__read-all_2"
    assert tool_name("f", "x" * 61) == "f__" + "x" * 61


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_server_that_only_fails_is_given_up_at_once_when_this_one_stops(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", LISTS_NOTHING], {}, tmp_path)

    async with running(program) as server:
        is_open = await server.settled()

    assert not is_open
    assert server.tools() == ()
