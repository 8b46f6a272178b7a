"""Copies of sessions: forks, exports, sessions that begin from an export, and ephemeral ones, which have none of it."""

import asyncio
import copy
from typing import Any

import httpx2
import pytest

from app import ids
from tests.api import shapes
from tests.api.test_turns import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 20


@pytest.fixture
async def talk(service: Service, double: ProviderDouble) -> Desk:
    """A session of two turns, the first with a tool call."""
    call = scripts.tool_call("datetime", {})
    await double.play([scripts.reasoning("hm"), call, scripts.finish("tool_calls")], [scripts.text("One")])
    created = await service.create("Hello", title="Talk", labels={"team": "web"}, system_prompt="Be brief.")
    desk = Desk(service, created["session_id"])
    await service.ended(desk.id, created["turn"]["turn_id"])
    await double.play([scripts.text("Two")])
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


async def test_fork_has_the_history_options_and_turns_and_a_log_of_its_own(talk: Desk, service: Service) -> None:
    answer = await fork(talk)

    assert (answer.status_code, answer.json()["turn"]) == (201, None)
    copied = Desk(service, answer.json()["session_id"])
    assert answer.headers["location"] == copied.path
    shapes.assert_shaped(answer.json()["session"], shapes.SESSION)
    assert without_ids(await history(copied)) == without_ids(await history(talk))
    assert [event["type"] for event in await service.log_of(copied.id)] == ["session_created"]
    source, view = (await state(talk))["state"], await state(copied)
    kept = ("title", "labels", "model", "provider", "message_count", "last_assistant_text")
    assert [view["state"][name] for name in kept] == [source[name] for name in kept]
    assert view["billing"]["total_tokens"] == 0


async def test_turns_of_a_fork_keep_their_numbers_and_have_no_events(talk: Desk, service: Service) -> None:
    copied = await forked(talk, service)

    theirs, ours = (await talk.turns())["turns"], (await copied.turns())["turns"]
    assert [turn["number"] for turn in ours] == [1, 2]
    assert [(turn["text"], turn["usage"]) for turn in ours] == [(turn["text"], turn["usage"]) for turn in theirs]
    assert {turn["turn_id"] for turn in ours}.isdisjoint(turn["turn_id"] for turn in theirs)
    for turn in ours:
        shapes.assert_shaped(turn, shapes.TURN)
        assert (turn["first_seq"], turn["last_seq"]) == (2, 1)
        assert await service.frames(f"{copied.path}/turns/{turn['turn_id']}/events") == []


async def test_fork_through_a_turn_leaves_out_what_came_later(talk: Desk, service: Service) -> None:
    copied = await forked(talk, service, {"through_turn": 1})

    assert [message["role"] for message in await history(copied)] == ["system", "user", "assistant", "tool", "assistant"]
    assert [turn["number"] for turn in (await copied.turns())["turns"]] == [1]
    assert (await state(copied))["state"]["last_assistant_text"] == "One"


async def test_fork_and_its_source_go_their_own_ways(talk: Desk, service: Service, double: ProviderDouble) -> None:
    copied = await forked(talk, service, {"through_turn": 1})

    answer = await copied.start("Other?")

    assert (answer.json()["status"], answer.json()["number"]) == ("completed", 2)
    assert [message["ordinal"] for message in await history(copied)] == list(range(1, 8))
    assert len((await talk.turns())["turns"]) == 2
    request = (await double.requests())[-1]
    said = [message["content"] for message in request.body["messages"] if message["role"] == "user"]
    assert said == ["Hello", "Other?"]
    await erase(talk)
    assert len(await history(copied)) == 7


@pytest.mark.parametrize("through", [3, 2**31, 0, -1, True, "1"])
async def test_fork_beyond_the_last_turn_or_of_no_turn_is_refused(talk: Desk, through: Any) -> None:
    answer = await fork(talk, {"through_turn": through})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert answer.json()["errors"][0]["loc"] == "through_turn"


