"""Sessions that begin from an export: the same as what was exported, and refused where the document is not sound."""

import asyncio
import copy
from typing import Any

import pytest

from app import ids
from tests.api.desk import ASYNC, Desk
from tests.api.talk import erase, export, history, resume, state, talked
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio


@pytest.fixture
async def talk(service: Service, double: ProviderDouble) -> Desk:
    """A session of two turns."""
    return await talked(service, double)


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


async def test_turns_that_ended_in_every_way_come_back(talk: Desk, service: Service, double: ProviderDouble) -> None:
    await double.play(
        [scripts.status(400)], [scripts.tool_call("datetime", {}), scripts.hang()], [scripts.text("Par"), scripts.hang()]
    )
    await talk.start("Fails")
    for number in (4, 5):
        await talk.start(f"Is interrupted {number}", ASYNC)
        await double.started(number + 1)
        await talk.interrupt()
    await double.play([scripts.hang()])
    await talk.start("Is live", ASYNC)
    queued = await talk.queue("Is cancelled")
    await talk.client.delete(f"{talk.path}/turns/{queued['turn_id']}")
    await talk.interrupt()
    document = await export(talk)
    ends = ["completed", "completed", "failed", "interrupted", "interrupted", "interrupted", "cancelled"]
    assert [turn["status"] for turn in document["turns"]] == ends
    await erase(talk)

    answer = await resume(service, document)

    assert answer.status_code == 201, answer.text
    assert await export(talk) == document


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
    await double.play([scripts.text("Three"), scripts.finish()])

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


async def test_budget_of_a_resumed_session_goes_on_from_what_was_used(talk: Desk, service: Service) -> None:
    document = await export(talk)
    used = document["session"]["usage"]["input_tokens"] + document["session"]["usage"]["output_tokens"]
    await erase(talk)

    answer = await resume(service, document, prompt="Third?", budget_limits={"max_tokens": used})

    assert answer.json()["turn"]["error"]["reason"] == "BUDGET_EXHAUSTED"


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
        ("messages.1.turn_id", None, "messages.1.turn_id"),
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
    calls: list[dict[str, Any]] = [{"type": "tool_use", "id": name, "name": "datetime", "args": {}} for name in ("a", "b")]
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
