"""HTTP tools, against an endpoint on loopback."""

from typing import Any

import pytest

from app.outbound.addresses import Inside
from app.outbound.door import Door, Policy
from app.providers.base import ToolSpec
from app.tools import http
from app.tools.base import ToolError, calling
from app.tools.http import HttpTool
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = pytest.mark.anyio

SPEC = ToolSpec("weather", "Tell the weather.", {"type": "object"})


def tool(endpoint: Endpoint, *, timeout_seconds: float = 10, host: str = "127.0.0.1") -> HttpTool:
    """Make the tool that calls an endpoint, with a door that leads to 127.0.0.1 alone."""
    door = Door(Policy(Inside.parse(["127.0.0.1"]), allows_http=True))
    place = http.Endpoint(endpoint.url(host), {"authorization": "Bearer secret"}, timeout_seconds)
    return HttpTool(SPEC, place, door)


async def test_call_is_posted_with_its_id_and_the_answer_is_the_result() -> None:
    async with listening(Endpoint(answer(b'{"degrees": 21}', kind="application/json"))) as endpoint:
        with calling("call_7"):
            said = await tool(endpoint).run({"city": "Paris"})

    assert said == '{"degrees": 21}'
    assert endpoint.calls == [{"tool_call_id": "call_7", "name": "weather", "args": {"city": "Paris"}}]
    assert "authorization: bearer secret" in endpoint.heads[0].lower()
    assert "content-type: application/json" in endpoint.heads[0].lower()


async def test_call_outside_of_a_turn_has_no_id() -> None:
    async with listening(Endpoint()) as endpoint:
        said = await tool(endpoint).run({})

    assert said == ""
    assert endpoint.calls == [{"name": "weather", "args": {}}]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(b"no such city", status=404), "The tool refused the call (404): no such city"),
        (answer(b"x" * 5_000, status=400), "The tool refused the call (400): " + "x" * http.MOST_EXPLANATION),
        (answer(b"at 10.0.0.3:5432", status=500), "The tool's endpoint failed with status 500."),
        (answer(b"\0\1", status=403, kind="image/png"), "The tool's endpoint failed with status 403."),
        (answer(status=302, head="location: http://10.0.0.3/\r\n"), "a redirect, which is not followed."),
        (answer(b"\x89PNG", kind="image/png"), "neither text nor JSON"),
        (b"nonsense\r\n\r\n", "The tool could not be reached: The connection failed"),
    ],
)
async def test_what_is_no_result_is_an_error_for_the_model(reply: bytes, words: str) -> None:
    async with listening(Endpoint(reply)) as endpoint:
        with pytest.raises(ToolError) as caught:
            await tool(endpoint).run({})

    assert words in str(caught.value)
    assert "10.0.0.3" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


async def test_place_that_was_not_let_in_is_not_called() -> None:
    async with listening(Endpoint()) as endpoint:
        with pytest.raises(ToolError, match="may not be reached from here"):
            await tool(endpoint, host="127.0.0.2").run({})

    assert endpoint.heads == []


async def test_slow_endpoint_is_given_up_at_the_tools_own_deadline() -> None:
    async with listening(Endpoint(None)) as endpoint:
        with pytest.raises(ToolError, match=r"within 0\.1 s"):
            await tool(endpoint, timeout_seconds=0.1).run({})


@pytest.mark.parametrize("args", [{"n": 2**80}, {"text": "\ud800"}])
async def test_arguments_that_are_no_json_are_the_models_mistake(args: dict[str, Any]) -> None:
    async with listening(Endpoint()) as endpoint:
        with pytest.raises(ToolError, match="cannot be written as JSON"):
            await tool(endpoint).run(args)


def test_headers_are_not_shown() -> None:
    assert "secret" not in repr(http.Endpoint("https://tools.example/", {"authorization": "secret"}))