async def test_live_turn_is_not_copied_and_cannot_be_named(talk: Desk, service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("Thr"), scripts.hang()])
    live = (await talk.start("Third?", ASYNC)).json()
    queued = await talk.queue("Fourth?")
    await talk.client.delete(f"{talk.path}/turns/{queued['turn_id']}")

    assert [(await fork(talk, {"through_turn": n})).status_code for n in (2, 3, 4)] == [201, 422, 422]
    copied = await forked(talk, service)
    assert [turn["number"] for turn in (await copied.turns())["turns"]] == [1, 2]
    assert [turn["number"] for turn in (await export(talk))["turns"]] == [1, 2]
    assert live["turn_id"] not in {message["turn_id"] for message in (await export(talk))["messages"]}
    assert (await state(copied))["state"]["status"] == "idle"
    await talk.interrupt()


async def test_fork_of_a_session_without_turns_keeps_its_kept_prompt(service: Service, double: ProviderDouble) -> None:
    created = await service.create("Mind this.", initial_turn="defer")

    copied = await forked(Desk(service, created["session_id"]), service)
    await copied.start("Go.")

    assert (await double.requests())[-1].body["messages"][-1]["content"] == "Mind this.\n\nGo."


async def test_system_prompt_changed_since_is_put_on_record_with_the_forks_next_turn(talk: Desk, service: Service) -> None:
    await talk.client.patch(talk.path, json={"system_prompt": "Be long."})
    copied = await forked(talk, service, {"through_turn": 1})

    await copied.start("Go.")

    system = [message["content"][0]["text"] for message in await history(copied) if message["role"] == "system"]
    assert system == ["Be brief.", "Be long."]


