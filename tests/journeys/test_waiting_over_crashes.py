"""A turn that waits for its caller, over kills and restarts: answered once, from any node, and never run twice."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.api import shapes
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LEASE = {"SURICATE_LEASE_SECONDS": "1"}
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object"}}
CALL = scripts.tool_call("weather", {}, call_id="call_w")
OWN_CALL = scripts.tool_call("datetime", {}, call_id="call_d", index=1)
PARIS = (scripts.text("Sunny."), scripts.finish())


async def waiting(service: Service, session_id: str, turn_id: str) -> dict[str, Any]:
    """Return the turn once it waits."""
    async with asyncio.timeout(10):
        while True:
            view: dict[str, Any] = (await service.client.get(f"/v1/sessions/{session_id}/turns/{turn_id}")).json()
            if view["status"] == "waiting":
                return view
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["external", "approval"])
async def test_turn_that_waits_is_answered_after_a_kill_and_a_restart(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble, kind: str
) -> None:
    settings = LEASE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    fields: dict[str, Any] = {"external_tools": [WEATHER]} if kind == "external" else {"approval_tools": ["datetime"]}
    calls = [CALL, OWN_CALL] if kind == "external" else [OWN_CALL]
    await double.play([*calls, scripts.finish("tool_calls")], PARIS)
    before = await serve(**settings)
    created = await before.create("Hello", **fields)
    session_id, turn_id = created["session_id"], created["turn"]["turn_id"]
    pending = (await waiting(before, session_id, turn_id))["pending_tool_calls"]
    await before.kill()

    after = await serve(**settings)
    assert (await waiting(after, session_id, turn_id))["pending_tool_calls"] == pending
    if kind == "external":
        body = {"results": [{"tool_call_id": "call_w", "content": "sun"}]}
        answer = await after.client.post(f"/v1/sessions/{session_id}/tool_results", json=body)
    else:
        answer = await after.client.post(f"/v1/sessions/{session_id}/approvals/call_d", json={"decision": "allow"})
    view = await after.ended(session_id, turn_id)

    log = await after.log_of(session_id)
    shapes.assert_log(log)
    assert (answer.status_code, view["status"], view["text"], view["attempt"]) == (200, "completed", "Sunny.", 1)
    assert [event["id"] for event in log if event["type"] == "tool_execution_started"] == ["call_d"]
    messages = (await after.client.get(f"/v1/sessions/{session_id}/messages")).json()["messages"]
    shapes.assert_transcript(messages)


async def test_answer_given_to_one_node_goes_on_from_a_turn_of_another_that_was_killed(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    settings = LEASE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    one, other = await serve(**settings), await serve(**settings)
    await double.play([CALL, scripts.finish("tool_calls")], [scripts.text("Sun"), scripts.hang()], PARIS)
    created = await one.create("Hello", external_tools=[WEATHER])
    session_id, turn_id = created["session_id"], created["turn"]["turn_id"]
    await waiting(one, session_id, turn_id)

    body = {"results": [{"tool_call_id": "call_w", "content": "sun"}]}
    await one.client.post(f"/v1/sessions/{session_id}/tool_results", json=body)
    await other.frames(f"/v1/sessions/{session_id}/events", until=["text_delta"])
    await one.kill()
    view = await other.ended(session_id, turn_id)

    log = await other.log_of(session_id)
    shapes.assert_log(log)
    assert (view["status"], view["text"], view["attempt"]) == ("completed", "Sunny.", 2)
    assert [event["type"] for event in log].count("tool_execution_completed") == 1
    again = await other.client.post(f"/v1/sessions/{session_id}/tool_results", json=body)
    assert again.status_code == 409


async def test_words_that_steer_outlive_a_kill(serve: Callable[..., Awaitable[Service]], double: ProviderDouble) -> None:
    settings = LEASE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    await double.play([scripts.text("Par"), scripts.hang()], [scripts.text("Paris."), scripts.finish()], PARIS)
    before = await serve(**settings)
    created = await before.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await before.frames(f"{path}/events", until=["text_delta"])
    steered = await before.client.post(f"{path}/turns", json={"prompt": "And the weather?", "on_busy": "steer"})
    await before.kill()

    after = await serve(**settings)
    view = await after.ended(created["session_id"], created["turn"]["turn_id"])

    log = await after.log_of(created["session_id"])
    shapes.assert_log(log)
    assert (steered.status_code, view["status"], view["text"], view["steps"]) == (202, "completed", "Sunny.", 2)
    assert [event["prompt"] for event in log if event["type"] == "turn_steered"] == ["And the weather?"]
