"""Tools may answer anything: the model reads text, or that there is none; nothing else happens."""

import re
import sys
from pathlib import Path

import orjson
import pytest

from app.providers.base import ToolSpec
from app.tools.base import ToolError
from app.tools.stdio import Program
from tests.hostile import NO_JSON, TEXTS, VALUES
from tests.tools import hostile_mcp
from tests.tools.endpoint import Endpoint, answer, listening
from tests.tools.test_http import tool
from tests.tools.test_mcp import ROOT, running

pytestmark = pytest.mark.anyio

PROGRAM = Program([sys.executable, "-m", "tests.tools.hostile_mcp"], {"PYTHONPATH": str(ROOT)}, Path(ROOT))


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/html; charset=no-such-charset"])
async def test_http_tool_gives_text_whatever_its_endpoint_says(kind: str) -> None:
    async with listening(Endpoint()) as endpoint:
        called = tool(endpoint)
        for text in TEXTS.values():
            endpoint.reply = answer(text.encode(), kind=kind)
            if kind == "text/plain":
                assert await called.run({"text": text}) == text
                assert endpoint.calls[-1]["args"] == {"text": text}
        for data in NO_JSON.values():
            endpoint.reply = answer(data, kind=kind)
            said = await called.run({"value": VALUES["texts as keys"]})
            assert orjson.loads(orjson.dumps(said)) == said


async def test_mcp_server_that_talks_nonsense_costs_nothing_but_its_own_tools() -> None:
    async with running(PROGRAM) as server:
        specs: list[ToolSpec] = [one.spec for one in server.tools()]
        names = [spec.name for spec in specs]
        said = {name: await server.call(name, {"value": VALUES}) for name in TEXTS}
    refused: dict[str, str] = {}
    async with running(PROGRAM, timeout_seconds=0.2) as server:
        for text in list(TEXTS.values())[: len(hostile_mcp.WRONG)]:
            try:
                orjson.dumps(await server.call(text, {}))
            except ToolError as error:
                refused[text] = str(error)

    assert said == TEXTS
    assert refused
    assert max(map(len, refused.values())) < 2_000
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"double__[a-zA-Z0-9_-]{1,56}", name) for name in names)
    assert not {name for name in names if name.startswith(("double__that_is", "double__of_a"))}
    for spec in specs:
        orjson.dumps([spec.description, spec.input_schema])