async def test_repeat_of_a_fork_makes_nothing(talk: Desk) -> None:
    key = {"Idempotency-Key": ids.uuid7()}

    first, second = await fork(talk, {"through_turn": 1}, key), await fork(talk, {"through_turn": 1}, key)
    other = await fork(talk, {}, key)

    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert other.json()["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_archived_session_is_forked_open(talk: Desk, service: Service) -> None:
    await talk.client.post(f"{talk.path}/archive")

    copied = await forked(talk, service)

    assert (await state(copied))["state"]["archived_at"] is None


@pytest.mark.parametrize(("method", "path"), [("POST", "fork"), ("GET", "export")])
async def test_copy_of_what_is_not_there_is_404(service: Service, method: str, path: str) -> None:
    answer = await service.client.request(method, f"/v1/sessions/{ids.session_id()}/{path}")

    assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_NOT_FOUND")


async def test_export_has_events_only_on_request(talk: Desk, service: Service) -> None:
    assert (await export(talk)).keys() == {"format", "version", "session", "turns", "messages"}
    assert "events" not in await export(talk, "events=false")
    assert (await export(talk, "events=true"))["events"] == await service.log_of(talk.id)


async def test_session_that_was_exported_erased_and_resumed_is_the_same(talk: Desk, service: Service) -> None:
    document, turns, messages, view = await export(talk), await talk.turns(), await history(talk), await state(talk)
    await erase(talk)

    answer = await resume(service, document)

    assert (answer.status_code, answer.json()["session_id"], answer.json()["turn"]) == (201, talk.id, None)
    assert await export(talk) == document
    assert await history(talk) == messages
    assert (await state(talk)) == view | {"state": view["state"] | {"last_seq": 1}}
    expected = [turn | {"first_seq": 2, "last_seq": 1} for turn in turns["turns"]]
    assert (await talk.turns())["turns"] == expected
    assert [event["type"] for event in await service.log_of(talk.id)] == ["session_created"]


async def test_every_kind_of_message_comes_back_as_it_was(talk: Desk, service: Service) -> None:
    document = await export(talk)
    [_, user, assistant, tool, *_] = document["messages"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    user["content"] += [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}, image]
    vendor = {"openai_compatible": {"signature": "\0s", "n": [1.5, None, {"a": 2**60}]}}
    assistant["content"] = [
        {"type": "reasoning", "text": "", "vendor": vendor},
        {"type": "tool_use", "id": "a", "name": "datetime", "args": {"x": None}, "vendor": vendor},
        {"type": "tool_use", "id": "b", "name": "no such", "args": "{not json"},
    ]
    tool["content"] = [
        {"type": "tool_result", "tool_use_id": name, "content": "\0é\u2028", "is_error": name == "b"} for name in "ab"
    ]
    document["session"]["kept_prompt"] = [{"type": "text", "text": "Mind."}]
    document["turns"][0] |= {
        "prompt": [{"type": "text", "text": "Hello\0"}],
        "status": "failed",
        "error": {"code": "AGENT_ERROR", "reason": "INTERNAL", "message": "x"},
    }
    await erase(talk)

    answer = await resume(service, document)

    assert answer.status_code == 201, answer.text
    assert await export(talk) == document
    assert '"vendor"' not in (await talk.client.get(f"{talk.path}/messages")).text


async def test_resumed_session_goes_on_behind_its_history(talk: Desk, service: Service, double: ProviderDouble) -> None:
    document = await export(talk)
    await erase(talk)
    await double.play([scripts.text("Three")])

    answer = await resume(service, document, prompt="Third?", title="Again", system_prompt="Be long.", labels={"a": "b"})

    created = answer.json()
    assert (created["turn"]["number"], created["turn"]["text"]) == (3, "Three")
    assert created["session"]["state"]["title"] == "Again"
    assert created["session"]["state"]["labels"] == {"team": "web", "a": "b"}
    sent = (await double.requests())[-1].body["messages"]
    assert sent[0] == {"role": "system", "content": "Be long."}
    assert [message["content"] for message in sent if message["role"] == "user"] == ["Hello", "And?", "Third?"]
    log = await service.log_of(talk.id)
    assert [event["type"] for event in log[:3]] == ["session_created", "session_updated", "turn_started"]
    assert (await export(talk))["session"]["usage"]["input_tokens"] > document["session"]["usage"]["input_tokens"]


async def test_deferred_prompt_is_kept_for_the_resumed_session(talk: Desk, service: Service, double: ProviderDouble) -> None:
    document = await export(talk)
    await erase(talk)

    answer = await resume(service, document, prompt="Mind this.", initial_turn="defer")
    await talk.start("Go.")

    assert answer.json()["turn"] is None
    assert (await double.requests())[-1].body["messages"][-1]["content"] == "Mind this.\n\nGo."


async def test_id_that_is_taken_is_409_and_changes_nothing(talk: Desk, service: Service) -> None:
    document = await export(talk)

    answer = await resume(service, document | {"turns": [], "messages": []})

    assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_EXISTS")
    assert answer.json()["session_id"] == talk.id
    assert await export(talk) == document


async def test_many_that_resume_one_document_make_one_session(talk: Desk, service: Service) -> None:
    document = await export(talk)
    await erase(talk)

    answers = await asyncio.gather(*(resume(service, document) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await export(talk) == document


async def test_repeat_of_a_resume_makes_nothing(talk: Desk, service: Service) -> None:
    document, headers = await export(talk), {"Idempotency-Key": ids.uuid7()}
    await erase(talk)

    answers = [await service.client.post("/v1/sessions", json={"resume_session": document}, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


def set_at(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in way:
        place = place[part]
    place[last] = value


RESULT = {"type": "tool_result", "tool_use_id": "x", "content": "", "is_error": False}
TEXT = [{"type": "text", "text": "a"}]
ZERO_ID = "00000000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("path", "value", "loc"),
    [
        ("format", "other", "format"),
        ("version", 2, "version"),
        ("version", True, "version"),
        ("more", 1, "more"),
        ("events", [], "events"),
        ("session.session_id", "x", "session.session_id"),
        ("session.options.model", "", "session.options.model"),
        ("session.options.provider", "nobody", "session.options.provider"),
        ("session.options.more", 1, "session.options.more"),
        ("session.created_at", "2026-02-30T00:00:00.000Z", "session.created_at"),
        ("session.updated_at", "1969-12-31T00:00:00.000Z", "session.updated_at"),
        ("session.labels", {"a": 1}, "session.labels.a"),
        ("session.usage.input_tokens", -1, "session.usage.input_tokens"),
        ("session.usage.input_tokens", 2**62, "session.usage.input_tokens"),
        ("turns.0.number", 2, "turns.0.number"),
        ("turns.0.status", "running", "turns.0.status"),
        ("turns.0.status", "failed", "turns.0"),
        ("turns.1.ended_at", None, "turns.1.ended_at"),
        ("turns.1.turn_id", ZERO_ID, "messages.5.turn_id"),
        ("messages.0.ordinal", 2, "messages.0.ordinal"),
        ("messages.1.turn_id", None, "messages.1.user.turn_id"),
        ("messages.1.role", "nobody", "messages.1"),
        ("messages.1.content", [], "messages.1.user.content"),
        ("messages.1.content", [RESULT], "messages.1.user.content.0"),
        ("messages.1.stop_reason", None, "messages.1.user.stop_reason"),
        ("messages.3.content", [RESULT], "messages.3"),
        ("messages.2.content", TEXT, "messages.3"),
    ],
)
async def test_document_that_is_not_sound_is_refused_by_place(
    talk: Desk, service: Service, path: str, value: Any, loc: str
) -> None:
    document = await export(talk)
    await erase(talk)
    set_at(document, path, value)

    answer = await resume(service, document)

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert f"resume_session.{loc}" in {error["loc"] for error in answer.json()["errors"]}
    assert (await talk.client.get(talk.path)).status_code == 404


async def test_transcript_with_open_swapped_or_doubled_calls_is_refused(talk: Desk, service: Service) -> None:
    whole = await export(talk)
    await erase(talk)
    calls = [{"type": "tool_use", "id": name, "name": "datetime", "args": {}} for name in ("a", "b")]
    results = [RESULT | {"tool_use_id": name} for name in ("a", "b")]

    statuses = []
    for asked, given in [(calls, results[:1]), (calls, results[::-1]), (calls, [*results, results[0]]),
                         ([calls[0], calls[0]], [results[0], results[0]]), (calls, results)]:  # fmt: skip
        document = copy.deepcopy(whole)
        document["messages"][2]["content"], document["messages"][3]["content"] = asked, given
        statuses.append((await resume(service, document)).status_code)

    assert statuses == [422, 422, 422, 422, 201]


async def test_transcript_that_ends_with_open_calls_or_begins_with_an_answer_is_refused(talk: Desk, service: Service) -> None:
    document = await export(talk)
    await erase(talk)
    cut = document | {"messages": document["messages"][:3]}
    answers_first = document | {"messages": [document["messages"][-1] | {"ordinal": 1}]}

    assert [(await resume(service, bad)).status_code for bad in (cut, answers_first)] == [422, 422]


async def test_provider_that_is_not_here_is_501_unless_another_is_given(talk: Desk, service: Service) -> None:
    document = await export(talk)
    await erase(talk)
    document["session"]["options"] |= {"provider": "gemini", "model": "gemini-x"}

    refused = await resume(service, document)
    answer = await resume(service, document, model="double", provider="openai_compatible")

    assert (refused.status_code, refused.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
    assert answer.json()["session"]["state"]["provider"] == "openai_compatible"


async def test_provider_params_of_a_document_are_checked(talk: Desk, service: Service) -> None:
    document = await export(talk)
    await erase(talk)
    document["session"]["options"]["provider_params"] = {"warmth": 1}

    assert (await resume(service, document)).status_code == 422


@pytest.mark.parametrize("value", [{}, [], "x", 1])
async def test_resume_of_what_is_no_document_is_refused(service: Service, value: Any) -> None:
    answer = await service.client.post("/v1/sessions", json={"resume_session": value})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert all(error["loc"].startswith("resume_session") for error in answer.json()["errors"])


@pytest.mark.parametrize(("method", "path"), [("POST", "fork"), ("GET", "export")])
async def test_ephemeral_session_has_no_copies(service: Service, method: str, path: str) -> None:
    created = await service.create(ephemeral=True)

    answer = await service.client.request(method, f"/v1/sessions/{created['session_id']}/{path}")

    assert (answer.status_code, answer.json()["code"]) == (501, "SESSION_PERSISTENCE_DISABLED")


async def test_ephemeral_session_is_not_resumed(talk: Desk, service: Service) -> None:
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
