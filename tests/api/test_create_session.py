"""`POST /v1/sessions`: the four ways of asking, the deferred turn, and every field that takes effect."""

from typing import Any

import httpx2
import pytest

from tests.api import shapes
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service, read_frames

pytestmark = pytest.mark.anyio

BUILTINS = ["datetime", "wait", "tasks"]

DOUBLE = {"model": "double", "provider": "openai_compatible"}
ODD = 'NUL \0, quote ", back\\slash, line\nfeed, \x85, \u2028, \u2029, é, 漢字, 😀, \x7f, \ufffd, e\u0301'


async def post(service: Service, body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await service.client.post("/v1/sessions", json=body, headers=headers)


async def test_plain_create_waits_for_the_ended_turn(service: Service) -> None:
    answer = await post(service, {"prompt": "Hello", **DOUBLE})

    created = answer.json()
    assert answer.status_code == 201
    assert created.keys() == {"session_id", "session", "turn"}
    assert answer.headers["location"] == f"/v1/sessions/{created['session_id']}"
    assert answer.headers["content-type"] == "application/json"
    shapes.assert_shaped(created["session"], shapes.SESSION)
    shapes.assert_shaped(created["turn"], shapes.TURN)
    assert created["turn"]["status"] == "completed"
    assert created["session"]["state"]["status"] == "idle"


async def test_views_agree_with_each_other_and_with_the_provider(service: Service, double: ProviderDouble) -> None:
    usage = {"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24}
    await double.play([scripts.words("It is Paris."), scripts.finish(usage=usage)])

    created = (await post(service, {"prompt": "Hello", "title": "T", "labels": {"a": "b"}, **DOUBLE})).json()

    state, turn = created["session"]["state"], created["turn"]
    session_id = created["session_id"]
    assert state == {
        "session_id": session_id, "created_at": state["created_at"], "updated_at": state["updated_at"], "archived_at": None,
        "title": "T", "labels": {"a": "b"}, "model": "double", "provider": "openai_compatible", "status": "idle",
        "is_active": False, "current_turn_id": None, "queued_turns": 0, "message_count": 2,
        "last_assistant_text": "It is Paris.",
        "last_seq": state["last_seq"], "instance_id": None, "backend": "postgres",
        "config_generation": state["config_generation"],
    }  # fmt: skip
    counts = {"input_tokens": 21, "output_tokens": 3, "cache_creation_tokens": 0, "cache_read_tokens": 0}
    assert created["session"]["billing"] == {"total_tokens": 24, "usage": counts}
    assert turn == {
        "session_id": session_id, "turn_id": turn["turn_id"], "number": 1, "status": "completed", "text": "It is Paris.",
        "steps": 1, "tool_calls": 0, "attempt": 1, "usage": {**counts, "total_tokens": 24}, "stop_reason": "end_turn",
        "structured_output": None, "schema_warnings": [], "skill_diagnostics": None, "pending_tool_calls": [], "error": None,
        "created_at": turn["created_at"], "started_at": turn["started_at"], "ended_at": turn["ended_at"],
        "first_seq": 2, "last_seq": state["last_seq"],
    }  # fmt: skip
    assert turn["created_at"] <= turn["started_at"] <= turn["ended_at"]
    assert (await service.client.get(f"/v1/sessions/{session_id}")).json() == created["session"]
    assert (await service.client.get(f"/v1/sessions/{session_id}/turns/{turn['turn_id']}")).json() == turn


async def test_respond_async_answers_201_with_the_live_turn(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])

    answer = await post(service, {"prompt": "Hello", **DOUBLE}, Prefer="respond-async")

    created = answer.json()
    state = created["session"]["state"]
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "respond-async"
    assert created["turn"]["status"] == "running"
    assert created["turn"]["ended_at"] is created["turn"]["stop_reason"] is None
    assert (state["status"], state["is_active"]) == ("running", True)
    assert state["current_turn_id"] == created["turn"]["turn_id"]
    assert shapes.is_id(state["instance_id"])
    await service.client.post(f"/v1/sessions/{created['session_id']}/interrupt")


async def test_wait_answers_201_when_the_time_is_up(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.hang()])

    answer = await post(service, {"prompt": "Hello", **DOUBLE}, Prefer="wait=1")

    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.json()["turn"]["status"] == "running"
    await service.client.post(f"/v1/sessions/{answer.json()['session_id']}/interrupt")


async def test_wait_answers_201_as_soon_as_the_turn_has_ended(service: Service) -> None:
    answer = await post(service, {"prompt": "Hello", **DOUBLE}, Prefer="wait=20")

    assert (answer.status_code, answer.json()["turn"]["status"]) == (201, "completed")


async def test_stream_answers_201_and_ends_after_the_terminal_event(service: Service) -> None:
    headers = {"Accept": "text/event-stream"}
    async with service.client.stream("POST", "/v1/sessions", json={"prompt": "Hello", **DOUBLE}, headers=headers) as answer:
        frames = [frame async for frame in read_frames(answer)]

    session_id = frames[0].data["session_id"]
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/sessions/{session_id}"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [frame.id for frame in frames] == list(range(2, len(frames) + 2))
    assert frames[-1].event == "turn_completed"
    assert [frame.data for frame in frames] == (await service.log_of(session_id))[1:]


