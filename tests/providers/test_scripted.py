"""The model that needs no network."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app import clock
from app.errors import InvalidRequest, ProviderError
from app.messages import Message, Text, ToolResult, ToolUse
from app.providers.base import Finish, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk, ToolSpec
from app.providers.scripted import Scripted

pytestmark = pytest.mark.anyio

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object"})
NOON = "2030-01-01T12:00:00+00:00 (Tuesday)"


def user(text: str) -> Message:
    return Message("user", (Text(text),))


async def play(history: Sequence[Message], *tools: ToolSpec, max_tokens: int | None = None, **params: Any) -> list[ModelChunk]:
    provider = Scripted(tokens_per_second=0)
    provider.check_params(params)
    request = ModelRequest("scripted", None, history, tools, max_tokens=max_tokens, params=params)
    return [chunk async for chunk in provider.stream(request)]


def text_of(chunks: Sequence[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def calls_of(chunks: Sequence[ModelChunk]) -> list[ToolUse]:
    pieces = [chunk for chunk in chunks if isinstance(chunk, ToolCallChunk)]
    arguments = {piece.index: "" for piece in pieces}
    for piece in pieces:
        arguments[piece.index] += piece.args_delta
    return [ToolUse(piece.id, piece.name or "", arguments[piece.index]) for piece in pieces if piece.id]


def finish_of(chunks: Sequence[ModelChunk]) -> Finish:
    assert isinstance(chunks[-1], Finish)
    return chunks[-1]


async def converse(prompt: str, *tools: ToolSpec, **params: Any) -> list[list[ModelChunk]]:
    """Play a whole turn: every call is answered with noon, until a step asks for none."""
    history, steps = [user(prompt)], []
    while True:
        steps.append(await play(history, *tools, **params))
        calls = calls_of(steps[-1])
        if not calls:
            return steps
        results = tuple(ToolResult(call.id, NOON, is_error=False) for call in calls)
        history += [Message("assistant", tuple(calls)), Message("tool", results)]


async def test_default_turn_thinks_calls_a_tool_and_quotes_prompt_and_output() -> None:
    first, second = await converse("What is the time?", DATETIME)

    assert isinstance(first[0], ReasoningChunk)
    assert [(call.name, call.args) for call in calls_of(first)] == [("datetime", '{"timezone":"UTC"}')]
    assert finish_of(first).stop_reason == "tool_use"
    assert "What is the time?" in text_of(second)
    assert NOON in text_of(second)
    assert finish_of(second).stop_reason == "end_turn"


async def test_without_the_tool_it_just_answers() -> None:
    [only] = await converse("Hello {tool_output}")

    assert '"Hello {tool_output}"' in text_of(only)
    assert finish_of(only).stop_reason == "end_turn"


async def test_next_turn_begins_the_scenario_again() -> None:
    history = [user("One"), Message("assistant", (ToolUse("a", "datetime", {}),))]
    history += [Message("tool", (ToolResult("a", NOON, is_error=False),)), Message("assistant", (Text("So."),)), user("Two")]

    assert [call.name for call in calls_of(await play(history, DATETIME))] == ["datetime"]


@pytest.mark.parametrize(
    ("prompt", "calls"),
    [
        ("plain", [1, 0]),
        ("one more TOOL, please", [1, 1, 0]),
        ("two tools", [2, 0]),
        ("tool and tools", [2, 2, 0]),
        ("toolbox", [1, 0]),
    ],
)
async def test_words_of_the_prompt_ask_for_more_calls(prompt: str, calls: list[int]) -> None:
    steps = await converse(prompt, DATETIME)

    assert [len(calls_of(step)) for step in steps] == calls


async def test_fail_fails_for_good() -> None:
    with pytest.raises(ProviderError) as caught:
        await play([user("please Fail!")])

    assert (caught.value.reason, caught.value.is_retryable) == ("PROVIDER_UNAVAILABLE", False)


async def test_long_answers_are_long() -> None:
    [only] = await converse("a long story")

    assert finish_of(only).usage.output_tokens > 2000


async def test_tokens_gives_exactly_so_many_and_nothing_else() -> None:
    chunks = await play([user("fail with tools, slow and long")], DATETIME, tokens=64)

    assert [type(chunk) for chunk in chunks] == [TextChunk] * 64 + [Finish]
    assert finish_of(chunks).usage.output_tokens == 64


async def test_max_tokens_cuts_the_answer() -> None:
    chunks = await play([user("Hello")], tokens=64, max_tokens=5)

    assert len(chunks) == 6
    assert finish_of(chunks).stop_reason == "max_tokens"


async def test_own_scenario_is_played_as_it_is() -> None:
    scenario = {
        "steps": [
            {"tool_calls": [{"name": "datetime"}, {"name": "datetime", "args": {"timezone": "UTC"}}]},
            {"reasoning": "Hm.", "text": "{prompt} / {tool_output}", "stop_reason": "content_filter"},
        ]
    }

    first, second = await converse("fail slow tools", DATETIME, scenario=scenario)

    assert [call.args for call in calls_of(first)] == ["{}", '{"timezone":"UTC"}']
    assert text_of(second) == f"fail slow tools / {NOON} {NOON}"
    assert finish_of(second).stop_reason == "content_filter"


@pytest.mark.parametrize(
    ("params", "locs"),
    [
        ({"tokens": "5", "temperature": 1}, ["tokens", "temperature"]),
        ({"tokens": -1, "tokens_per_second": -1}, ["tokens_per_second", "tokens"]),
        ({"tokens": 1, "scenario": {"steps": [{}]}}, ["tokens"]),
        ({"scenario": {"steps": [], "x": 1}}, ["scenario.steps", "scenario.x"]),
    ],
)
async def test_params_are_refused_one_by_one_by_name(params: dict[str, Any], locs: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await play([user("Hi")], **params)

    errors = caught.value.members["errors"]
    assert isinstance(errors, list)
    assert [error["loc"] for error in errors] == [f"provider_params.{loc}" for loc in locs]


async def test_rate_is_kept_over_many_streams_at_once() -> None:
    provider = Scripted(tokens_per_second=500)
    request = ModelRequest("scripted", None, [user("Hi")], params={"tokens": 100})
    began = clock.monotonic()

    async def run() -> int:
        return len([chunk async for chunk in provider.stream(request)])

    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(run()) for _ in range(20)]

    assert {run.result() for run in runs} == {101}
    assert clock.monotonic() - began >= 0.19


async def test_slow_prompt_is_spoken_at_a_tenth_of_the_rate() -> None:
    provider = Scripted(tokens_per_second=1000)
    chunks = provider.stream(ModelRequest("scripted", None, [user("slow")]))
    began = clock.monotonic()

    for _ in range(10):
        await anext(chunks)
    await chunks.aclose()

    assert clock.monotonic() - began >= 0.08
