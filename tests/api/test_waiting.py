"""Calls that callers answer: tools that they run, and approvals that they give."""

import asyncio
from typing import Any

import pytest

from tests.api import shapes
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = scripts.tool_call("weather", {"city": "Rome"}, call_id="call_w")
ANSWER = (scripts.text("Sunny."), scripts.finish())


async def opened(service: Service, **fields: Any) -> Desk:
    """Open a session whose model has a tool of its caller."""
    return Desk(service, (await service.create(external_tools=[WEATHER], **fields))["session_id"])


async def waiting(service: Service, desk: Desk) -> dict[str, Any]:
    """Start a turn, and return it once it waits."""
    turn_id = (await desk.start("Hello", ASYNC)).json()["turn_id"]
    async with asyncio.timeout(5):
        while (turn := await desk.turn(turn_id))["status"] != "waiting":
            await asyncio.sleep(0.01)
    return turn


async def give(service: Service, desk: Desk, *results: dict[str, Any], **headers: str) -> Any:
    """Answer calls."""
    return await service.client.post(f"{desk.path}/tool_results", json={"results": list(results)}, headers=headers)


SUNNY = {"tool_call_id": "call_w", "content": "21 °C", "is_error": False}


async def test_turn_waits_without_a_worker_and_goes_on_with_the_result(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play([CALL, scripts.finish("tool_calls")], ANSWER)

    turn = await waiting(service, desk)
    session = (await service.client.get(desk.path)).json()["state"]
    answer = await give(service, desk, SUNNY)

    shapes.assert_shaped(turn, shapes.TURN)
    [pending] = turn["pending_tool_calls"]
    assert (pending["id"], pending["name"], pending["kind"]) == ("call_w", "weather", "external")
    assert pending["args"] == {"city": "Rome"}
    assert (session["status"], session["is_active"], session["instance_id"]) == ("waiting", True, None)
    assert (answer.status_code, answer.json()["pending_tool_calls"]) == (200, [])
    log = await desk.log_at_rest()
    shapes.assert_log(log)
    types = [event["type"] for event in log]
    order = ["tool_call_requested", "tool_call_pending", "tool_execution_completed", "tool_result_received", "turn_completed"]
    assert [kind for kind in types if kind in order] == order
    assert "turn_resumed" not in types
    [completed] = [event for event in log if event["type"] == "tool_execution_completed"]
    assert completed["duration_ms"] > 0
    done = await desk.turn(turn["turn_id"])
    assert (done["status"], done["attempt"], done["text"], done["tool_calls"]) == ("completed", 1, "Sunny.", 1)
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    shapes.assert_transcript(messages)
    assert messages[2]["content"] == [{"type": "tool_result", "tool_use_id": "call_w", "content": "21 °C", "is_error": False}]


async def test_own_tools_run_meanwhile_and_results_stand_in_request_order(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    clock_call = scripts.tool_call("datetime", {}, call_id="call_d", index=1)
    await double.play([CALL, clock_call, scripts.finish("tool_calls")], ANSWER)

    await waiting(service, desk)
    log = await service.log_of(desk.id)
    await give(service, desk, SUNNY)

    assert [event["name"] for event in log if event["type"] == "tool_execution_completed"] == ["datetime"]
    await desk.log_at_rest()
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [block["tool_use_id"] for block in messages[2]["content"]] == ["call_w", "call_d"]


async def test_result_is_taken_once_and_a_batch_whole_or_not_at_all(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    other = scripts.tool_call("weather", {"city": "Oslo"}, call_id="call_x", index=1)
    await double.play([CALL, other, scripts.finish("tool_calls")], ANSWER)
    turn = await waiting(service, desk)

    mixed = await give(service, desk, SUNNY, {"tool_call_id": "nobody", "content": ""})
    twice = await give(service, desk, SUNNY, SUNNY)
    first = await give(service, desk, SUNNY)
    again = await give(service, desk, SUNNY)

    assert [answer.status_code for answer in (mixed, twice, first, again)] == [409, 409, 200, 409]
    assert again.json()["code"] == "TOOL_CALL_NOT_PENDING"
    assert first.json()["status"] == "waiting"
    last = await give(service, desk, {"tool_call_id": "call_x", "content": "rain", "is_error": True})
    assert last.status_code == 200
    await desk.log_at_rest()
    assert (await desk.turn(turn["turn_id"]))["status"] == "completed"


async def test_of_many_that_answer_at_once_one_counts(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play([CALL, scripts.finish("tool_calls")], ANSWER)
    await waiting(service, desk)

    answers = await asyncio.gather(*(give(service, desk, SUNNY) for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    log = await desk.log_at_rest()
    assert [event["type"] for event in log].count("tool_execution_completed") == 1


async def test_repeat_with_a_key_gets_the_same_answer(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play([CALL, scripts.finish("tool_calls")], ANSWER)
    await waiting(service, desk)

    first, again = [await give(service, desk, SUNNY, **{"Idempotency-Key": "k"}) for _ in range(2)]

    assert (first.status_code, again.status_code, again.headers["idempotency-replayed"]) == (200, 200, "true")
    assert first.json() == again.json()
    await desk.log_at_rest()


async def test_call_that_nobody_answers_in_time_gets_an_error_result(service: Service, double: ProviderDouble) -> None:
    short = WEATHER | {"timeout_seconds": 0.2}
    desk = Desk(service, (await service.create(external_tools=[short]))["session_id"])
    await double.play([CALL, scripts.finish("tool_calls")], ANSWER)

    answer = await desk.start("Hello")

    log = await desk.log_at_rest()
    [done] = [event for event in log if event["type"] == "tool_execution_completed"]
    assert (done["is_error"], answer.json()["status"]) == (True, "completed")
    late = await give(service, desk, SUNNY)
    assert late.status_code == 409


async def test_allowed_call_runs_and_denied_one_is_an_error_result(service: Service, double: ProviderDouble) -> None:
    desk = Desk(service, (await service.create(approval_tools=["datetime"]))["session_id"])
    calls = [scripts.tool_call("datetime", {}, index=n) for n in range(2)]
    await double.play([*calls, scripts.finish("tool_calls")], ANSWER)
    turn = await waiting(service, desk)

    assert [call["kind"] for call in turn["pending_tool_calls"]] == ["approval", "approval"]
    allowed = await service.client.post(f"{desk.path}/approvals/call_0", json={"decision": "allow"})
    denied = await service.client.post(f"{desk.path}/approvals/call_1", json={"decision": "deny", "message": "Not now."})
    again = await service.client.post(f"{desk.path}/approvals/call_1", json={"decision": "allow"})

    assert (allowed.status_code, denied.status_code, again.status_code) == (200, 200, 409)
    log = await desk.log_at_rest()
    shapes.assert_log(log)
    done = {event["id"]: event for event in log if event["type"] == "tool_execution_completed"}
    assert (done["call_0"]["is_error"], done["call_1"]["is_error"]) == (False, True)
    assert "Not now." in done["call_1"]["result"]
    assert [event["id"] for event in log if event["type"] == "tool_execution_started"] == ["call_0"]


async def test_callers_tool_under_approval_waits_for_leave_and_then_for_its_result(
    service: Service, double: ProviderDouble
) -> None:
    desk = await opened(service, approval_tools=["weather"])
    await double.play([CALL, scripts.finish("tool_calls")], ANSWER)
    turn = await waiting(service, desk)
    assert [call["kind"] for call in turn["pending_tool_calls"]] == ["approval"]
    assert (await give(service, desk, SUNNY)).status_code == 409

    await service.client.post(f"{desk.path}/approvals/call_w", json={"decision": "allow"})
    async with asyncio.timeout(5):
        while [call["kind"] for call in (await desk.turn(turn["turn_id"]))["pending_tool_calls"]] != ["external"]:
            await asyncio.sleep(0.01)

    assert (await give(service, desk, SUNNY)).status_code == 200
    await desk.log_at_rest()


async def test_interrupt_of_a_waiting_turn_answers_its_calls(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play([scripts.text("I ask."), CALL, scripts.finish("tool_calls")])
    await waiting(service, desk)

    answer = await service.client.post(f"{desk.path}/interrupt")

    assert (answer.status_code, answer.json()["status"], answer.json()["pending_tool_calls"]) == (200, "interrupted", [])
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    shapes.assert_transcript(messages)
    assert (await give(service, desk, SUNNY)).status_code == 409
    assert (await desk.start("Again")).json()["status"] == "completed"


async def test_steering_of_a_waiting_turn_enters_behind_its_results(service: Service, double: ProviderDouble) -> None:
    desk = await opened(service)
    await double.play([CALL, scripts.finish("tool_calls")], ANSWER)
    await waiting(service, desk)

    steered = await desk.start("In Celsius.", on_busy="steer")
    await give(service, desk, SUNNY)

    assert (steered.status_code, steered.json()["status"]) == (202, "waiting")
    await desk.log_at_rest()
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user", "assistant"]


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"external_tools": [WEATHER | {"name": "datetime"}]}, "external_tools.0.name"),
        ({"external_tools": [WEATHER, WEATHER]}, "external_tools.1.name"),
        ({"external_tools": [WEATHER | {"input_schema": {"type": "string"}}]}, "external_tools.0.input_schema"),
        (
            {"external_tools": [WEATHER | {"input_schema": {"type": "object", "properties": 1}}]},
            "external_tools.0.input_schema",
        ),
        ({"external_tools": [WEATHER | {"name": "no spaces"}]}, "external_tools.0.name"),
        ({"approval_tools": ["nothing"]}, "approval_tools.0"),
    ],
)
async def test_tools_that_cannot_be_are_refused(service: Service, fields: dict[str, Any], loc: str) -> None:
    answer = await service.client.post("/v1/sessions", json={"initial_turn": "defer", **fields})

    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, loc)


async def test_result_where_no_turn_is_live_is_refused(service: Service) -> None:
    desk = await opened(service)

    answer = await give(service, desk, SUNNY)

    assert (answer.status_code, answer.json()["code"]) == (409, "TOOL_CALL_NOT_PENDING")
