"""Ephemeral sessions: answered like any other, never copied, and gone after their last turn."""

import asyncio
import copy

import pytest

from app import ids
from tests.api.talk import erase, export, resume, talked
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 20


@pytest.mark.parametrize(("method", "path"), [("POST", "fork"), ("GET", "export")])
async def test_ephemeral_session_has_no_copies(service: Service, method: str, path: str) -> None:
    created = await service.create(ephemeral=True)

    answer = await service.client.request(method, f"/v1/sessions/{created['session_id']}/{path}")

    assert (answer.status_code, answer.json()["code"]) == (501, "SESSION_PERSISTENCE_DISABLED")


async def test_ephemeral_session_is_not_resumed(service: Service, double: ProviderDouble) -> None:
    talk = await talked(service, double)
    document = await export(talk)
    await erase(talk)
    taken = await service.create(ephemeral=True)
    same = copy.deepcopy(document)
    same["session"]["session_id"] = taken["session_id"]

    answers = [await resume(service, document, ephemeral=True), await resume(service, same)]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(501, "SESSION_PERSISTENCE_DISABLED")}
    assert (await talk.client.get(talk.path)).status_code == 404


@pytest.mark.slow
async def test_ephemeral_session_answers_ends_its_streams_and_is_gone(service: Service) -> None:
    headers, body = {"Idempotency-Key": ids.uuid7()}, {"prompt": "Hello", "model": "scripted", "ephemeral": True}
    deferred = await service.create(ephemeral=True)
    answer = await service.client.post("/v1/sessions", json=body, headers=headers)
    path = f"/v1/sessions/{answer.json()['session_id']}"

    assert (answer.status_code, answer.json()["turn"]["status"]) == (201, "completed")
    async with asyncio.timeout(LIMIT_SECONDS):
        frames = await service.frames(f"{path}/events")
    assert frames[-1].event == "turn_completed"
    assert (await service.client.get(path)).status_code == 404
    assert (await service.client.post("/v1/sessions", json=body, headers=headers)).status_code == 404
    assert (await service.client.get(f"/v1/sessions/{deferred['session_id']}")).status_code == 200
