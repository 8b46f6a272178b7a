"""Tools that come with the server."""

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import jsonschema
import pytest

from app import clock
from app.tools.base import Tool, ToolError
from app.tools.builtin import Datetime, Tasks, Wait
from app.tools.registry import Registry

pytestmark = pytest.mark.anyio


async def test_datetime_tells_the_time_in_utc() -> None:
    said = await Datetime().run({})

    match = re.fullmatch(r"(\S+) \((\w+day)\)", said)
    assert match
    moment = datetime.fromisoformat(match[1])
    assert moment.utcoffset() == timedelta(0)
    assert abs(moment - clock.now()) < timedelta(seconds=5)
    assert moment.strftime("%A") == match[2]


async def test_datetime_tells_the_time_in_the_zone_that_was_asked_for() -> None:
    said = await Datetime().run({"timezone": "Asia/Kolkata"})

    assert datetime.fromisoformat(said.split()[0]).utcoffset() == timedelta(hours=5, minutes=30)


@pytest.mark.parametrize("name", ["Atlantis", "", "../../etc/passwd", "/etc/passwd", "\0", "x" * 5_000, "Europe"])
async def test_zone_that_does_not_exist_is_the_models_mistake(name: str) -> None:
    with pytest.raises(ToolError, match="IANA name"):
        await Datetime().run({"timezone": name})


async def test_wait_says_how_long_it_was() -> None:
    assert await Wait().run({"seconds": 0.01}) == "Waited 0.01 s."


async def test_wait_that_is_cancelled_ends_at_once() -> None:
    async with asyncio.timeout(5):
        waiting = asyncio.ensure_future(Wait().run({"seconds": 60}))  # noqa: TID251 - the test cancels it
        await asyncio.sleep(0)

        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize("args", [{}, {"seconds": -1}, {"seconds": 61}, {"seconds": "5"}, {"seconds": 1, "minutes": 1}])
def test_wait_that_is_too_long_or_no_time_is_refused_by_its_schema(args: dict[str, Any]) -> None:
    assert Registry([Wait()]).fault(Wait(), args)


async def test_tasks_are_told_back_as_a_list_of_one_line_each() -> None:
    said = await Tasks().run({
        "tasks": [
            {"title": "read\nthe [x] paper", "status": "completed"},
            {"title": "write", "status": "in_progress"},
            {"title": "rest", "status": "pending"},
        ]
    })

    assert said == "1 of 3 tasks are completed.\n[x] read the [x] paper\n[>] write\n[ ] rest"


async def test_tasks_may_be_none() -> None:
    assert await Tasks().run({"tasks": []}) == "0 of 0 tasks are completed."


@pytest.mark.parametrize(
    "tasks",
    [
        [{"title": "", "status": "pending"}],
        [{"title": "x", "status": "done"}],
        [{"title": "x" * 501, "status": "pending"}],
        [{"title": "x", "status": "pending"}] * 101,
        [{"title": "x"}],
    ],
)
def test_tasks_of_a_wrong_form_are_refused_by_the_schema(tasks: list[Any]) -> None:
    assert Registry([Tasks()]).fault(Tasks(), {"tasks": tasks})


@pytest.mark.parametrize("tool", [Datetime(), Wait(), Tasks()])
def test_schemas_are_schemas_with_an_object_root(tool: Tool) -> None:
    jsonschema.Draft202012Validator.check_schema(tool.spec.input_schema)
    assert tool.spec.input_schema["type"] == "object"
    assert tool.is_idempotent