@pytest.mark.parametrize("how", [{}, {"Prefer": "respond-async"}, {"Prefer": "wait=5"}, {"Accept": "text/event-stream"}])
@pytest.mark.parametrize("fields", [{}, {"initial_turn": "defer"}, {"initial_turn": "defer", "prompt": "kept"}])
async def test_create_without_a_turn_answers_at_once_in_every_way_of_asking(
    service: Service, how: dict[str, str], fields: dict[str, str]
) -> None:
    answer = await post(service, {**DOUBLE, **fields}, **how)

    assert answer.status_code == 201
    assert answer.json()["turn"] is None
    assert answer.json()["session"]["state"]["last_seq"] == 1


async def test_failed_first_turn_still_creates_and_tells_the_session(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.status(401)])

    answer = await post(service, {"prompt": "Hello", **DOUBLE})

    created = answer.json()
    assert answer.status_code == 201
    assert created["turn"]["status"] == "failed"
    assert created["turn"]["error"]["code"] == "AGENT_ERROR"
    assert created["turn"]["error"]["reason"] == "PROVIDER_AUTH"
    assert (await service.client.get(f"/v1/sessions/{created['session_id']}")).status_code == 200


async def test_kept_prompt_opens_the_first_turns_user_message(service: Service, double: ProviderDouble) -> None:
    created = await service.create(initial_turn="defer", prompt=[{"type": "text", "text": "Kept."}])

    await service.client.post(f"/v1/sessions/{created['session_id']}/turns", json={"prompt": "Now."})
    await service.client.post(f"/v1/sessions/{created['session_id']}/turns", json={"prompt": "Again."})

    first, second = [request.body["messages"] for request in await double.requests()]
    assert first == [{"role": "user", "content": "Kept.\n\nNow."}]
    assert second[-1] == {"role": "user", "content": "Again."}
    messages = (await service.client.get(f"/v1/sessions/{created['session_id']}/messages")).json()["messages"]
    assert messages[0]["content"] == [{"type": "text", "text": "Kept."}, {"type": "text", "text": "Now."}]


async def test_system_prompt_max_tokens_and_params_reach_the_provider(service: Service, double: ProviderDouble) -> None:
    body = {"system_prompt": "Be brief.", "max_tokens": 7, "provider_params": {"temperature": 0.5}, "prompt": "Hello", **DOUBLE}

    created = (await post(service, body)).json()

    asked = (await double.received(1)).body
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert (asked["max_tokens"], asked["temperature"]) == (7, 0.5)
    assert created["session"]["state"]["message_count"] == 3


@pytest.mark.parametrize(("tools", "names"), [(None, BUILTINS), ({"builtins": True}, BUILTINS), ({"builtins": False}, [])])
async def test_builtin_tools_are_offered_unless_switched_off(
    service: Service, double: ProviderDouble, tools: dict[str, bool] | None, names: list[str]
) -> None:
    await post(service, {"prompt": "Hello", "tools": tools, **DOUBLE})

    asked = (await double.received(1)).body
    assert [tool["function"]["name"] for tool in asked.get("tools", [])] == names


async def test_odd_characters_round_trip_byte_for_byte_through_every_door(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text(ODD), scripts.finish()])
    body = {"prompt": ODD, "system_prompt": ODD, "title": ODD, "labels": {ODD: ODD}, **DOUBLE}

    created = (await post(service, body)).json()

    session_id, state = created["session_id"], created["session"]["state"]
    log, asked = await service.log_of(session_id), (await double.received(1)).body["messages"]
    messages = (await service.client.get(f"/v1/sessions/{session_id}/messages")).json()["messages"]
    frames = await service.frames(f"/v1/sessions/{session_id}/events?follow=false")
    assert (state["title"], state["labels"], state["last_assistant_text"]) == (ODD, {ODD: ODD}, ODD)
    assert (created["turn"]["text"], log[1]["prompt"], log[-1]["text"]) == (ODD, ODD, ODD)
    assert [message["content"] for message in messages] == [[{"type": "text", "text": ODD}]] * 3
    assert [message["content"] for message in asked] == [ODD, ODD]
    assert [frame.data for frame in frames] == log
    shapes.assert_log(log)


async def test_model_without_a_provider_is_inferred_or_refused(service: Service) -> None:
    scripted = await post(service, {"model": "scripted"})
    unknown = await post(service, {"model": "llama"})
    elsewhere = await post(service, {"model": "claude-opus"})

    assert scripted.json()["session"]["state"]["provider"] == "scripted"
    assert (unknown.status_code, unknown.json()["code"]) == (422, "INVALID_REQUEST")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")


async def test_realm_defaults_apply_where_nothing_is_said(service: Service) -> None:
    state = (await post(service, {})).json()["session"]["state"]

    assert (state["model"], state["provider"], state["title"], state["labels"]) == ("scripted", "scripted", None, {})
    assert (state["message_count"], state["last_assistant_text"], state["status"]) == (0, None, "idle")


@pytest.mark.parametrize("name", ["prompt", "initial_turn", "model", "provider", "system_prompt", "max_tokens", "title",
                                  "labels", "provider_params", "tools"])  # fmt: skip
async def test_null_field_equals_an_absent_one(service: Service, name: str) -> None:
    answer = await post(service, {name: None})

    assert answer.status_code == 201
