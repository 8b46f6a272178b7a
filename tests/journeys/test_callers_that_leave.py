"""A caller that goes away changes nothing: the turn runs on."""

import asyncio

import pytest

from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "headers", [{}, {"Prefer": "wait=30"}, {"Accept": "text/event-stream"}], ids=["plain", "wait", "stream"]
)
async def test_turn_runs_on_when_its_caller_leaves(service: Service, double: ProviderDouble, headers: dict[str, str]) -> None:
    await double.play([scripts.text("Par"), scripts.hang(), scripts.text("is."), scripts.finish()])
    path = f"/v1/sessions/{(await service.create())['session_id']}"

    async with asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(service.client.post(f"{path}/turns", json={"prompt": "Hello"}, headers=headers))
        await double.started(1)
        calling.cancel()
    await double.go_on()

    [turn] = (await service.client.get(f"{path}/turns")).json()["turns"]
    view = await service.ended(turn["session_id"], turn["turn_id"])
    assert calling.cancelled()
    assert (view["status"], view["text"]) == ("completed", "Paris.")
    assert (await double.ended(1)).closed_by_client_at is None
