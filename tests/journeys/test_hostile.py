"""Hostile text goes in at every door and comes out at every other as it was, and nothing breaks on its way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.api.desk import ASYNC, Desk
from tests.api.talk import erase, export, history, resume
from tests.hostile import NO_JSON, TEXTS, VALUES
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

Serve = Callable[..., Awaitable[Service]]
TAKE = {"name": "take", "description": "Takes anything.", "input_schema": {"type": "object"}}
CALLS = [{"text": text} for text in TEXTS.values()] + [{"value": value} for value in VALUES.values()]
AGAIN = [(scripts.text("again"), scripts.finish())] * 3
RESULTS = [*TEXTS.values(), *["more"] * len(VALUES)]


@pytest.fixture
async def service(serve: Serve, double: ProviderDouble) -> Service:
    """A server that stores each piece as it comes."""
    return await serve(SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url, SURICATE_DELTA_INTERVAL_MS="0")


def assert_no_mistake(service: Service) -> None:
    """Hold the server's log against the promise that no input is its mistake."""
    log = service.log.read_text()
    for word in ("request_crashed", "unexpected_error", "attempt_crashed", "Traceback"):
        assert word not in log


async def test_text_of_a_session_is_kept_found_and_shown_as_it_was(service: Service) -> None:
    for name, text in TEXTS.items():
        fields: dict[str, Any] = {"title": text, "labels": {text: text, "of": name}, "system_prompt": text}
        session_id = (await service.create(**fields))["session_id"]
        path = f"/v1/sessions/{session_id}"

        state = (await service.client.get(path)).json()["state"]
        [found] = (await service.client.get("/v1/sessions", params={"label": f"{text}:{text}"})).json()["sessions"]
        searched = (await service.client.get("/v1/sessions", params={"q": text, "limit": 200})).json()["sessions"]
        [system] = (await service.client.get(f"{path}/messages")).json()["messages"]
        [told] = await service.frames(f"{path}/events?follow=false")
        patched = await service.client.patch(path, json={"labels": {text: None}, "title": text})

        assert (state["title"], state["labels"]) == (text, {text: text, "of": name}), name
        assert found["session_id"] == session_id, name
        assert session_id in {one["session_id"] for one in searched}, name
        assert system["content"] == [{"type": "text", "text": text}], name
        assert (told.data["title"], told.data["labels"]) == (text, {text: text, "of": name}), name
        assert patched.json()["state"]["labels"] == {"of": name}
    assert_no_mistake(service)


async def test_text_of_callers_models_and_tools_goes_round(service: Service, double: ProviderDouble) -> None:
    said, thought = scripts.text(*TEXTS.values()), scripts.reasoning(*TEXTS.values())
    calls = [scripts.tool_call("take", args, index=number, call_id=f"c{number}") for number, args in enumerate(CALLS)]
    await double.play([thought, said, *calls, scripts.finish("tool_calls")], [said, scripts.finish()])
    desk = Desk(service, (await service.create(external_tools=[TAKE]))["session_id"])
    prompt = [{"type": "text", "text": text} for text in TEXTS.values()]
    started = await desk.client.post(f"{desk.path}/turns", json={"prompt": prompt}, headers=ASYNC)
    await service.frames(f"{desk.path}/events?types=tool_call_pending", until=["tool_call_pending"])

    results = [{"tool_call_id": f"c{number}", "content": text} for number, text in enumerate(RESULTS)]
    given_back = await desk.client.post(f"{desk.path}/tool_results", json={"results": results})
    assert given_back.status_code == 200, given_back.text
    turn = await service.ended(desk.id, started.json()["turn_id"])

    whole = "".join(TEXTS.values())
    log, frames = await service.log_of(desk.id), await service.frames(f"{desk.path}/events?follow=false")
    assert (turn["status"], turn["text"]) == ("completed", whole)
    assert [frame.data for frame in frames] == log
    assert [event["args"] for event in log if event["type"] == "tool_call_requested"] == CALLS
    for kind in ("text", "reasoning"):
        deltas = "".join(event["delta"] for event in log if event["type"] == f"{kind}_delta" and event["step"] == 1)
        assert deltas == whole
    asked, answered, given, _ = await history(desk)
    assert (asked["content"], answered["content"][:2]) == (
        prompt,
        [{"type": "reasoning", "text": whole}, {"type": "text", "text": whole}],
    )
    assert [block["content"] for block in given["content"]] == RESULTS
    sent = (await double.received(2)).body["messages"]
    assert [message["content"] for message in sent if message["role"] == "tool"] == RESULTS
    await _comes_back(desk, service)
    assert_no_mistake(service)


async def _comes_back(desk: Desk, service: Service) -> None:
    """Hold a session against itself, exported, erased and brought in again."""
    document, messages = await export(desk), await history(desk)
    await erase(desk)
    assert (await resume(service, document)).status_code == 201
    assert (await export(desk), await history(desk)) == (document, messages)


async def test_whatever_a_provider_sends_the_turn_ends_and_the_session_takes_the_next(
    service: Service, double: ProviderDouble
) -> None:
    async def ended(number: int, data: bytes) -> dict[str, Any]:
        prompt, line = f"Hello {number:02}.", data.replace(b"\r", b"").replace(b"\n", b"")
        bad = scripts.raw(b"data: " + line + b"\n\n")
        await double.play([bad, scripts.text("whole"), scripts.finish()], *AGAIN, match=prompt)
        created = await service.create(prompt)
        return await service.ended(created["session_id"], created["turn"]["turn_id"])

    ends = await asyncio.gather(*(ended(number, data) for number, data in enumerate(NO_JSON.values())))

    assert {turn["status"] for turn in ends} == {"completed"}
    assert {turn["text"] for turn in ends} <= {"whole", "again"}
    assert_no_mistake(service)
