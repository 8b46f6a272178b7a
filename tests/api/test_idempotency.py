"""`Idempotency-Key`: a POST sent twice has one effect and one answer, also across a restart."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from app import ids
from tests.api import databases, shapes
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

DOUBLE = {"model": "double", "provider": "openai_compatible"}


@pytest.fixture
def key() -> dict[str, str]:
    """A key that no other test uses."""
    return {"Idempotency-Key": ids.uuid7()}


async def create(service: Service, headers: dict[str, str], **body: Any) -> httpx2.Response:
    return await service.client.post("/v1/sessions", json=DOUBLE | body, headers=headers)


async def test_repeat_of_a_create_gets_the_same_answer_and_makes_nothing(
    service: Service, double: ProviderDouble, key: dict[str, str]
) -> None:
    first = await create(service, key, prompt="Hello")
    second = await create(service, key, prompt="Hello")

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert (await double.counts()).received == 1


async def test_spacing_and_order_of_members_do_not_make_another_body(service: Service, key: dict[str, str]) -> None:
    headers = key | {"Content-Type": "application/json"}
    first = await service.client.post("/v1/sessions", content=b'{"title":"a","labels":{}}', headers=headers)
    second = await service.client.post("/v1/sessions", content=b'{ "labels" : {}, "title" : "\\u0061" }', headers=headers)

    assert first.json() == second.json()


async def test_same_key_with_another_body_is_refused(service: Service, key: dict[str, str]) -> None:
    await create(service, key, title="one")

    answer = await create(service, key, title="two")

    assert (answer.status_code, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_key_counts_for_its_path_alone(desk: Desk, service: Service, key: dict[str, str]) -> None:
    created = await create(service, key, prompt="Hello")
    started = await desk.start("Hello", key)
    other = Desk(service, created.json()["session_id"])

    assert (created.status_code, started.status_code) == (201, 200)
    assert (await other.start("Hello", key)).headers.get("idempotency-replayed") is None


@pytest.mark.parametrize("name", ["k", "k" * 255, "!~", "a,b;c=d"])
async def test_any_visible_ascii_is_a_key(service: Service, name: str) -> None:
    answer = await create(service, {"Idempotency-Key": name}, title=ids.uuid7())

    assert answer.status_code in {201, 422}
    assert answer.json().get("code") in {None, "IDEMPOTENCY_KEY_REUSED"}


async def test_of_fifty_creates_at_once_one_has_an_effect(
    service: Service, double: ProviderDouble, api_database_url: str, key: dict[str, str]
) -> None:
    title = ids.uuid7()

    answers = await asyncio.gather(*(create(service, key | ASYNC, prompt="Hello", title=title) for _ in range(50)))

    taken = [answer for answer in answers if answer.status_code == 201]
    refused = {(answer.status_code, answer.json()["code"]) for answer in answers if answer.status_code != 201}
    assert len({answer.json()["session_id"] for answer in taken}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in taken) == 1
    assert refused <= {(409, "IDEMPOTENCY_IN_PROGRESS")}
    query = "SELECT 1 FROM sessions WHERE title LIKE '%' || $1 || '%'"
    assert len(await databases.fetch(api_database_url, query, title)) == 1
    await service.ended(taken[0].json()["session_id"], taken[0].json()["turn"]["turn_id"])
    assert (await double.counts()).received == 1


async def test_repeat_joins_the_live_turn_by_waiting_and_by_stream(
    service: Service, desk: Desk, double: ProviderDouble, key: dict[str, str]
) -> None:
    await double.play([scripts.text("Par"), scripts.hang(), scripts.text("is."), scripts.finish()])
    first = await desk.start("Hello", key | ASYNC)
    body = {"prompt": "Hello"}
    await double.started(1)

    async with asyncio.TaskGroup() as tasks:
        waited = tasks.create_task(desk.start("Hello", key))
        streamed = tasks.create_task(service.frames(f"{desk.path}/turns", method="POST", json=body, headers=key))
        asked = await desk.start("Hello", key | ASYNC)
        await double.go_on()

    turn_id = first.json()["turn_id"]
    assert (first.status_code, asked.status_code, waited.result().status_code) == (202, 202, 200)
    assert asked.json()["turn_id"] == waited.result().json()["turn_id"] == turn_id
    assert waited.result().json()["text"] == "Paris."
    assert waited.result().headers["idempotency-replayed"] == "true"
    frames = streamed.result()
    assert {frame.data["turn_id"] for frame in frames} == {turn_id}
    assert (frames[0].event, frames[-1].event) == ("turn_started", "turn_completed")
    assert (await double.counts()).received == 1


async def test_repeat_after_the_end_streams_the_whole_turn(
    service: Service, desk: Desk, double: ProviderDouble, key: dict[str, str]
) -> None:
    first = await desk.start("Hello", key)

    frames = await service.frames(f"{desk.path}/turns", method="POST", json={"prompt": "Hello"}, headers=key)

    log = await service.log_of(desk.id)
    assert [frame.data for frame in frames] == [event for event in log if event["turn_id"] == first.json()["turn_id"]]
    assert (await double.counts()).received == 1


async def test_refusals_are_not_kept(desk: Desk, double: ProviderDouble, key: dict[str, str]) -> None:
    await double.play([scripts.hang()])
    await desk.start("One", ASYNC)
    await double.received(1)

    refused = await desk.start("Two", key)
    await desk.interrupt()
    taken = await desk.start("Two", key)

    assert (refused.status_code, taken.status_code) == (409, 200)
    assert "idempotency-replayed" not in taken.headers


async def test_interrupt_with_a_key_is_answered_again_without_stopping_the_next_turn(
    service: Service, desk: Desk, double: ProviderDouble, key: dict[str, str]
) -> None:
    await double.play([scripts.hang()], [scripts.hang()])
    await desk.start("One", ASYNC)
    first = await service.client.post(f"{desk.path}/interrupt", json={"reason": "a"}, headers=key)
    await desk.start("Two", ASYNC)

    second = await service.client.post(f"{desk.path}/interrupt", json={"reason": "a"}, headers=key)

    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert (await service.client.get(desk.path)).json()["state"]["is_active"] is True
    await desk.interrupt()


@pytest.mark.parametrize("act", ["archive", "unarchive"])
async def test_archive_and_unarchive_with_a_key_are_answered_again(
    service: Service, desk: Desk, key: dict[str, str], act: str
) -> None:
    first = await service.client.post(f"{desk.path}/{act}", headers=key)
    await service.client.post(f"{desk.path}/{'archive' if act == 'unarchive' else 'unarchive'}")

    second = await service.client.post(f"{desk.path}/{act}", headers=key)

    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"


async def test_erased_session_takes_its_keys_along(service: Service, key: dict[str, str]) -> None:
    first = await create(service, key, title="a")
    await service.client.delete(f"/v1/sessions/{first.json()['session_id']}")

    second = await create(service, key, title="a")

    assert second.status_code == 201
    assert second.json()["session_id"] != first.json()["session_id"]


async def test_keys_hold_across_a_crash_and_a_restart(
    serve: Callable[..., Any], double: ProviderDouble, key: dict[str, str]
) -> None:
    settings = {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url, "SURICATE_LEASE_SECONDS": "1.5"}
    await double.play([scripts.text("Par"), scripts.hang()])
    before: Service = await serve(**settings)
    first = await create(before, key | ASYNC, prompt="Hello")
    await double.started(1)
    await before.kill()

    after: Service = await serve(**settings)
    second = await create(after, key | {"Prefer": "wait=20"}, prompt="Hello")
    third = await create(after, key, prompt="Hello")

    assert first.json()["session_id"] == second.json()["session_id"]
    assert (second.json()["turn"]["status"], second.json()["turn"]["attempt"]) == ("completed", 2)
    assert second.json() == third.json()
    assert len((await after.client.get("/v1/sessions")).json()["sessions"]) == 1
    shapes.assert_log(await after.log_of(first.json()["session_id"]))
