"""`budget_limits` of sessions and turns: hard, counted over turns, and told before they are met."""

import asyncio
from typing import Any

import pytest

from tests.api import shapes
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

USAGE = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
PARIS = (scripts.text("Paris."), scripts.finish(usage=USAGE))


async def limited(service: Service, **limits: Any) -> Desk:
    """Open a session with a budget."""
    return Desk(service, (await service.create(budget_limits=limits))["session_id"])


async def test_model_is_not_asked_once_the_sessions_tokens_are_used_up(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tokens=60)
    await double.play(PARIS, PARIS)

    turns = [(await desk.start("Hello")).json() for _ in range(3)]

    assert [turn["status"] for turn in turns] == ["completed", "completed", "failed"]
    assert turns[2]["error"]["reason"] == "BUDGET_EXHAUSTED"
    assert (turns[2]["steps"], len(await double.requests())) == (0, 2)
    shapes.assert_log(await desk.log_at_rest())


async def test_warning_is_told_once_four_fifths_are_used(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tokens=110)
    call = scripts.tool_call("datetime", {})
    await double.play([call, scripts.finish("tool_calls", usage=USAGE | {"completion_tokens": 60})], PARIS)

    await desk.start("Hello")

    warnings = [event for event in await desk.log_at_rest() if event["type"] == "budget_warning"]
    assert [(w["budget_type"], w["used"], w["limit"], w["percent"]) for w in warnings] == [("tokens", 90, 110, 81)]


async def test_warning_is_told_also_where_the_turn_ends_with_that_step(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tokens=60)
    await double.play(PARIS)

    await desk.start("Hello")

    log = await desk.log_at_rest()
    shapes.assert_log(log)
    assert [event["percent"] for event in log if event["type"] == "budget_warning"] == [83]


async def test_answer_is_cut_when_it_passes_what_is_left_and_its_text_is_kept(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tokens=5)
    await double.play([scripts.tokens(200, rate=200), scripts.finish()])

    turn = (await desk.start("Hello")).json()

    assert (turn["status"], turn["error"]["reason"]) == ("failed", "BUDGET_EXHAUSTED")
    assert turn["text"]
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert (messages[-1]["content"][0]["text"], messages[-1]["stop_reason"]) == (turn["text"], "interrupted")
    again = (await desk.start("Hello")).json()
    assert (again["error"]["reason"], again["steps"]) == ("BUDGET_EXHAUSTED", 0)


async def test_none_of_the_calls_that_would_pass_the_limit_is_run(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tool_calls=1)
    calls = [scripts.tool_call("datetime", {}, index=n) for n in range(2)]
    await double.play([*calls, scripts.finish("tool_calls")], [calls[0], scripts.finish("tool_calls")], PARIS)

    turn, log = (await desk.start("Hello")).json(), await desk.log_at_rest()

    assert (turn["status"], turn["error"]["reason"], turn["tool_calls"]) == ("failed", "BUDGET_EXHAUSTED", 0)
    assert "tool_execution_started" not in [event["type"] for event in log]
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    shapes.assert_transcript(messages)
    assert [block["is_error"] for block in messages[-1]["content"]] == [True, True]
    assert (await desk.start("Again")).json()["status"] == "completed"


async def test_time_is_up_while_the_provider_is_silent(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_duration_seconds=1)
    await double.play([scripts.text("Par"), scripts.hang()])

    async with asyncio.timeout(5):
        turn = (await desk.start("Hello")).json()

    assert (turn["status"], turn["error"]["reason"], turn["text"]) == ("failed", "BUDGET_EXHAUSTED", "Par")
    assert (await double.ended(1)).closed_by_client_at is not None


async def test_time_of_waiting_for_a_caller_does_not_count(service: Service, double: ProviderDouble) -> None:
    tool = {"name": "weather", "description": "", "input_schema": {"type": "object"}}
    desk = Desk(
        service, (await service.create(external_tools=[tool], budget_limits={"max_duration_seconds": 1.5}))["session_id"]
    )
    await double.play([scripts.tool_call("weather", {}, call_id="w"), scripts.finish("tool_calls")], PARIS)
    turn_id = (await desk.start("Hello", ASYNC)).json()["turn_id"]
    await service.frames(f"{desk.path}/events", until=["tool_call_pending"])
    await asyncio.sleep(1.5)

    await service.client.post(f"{desk.path}/tool_results", json={"results": [{"tool_call_id": "w", "content": "sun"}]})

    await desk.log_at_rest()
    assert (await desk.turn(turn_id))["status"] == "completed"


@pytest.mark.parametrize("limits", [{"max_tokens": 0}, {"max_duration_seconds": 0}])
async def test_nothing_is_a_limit_too(service: Service, double: ProviderDouble, limits: dict[str, int]) -> None:
    desk = await limited(service, **limits)

    turn = (await desk.start("Hello")).json()

    assert (turn["error"]["reason"], await double.requests()) == ("BUDGET_EXHAUSTED", [])


async def test_patch_of_one_limit_leaves_the_others_and_null_takes_one_away(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tokens=0, max_duration_seconds=60)

    await service.client.patch(desk.path, json={"budget_limits": {"max_tool_calls": 3}})
    kept = (await desk.start("Hello")).json()
    await service.client.patch(desk.path, json={"budget_limits": {"max_tokens": None}})
    freed = (await desk.start("Hello")).json()

    assert (kept["error"]["reason"], freed["status"]) == ("BUDGET_EXHAUSTED", "completed")
    limits = [event["budget_limits"] for event in await desk.log_at_rest() if event["type"] == "session_updated"]
    assert limits[-1] == {"max_duration_seconds": 60, "max_tool_calls": 3}


async def test_summary_is_not_asked_for_once_the_tokens_are_used_up(service: Service, double: ProviderDouble) -> None:
    desk = await limited(service, max_tokens=100)
    await double.play(PARIS, PARIS)
    for _ in range(2):
        await desk.start("Hello")

    answer = await service.client.post(f"{desk.path}/compact")

    [*_, failed] = await desk.log_at_rest()
    assert (answer.status_code, failed["type"], len(await double.requests())) == (200, "compaction_failed", 2)
    assert "limit" in failed["error"]


async def test_limit_of_a_turn_counts_that_turn_alone(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play(PARIS, PARIS)

    turns = [(await desk.start("Hello", budget_limits={"max_tokens": 40})).json() for _ in range(2)]

    assert [turn["status"] for turn in turns] == ["completed", "completed"]


@pytest.mark.parametrize(
    "limits", [{"max_tokens": -1}, {"max_tokens": 1.5}, {"max_tool_calls": True}, {"tokens": 1}, {"max_duration_seconds": "1"}]
)
async def test_limits_that_cannot_be_are_refused(service: Service, limits: dict[str, Any]) -> None:
    answer = await service.client.post("/v1/sessions", json={"budget_limits": limits})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
