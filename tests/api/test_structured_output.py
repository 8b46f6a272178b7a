"""`output_schema`: the answer as a value, validated, and asked for again where it errs."""

from typing import Any

import pytest

from tests.api import shapes
from tests.api.desk import Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def said(text: str) -> Any:
    """Make an answer."""
    return (scripts.text(text), scripts.finish())


async def opened(service: Service, **fields: Any) -> Desk:
    """Open a session whose answers are values."""
    return Desk(service, (await service.create(output_schema=SCHEMA, **fields))["session_id"])


@pytest.mark.parametrize("text", ['{"city": "Paris"}', 'Here it is:\n```json\n{"city": "Paris"}\n```'])
async def test_answer_becomes_a_value(service: Service, double: ProviderDouble, text: str) -> None:
    desk = await opened(service)
    await double.play(said(text))

    turn, log = (await desk.start("Where?")).json(), await desk.log_at_rest()

    assert (turn["status"], turn["structured_output"], turn["text"]) == ("completed", {"city": "Paris"}, text)
    assert log[-1]["structured_output"] == {"city": "Paris"}
    [request] = await double.requests()
    assert "city" in request.body["messages"][0]["content"]


async def test_answer_that_errs_is_asked_for_again(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play(said("Paris."), said('{"town": "Paris"}'), said('{"city": "Paris"}'))

    turn = (await desk.start("Where?")).json()

    assert (turn["status"], turn["steps"], turn["structured_output"]) == ("completed", 3, {"city": "Paris"})
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user", "assistant"]
    shapes.assert_log(await desk.log_at_rest())


@pytest.mark.parametrize(("retries", "calls"), [(None, 3), (0, 1), (1, 2)])
async def test_turn_fails_after_the_last_try(service: Service, double: ProviderDouble, retries: int | None, calls: int) -> None:
    given = {} if retries is None else {"structured_output_retries": retries}
    desk = await opened(service, **given)
    await double.play(*[said("Paris.")] * 5)

    turn = (await desk.start("Where?")).json()

    assert (turn["status"], turn["error"]["reason"]) == ("failed", "STRUCTURED_OUTPUT_INVALID")
    assert (turn["text"], turn["structured_output"], len(await double.requests())) == ("Paris.", None, calls)


async def test_schema_of_a_turn_holds_for_it_alone(service: Service, double: ProviderDouble) -> None:
    desk = Desk(service, (await service.create())["session_id"])
    await double.play(said('{"city": "Paris"}'), said("Paris."))

    first = (await desk.start("Where?", output_schema=SCHEMA)).json()
    second = (await desk.start("Where?")).json()

    assert (first["structured_output"], second["structured_output"]) == ({"city": "Paris"}, None)


async def test_patch_sets_and_removes_the_schema(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play(said("Paris."))

    removed = await service.client.patch(desk.path, json={"output_schema": None})

    assert removed.status_code == 200
    assert (await desk.start("Where?")).json()["status"] == "completed"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": "object", "properties": {"a": {"$ref": "https://example.org/a.json"}}},
        {"type": "object", "properties": 5},
        {"type": "object", "description": "x" * 70_000},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)b"}}},
    ],
)
async def test_schema_that_cannot_be_judged_is_refused(service: Service, schema: dict[str, Any]) -> None:
    desk = Desk(service, (await service.create())["session_id"])

    answers = [
        await service.client.post("/v1/sessions", json={"prompt": "Where?", "output_schema": schema}),
        await desk.start("Where?", output_schema=schema),
        await service.client.patch(desk.path, json={"output_schema": schema}),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422]
    assert all(answer.json()["errors"][0]["loc"].startswith("output_schema") for answer in answers)
