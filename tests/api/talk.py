"""A session of two turns, and how a client copies it: what the tests of forks, exports and resumed sessions begin with."""

from typing import Any

import httpx2

from tests.api.desk import Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service


async def talked(service: Service, double: ProviderDouble) -> Desk:
    """Hold a talk of two turns, the first with a tool call."""
    call = scripts.tool_call("datetime", {})
    await double.play([scripts.reasoning("hm"), call, scripts.finish("tool_calls")], [scripts.text("One"), scripts.finish()])
    created = await service.create("Hello", title="Talk", labels={"team": "web"}, system_prompt="Be brief.")
    desk = Desk(service, created["session_id"])
    await service.ended(desk.id, created["turn"]["turn_id"])
    await double.play([scripts.text("Two"), scripts.finish()])
    assert (await desk.start("And?")).json()["status"] == "completed"
    return desk


async def export(desk: Desk, query: str = "") -> dict[str, Any]:
    answer = await desk.client.get(f"{desk.path}/export?{query}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def fork(desk: Desk, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> httpx2.Response:
    return await desk.client.post(f"{desk.path}/fork", json=body or {}, headers=headers or {})


async def forked(desk: Desk, service: Service, body: dict[str, Any] | None = None) -> Desk:
    answer = await fork(desk, body)
    assert answer.status_code == 201, answer.text
    return Desk(service, answer.json()["session_id"])


async def state(desk: Desk) -> dict[str, Any]:
    view: dict[str, Any] = (await desk.client.get(desk.path)).json()
    return view


async def history(desk: Desk) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await desk.client.get(f"{desk.path}/messages?limit=200")).json()["messages"]
    return found


async def erase(desk: Desk) -> None:
    assert (await desk.client.delete(desk.path)).status_code == 204


async def resume(service: Service, document: dict[str, Any], **fields: Any) -> httpx2.Response:
    return await service.client.post("/v1/sessions", json={"resume_session": document, **fields})


def without_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in message.items() if name != "turn_id"} for message in messages]
