"""What later versions will have is refused with 501 and by name: never accepted and ignored."""

from typing import Any

import pytest

from tests.api.desk import Desk
from tests.service import Service

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {}}
CREATE: dict[str, Any] = {
    "preload_skills": ["a"],
    "skill_references": ["a"],
    "host_mode": True,
    "comms_name": "a",
    "peer_meta": {"a": "b"},
    "silent_comms_intents": ["a"],
    "max_inline_peer_notifications": 3,
}
TURN: dict[str, Any] = {
    "skill_references": ["a"],
    "host_mode": True,
}


@pytest.mark.parametrize("name", CREATE)
async def test_later_field_of_a_session_is_refused(service: Service, name: str) -> None:
    answer = await service.client.post("/v1/sessions", json={"prompt": "Hello", name: CREATE[name]})

    assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
    assert name in answer.json()["detail"]


@pytest.mark.parametrize("body", [{"host_mode": 0}, {"max_inline_peer_notifications": 0}])
async def test_what_only_looks_like_nothing_is_refused_too(service: Service, body: dict[str, Any]) -> None:
    answer = await service.client.post("/v1/sessions", json=body)

    assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")


@pytest.mark.parametrize("name", ["shell", "subagents", "memory", "mob"])
async def test_tool_category_that_is_off_is_refused(service: Service, name: str) -> None:
    answer = await service.client.post("/v1/sessions", json={"prompt": "Hello", "tools": {name: True}})

    assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
    assert name in answer.json()["detail"]


@pytest.mark.parametrize("name", TURN)
async def test_later_field_of_a_turn_is_refused_and_starts_nothing(desk: Desk, name: str) -> None:
    answer = await desk.start("Hello", **{name: TURN[name]})

    assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
    assert (await desk.turns())["turns"] == []


@pytest.mark.parametrize("name", [*CREATE, "prompt"])
async def test_null_or_nothing_of_a_later_field_is_no_request_for_it(service: Service, name: str) -> None:
    answer = await service.client.post("/v1/sessions", json={name: None})

    assert answer.status_code == 201


@pytest.mark.parametrize("provider", ["anthropic", "openai", "gemini"])
async def test_provider_that_is_not_configured_is_refused(service: Service, provider: str) -> None:
    answer = await service.client.post("/v1/sessions", json={"model": "m", "provider": provider})

    assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
