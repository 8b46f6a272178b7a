"""Tools that come with the server."""

import re
from datetime import datetime, timedelta

import jsonschema
import pytest

from app import clock
from app.tools.base import ToolError
from app.tools.builtin import Datetime

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


def test_schemas_are_schemas_with_an_object_root() -> None:
    schema = Datetime.spec.input_schema

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert Datetime.is_idempotent
