"""The double itself, through a plain HTTP client: it streams, it is strict, it remembers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.provider_double import scripts as play
from tests.provider_double.client import ProviderDouble

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "Hello there"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "1"}


@pytest.fixture
async def client(double: ProviderDouble) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the double."""
    async with httpx2.AsyncClient(base_url=double.base_url, trust_env=False) as opened:
        yield opened


@pytest.fixture
async def lenient_double() -> AsyncIterator[ProviderDouble]:
    """A double whose refusals do not fail the test."""
    async with ProviderDouble() as running:
        yield running


def body(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"model": "m", "stream": True, "messages": list(messages)} | members


async def test_script_is_streamed_as_events_with_usage_and_done(double: ProviderDouble, client: httpx2.AsyncClient) -> None:
    await double.play([play.words("It is noon."), play.finish("length")])

    answer = await client.post("/chat/completions", json=body(USER, stream_options={"include_usage": True}))

    events = answer.text.split("\n\n")
    assert answer.headers["content-type"] == "text/event-stream"
    assert [piece for piece in ("It", " is", " noon.") if f'"content":"{piece}"' in answer.text] == ["It", " is", " noon."]
    assert '"finish_reason":"length"' in events[-4]
    assert '"completion_tokens":3' in events[-3]
    assert events[-2:] == ["data: [DONE]", ""]


async def test_without_a_script_the_default_answer_has_its_length() -> None:
    async with ProviderDouble(tokens=100, events_per_chunk=7) as running, httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{running.base_url}/chat/completions", json=body(USER))

    assert answer.text.count('"content":" ') == 100


async def test_script_with_a_match_waits_for_its_prompt(double: ProviderDouble, client: httpx2.AsyncClient) -> None:
    await double.play([play.text("matched"), play.finish()], match="there")
    await double.play([play.text("next"), play.finish()])

    other = await client.post("/chat/completions", json=body({"role": "user", "content": "Hi"}))
    matching = await client.post("/chat/completions", json=body(USER))

    assert "next" in other.text
    assert "matched" in matching.text


async def test_paced_tokens_keep_their_rate_over_many_streams() -> None:
    async with (
        ProviderDouble(tokens=11, token_rate=50, stamped=True) as running,
        httpx2.AsyncClient(trust_env=False) as client,
        asyncio.TaskGroup() as tasks,
    ):
        asked = [tasks.create_task(client.post(f"{running.base_url}/chat/completions", json=body(USER))) for _ in range(50)]
    for answer in asked:
        stamps = [float(piece.split('"')[0]) for piece in answer.result().text.split('"content":" ')[1:]]
        assert stamps[-1] - stamps[0] >= 0.19


async def test_client_that_goes_away_is_on_record(double: ProviderDouble, client: httpx2.AsyncClient) -> None:
    await double.play([play.endless(rate=100)])

    async with client.stream("POST", "/chat/completions", json=body(USER)) as answer:
        await anext(answer.aiter_raw())
    record = await double.ended(1)

    assert record.body["messages"] == [USER]
    assert record.first_byte_at is not None
    assert record.closed_by_client_at is not None
    assert (await double.counts()).closed_by_client == 1


async def test_answer_that_hangs_goes_on_when_it_is_told_to(double: ProviderDouble, client: httpx2.AsyncClient) -> None:
    await double.play([play.text("Par"), play.hang(), play.text("is."), play.finish()])

    async with client.stream("POST", "/chat/completions", json=body(USER)) as answer:
        lines = answer.aiter_lines()
        while '"Par"' not in await anext(lines):
            pass
        await double.go_on()
        rest = [line async for line in lines]

    assert '"is."' in rest[1]
    assert "data: [DONE]" in rest


VALID = [
    body({"role": "system", "content": "x"}, USER),
    body(USER, {"role": "assistant", "content": "x"}, USER),
    body(USER, ASKS, RESULT),
    body(USER, ASKS, RESULT, USER, max_tokens=5, temperature=1),
]
INVALID = {
    "no messages": body(),
    "not streaming": body(USER, stream=False),
    "unknown field": body(USER, host_mode=True),
    "unknown member of a message": body(USER | {"stop_reason": "x"}),
    "system later": body(USER, {"role": "assistant", "content": "x"}, {"role": "system", "content": "x"}, USER),
    "two users": body(USER, USER),
    "two assistants": body(USER, {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "x"}, USER),
    "assistant last": body(USER, {"role": "assistant", "content": "x"}),
    "assistant first": body({"role": "assistant", "content": "x"}, USER),
    "empty assistant": body(USER, {"role": "assistant", "content": ""}, USER),
    "no calls in tool_calls": body(USER, {"role": "assistant", "content": "x", "tool_calls": []}, USER),
    "call without a result": body(USER, ASKS, USER),
    "call without a result at the end": body(USER, ASKS | {"tool_calls": [CALL, CALL | {"id": "b"}]}, RESULT),
    "results in another order": body(
        USER, ASKS | {"tool_calls": [CALL, CALL | {"id": "b"}]}, RESULT | {"tool_call_id": "b"}, RESULT
    ),
    "result without a call": body(USER, RESULT),
    "result twice": body(USER, ASKS, RESULT, RESULT),
    "id twice": body(USER, ASKS, RESULT, ASKS, RESULT),
    "arguments no JSON": body(USER, ASKS | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}]}, RESULT),
    "arguments no object": body(USER, ASKS | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": "1"}}]}, RESULT),
    "tool name with a space": body(
        USER, ASKS | {"tool_calls": [CALL | {"function": {"name": "a b", "arguments": "{}"}}]}, RESULT
    ),
    "tools empty": body(USER, tools=[]),
    "parallel calls without tools": body(USER, parallel_tool_calls=False),
}


@pytest.mark.parametrize("request_body", VALID)
async def test_valid_transcript_is_taken(client: httpx2.AsyncClient, request_body: dict[str, Any]) -> None:
    assert (await client.post("/chat/completions", json=request_body)).status_code == 200


async def test_every_invalid_transcript_is_answered_400_and_on_record(lenient_double: ProviderDouble) -> None:
    async with httpx2.AsyncClient(base_url=lenient_double.base_url, trust_env=False) as client:
        answers = {name: await client.post("/chat/completions", json=invalid) for name, invalid in INVALID.items()}

    assert {name for name, answer in answers.items() if answer.status_code != 400} == set()
    assert all(record.rejected for record in await lenient_double.requests())
    assert (await lenient_double.counts()).rejected == len(INVALID)


async def test_lone_surrogate_in_a_request_is_answered_400(lenient_double: ProviderDouble) -> None:
    content = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"\\ud83d"}]}'

    async with httpx2.AsyncClient(base_url=lenient_double.base_url, trust_env=False) as client:
        assert (await client.post("/chat/completions", content=content)).status_code == 400


async def test_wrong_key_is_answered_401() -> None:
    async with (
        ProviderDouble(api_key="right") as running,
        httpx2.AsyncClient(base_url=running.base_url, trust_env=False) as client,
    ):
        wrong = await client.post("/chat/completions", json=body(USER), headers={"authorization": "Bearer wrong"})
        right = await client.post("/chat/completions", json=body(USER), headers={"authorization": "Bearer right"})

    assert (wrong.status_code, right.status_code) == (401, 200)
