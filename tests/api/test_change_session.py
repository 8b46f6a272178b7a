"""`PATCH`, archive, unarchive and `DELETE` of a session."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.api import databases, shapes
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service, read_frames

pytestmark = pytest.mark.anyio

END_SECONDS = 5.0


async def patch(service: Service, session_id: str, body: dict[str, Any]) -> httpx2.Response:
    return await service.client.patch(f"/v1/sessions/{session_id}", json=body)


@pytest.fixture
async def session_id(service: Service) -> str:
    """A session with a title and labels that has taken no turn."""
    return str((await service.create(title="Old", labels={"a": "1", "b": "2"}))["session_id"])


@pytest.mark.parametrize(
    ("body", "title", "labels"),
    [
        ({}, "Old", {"a": "1", "b": "2"}),
        ({"title": "New"}, "New", {"a": "1", "b": "2"}),
        ({"title": ""}, "", {"a": "1", "b": "2"}),
        ({"title": None}, None, {"a": "1", "b": "2"}),
        ({"labels": {"b": "3", "c": "4"}}, "Old", {"a": "1", "b": "3", "c": "4"}),
        ({"labels": {"a": None, "no-such": None}}, "Old", {"b": "2"}),
        ({"labels": {}}, "Old", {"a": "1", "b": "2"}),
        ({"labels": None}, "Old", {}),
    ],
)
async def test_patch_merges(
    service: Service, session_id: str, body: dict[str, Any], title: str | None, labels: dict[str, str]
) -> None:
    answer = await patch(service, session_id, body)

    shapes.assert_shaped(answer.json(), shapes.SESSION)
    state = answer.json()["state"]
    assert answer.status_code == 200
    assert (state["title"], state["labels"]) == (title, labels)
    assert (await service.client.get(f"/v1/sessions/{session_id}")).json() == answer.json()


async def test_patch_tells_the_log_exactly_what_has_changed(service: Service, session_id: str) -> None:
    await patch(service, session_id, {"title": "Old", "labels": {"a": "1", "c": "3"}, "max_tokens": 5})

    updated = (await service.log_of(session_id))[-1]
    own = {name: value for name, value in updated.items() if name not in shapes.ENVELOPE}
    assert (updated["type"], updated["turn_id"]) == ("session_updated", None)
    assert own == {"labels": {"a": "1", "b": "2", "c": "3"}, "max_tokens": 5}


async def test_patch_that_changes_nothing_writes_nothing(service: Service, session_id: str) -> None:
    before = (await service.client.get(f"/v1/sessions/{session_id}")).json()

    answer = await patch(service, session_id, {"title": "Old", "labels": {"a": "1"}})

    assert answer.json() == before


async def test_patch_takes_effect_from_the_next_turn(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("One"), scripts.wait(0.2), scripts.finish()])
    created = await service.create("First", system_prompt="Old.", max_tokens=5)
    path = f"/v1/sessions/{created['session_id']}"
    await double.started(1)

    await patch(service, created["session_id"], {"system_prompt": "New.", "max_tokens": None, "model": "other"})
    await service.ended(created["session_id"], created["turn"]["turn_id"])
    await service.client.post(f"{path}/turns", json={"prompt": "Second"})

    first, second = [request.body for request in await double.requests()]
    assert (first["model"], first["max_tokens"], first["messages"][0]["content"]) == ("double", 5, "Old.")
    assert (second["model"], second["messages"][0]["content"]) == ("other", "New.")
    assert "max_tokens" not in second
    state = (await service.client.get(path)).json()["state"]
    assert (state["model"], state["provider"]) == ("other", "openai_compatible")


async def test_labels_may_not_grow_past_their_number_by_patches(service: Service) -> None:
    created = await service.create(labels={str(n): "" for n in range(32)})

    answer = await patch(service, created["session_id"], {"labels": {"one more": ""}})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [{"title": 5}, {"labels": {"a": 1}}, {"prompt": "a"}, {"max_tokens": 0}, {"model": "x y"}])
async def test_patch_that_breaks_the_schema_changes_nothing(service: Service, session_id: str, body: dict[str, Any]) -> None:
    before = (await service.client.get(f"/v1/sessions/{session_id}")).json()

    answer = await patch(service, session_id, {"labels": {"z": "z"}} | body)

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert (await service.client.get(f"/v1/sessions/{session_id}")).json() == before


async def test_archive_interrupts_the_live_turn_cancels_queued_ones_and_ends_streams(
    service: Service, double: ProviderDouble
) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await service.frames(f"{path}/events", until=["text_delta"])
    queued = (await service.client.post(f"{path}/turns", json={"prompt": "Next", "on_busy": "queue"},
                                        headers={"Prefer": "respond-async"})).json()  # fmt: skip
    async with service.client.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
        frames = read_frames(stream)
        first = await anext(frames)

        answer = await service.client.post(f"{path}/archive")

        async with asyncio.timeout(END_SECONDS):
            rest = [frame async for frame in frames]
    state = answer.json()["state"]
    live = (await service.client.get(f"{path}/turns/{created['turn']['turn_id']}")).json()
    cancelled = (await service.client.get(f"{path}/turns/{queued['turn_id']}")).json()
    assert (answer.status_code, state["status"], state["is_active"], state["queued_turns"]) == (200, "archived", False, 0)
    assert shapes.is_time(state["archived_at"])
    assert (live["status"], live["text"], live["stop_reason"]) == ("interrupted", "Par", "interrupted")
    assert (cancelled["status"], cancelled["steps"], cancelled["started_at"]) == ("cancelled", 0, None)
    assert [frame.event for frame in rest][-3:] == ["turn_interrupted", "turn_cancelled", "session_archived"]
    assert rest[-3].data["reason"] == rest[-2].data["reason"] == "archived"
    assert [first.data, *(frame.data for frame in rest)] == await service.log_of(created["session_id"])


async def test_archiving_again_gives_the_same_answer(service: Service, session_id: str) -> None:
    once = await service.client.post(f"/v1/sessions/{session_id}/archive")
    again = await service.client.post(f"/v1/sessions/{session_id}/archive", json={})

    assert (once.status_code, again.status_code) == (200, 200)
    assert once.json() == again.json()


async def test_archived_session_takes_no_turn_until_it_is_unarchived(service: Service, session_id: str) -> None:
    await service.client.post(f"/v1/sessions/{session_id}/archive")

    refused = await service.client.post(f"/v1/sessions/{session_id}/turns", json={"prompt": "Hi"})
    back = await service.client.post(f"/v1/sessions/{session_id}/unarchive")
    again = await service.client.post(f"/v1/sessions/{session_id}/unarchive")
    taken = await service.client.post(f"/v1/sessions/{session_id}/turns", json={"prompt": "Hi"})

    assert (refused.status_code, refused.json()["code"]) == (409, "SESSION_ARCHIVED")
    assert refused.json()["session_id"] == session_id
    assert (back.status_code, back.json()["state"]["status"], back.json()["state"]["archived_at"]) == (200, "idle", None)
    assert again.json() == back.json()
    assert taken.status_code == 200
    log = await service.log_of(session_id)
    assert [event["type"] for event in log[:3]] == ["session_created", "session_archived", "session_unarchived"]
    shapes.assert_log(log)


async def test_reader_that_has_everything_of_an_archived_session_gets_204(service: Service, session_id: str) -> None:
    view = (await service.client.post(f"/v1/sessions/{session_id}/archive")).json()
    last = view["state"]["last_seq"]
    headers = {"Accept": "text/event-stream"}

    done = await service.client.get(f"/v1/sessions/{session_id}/events", headers=headers | {"Last-Event-ID": str(last)})
    rest = await service.frames(f"/v1/sessions/{session_id}/events", after=last - 1)
    page = await service.client.get(f"/v1/sessions/{session_id}/events?after={last}", headers={"Accept": "application/json"})

    assert (done.status_code, done.content) == (204, b"")
    assert [frame.event for frame in rest] == ["session_archived"]
    assert (page.status_code, page.json()["events"]) == (200, [])


async def test_deleted_session_is_gone_from_every_route_and_every_table(
    service: Service, double: ProviderDouble, api_database_url: str
) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await double.started(1)
    async with service.client.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
        frames = read_frames(stream)
        await anext(frames)

        answer = await service.client.delete(path)

        async with asyncio.timeout(END_SECONDS):
            assert [frame.event async for frame in frames if frame.event in shapes.TERMINAL] == []
    assert (answer.status_code, answer.content) == (204, b"")
    turn = f"{path}/turns/{created['turn']['turn_id']}"
    for method, route in [("GET", path), ("PATCH", path), ("DELETE", path), ("GET", f"{path}/turns"),
                          ("POST", f"{path}/archive"),
                          ("GET", f"{path}/events"), ("GET", f"{path}/messages"), ("GET", turn), ("DELETE", turn),
                          ("GET", f"{turn}/events"), ("POST", f"{path}/interrupt"), ("POST", f"{path}/unarchive")]:  # fmt: skip
        gone = await service.client.request(method, route)
        assert (gone.status_code, gone.json()["code"]) == (404, "SESSION_NOT_FOUND")
    for table in ("turns", "events", "messages", "idempotency_keys"):
        query = f"SELECT 1 FROM {table} WHERE session_id = $1"
        assert await databases.fetch(api_database_url, query, created["session_id"]) == []
    assert (await double.ended(1)).closed_by_client_at is not None
