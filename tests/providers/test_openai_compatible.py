"""The real adapter against the double: what a stream gives, however sloppily it is written."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from app.errors import InvalidRequest, StartupError
from app.messages import Usage
from app.providers.base import Finish, ModelRequest, ReasoningChunk, TextChunk, ToolSpec
from app.providers.openai_compatible import OpenAICompatible
from tests.provider_double import scripts as play
from tests.provider_double.client import ProviderDouble
from tests.provider_double.scripts import Script
from tests.providers.asking import REQUEST, ask, calls_of, finish_of, text_of

pytestmark = pytest.mark.anyio


async def test_stream_gives_reasoning_text_and_usage_in_order(double: ProviderDouble, provider: OpenAICompatible) -> None:
    usage = {"prompt_tokens": 21, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}}
    await double.play([play.reasoning("Ca", "pital?"), play.text("Par", "is."), play.finish(usage=usage)])

    chunks = await ask(provider)

    assert [type(chunk) for chunk in chunks] == sorted(map(type, chunks), key=[ReasoningChunk, TextChunk, Finish].index)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk)) == "Capital?"
    assert text_of(chunks) == "Paris."
    assert chunks[-1:] == [
        Finish("end_turn", Usage(input_tokens=1, output_tokens=5, cache_read_tokens=20)),
    ]


async def test_request_carries_key_model_system_tools_and_params(double: ProviderDouble, provider: OpenAICompatible) -> None:
    schema = {"type": "object", "properties": {"timezone": {"type": "string"}}}
    tools = (ToolSpec("datetime", "Tell the time.", schema),)
    params = {"temperature": 0, "stop": "END", "reasoning_effort": "low", "chat_template_kwargs": {"x": True}}
    provider.check_params(params)

    await ask(provider, ModelRequest("m", "Be brief.", REQUEST.messages, tools, max_tokens=9, params=params))

    [request] = await double.requests()
    function = {"name": "datetime", "description": "Tell the time.", "parameters": schema}
    assert request.headers["authorization"] == "Bearer sk-canary"
    assert request.body == params | {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "content_filter"),
        ("tool_calls", "end_turn"),
        ("eos", "end_turn"),
    ],
)
async def test_finish_reason_becomes_ours(
    double: ProviderDouble, provider: OpenAICompatible, reason: str, expected: str
) -> None:
    await double.play([play.text("x"), play.finish(reason)])

    assert finish_of(await ask(provider)).stop_reason == expected


@pytest.mark.parametrize("reason", ["tool_calls", "function_call", "stop"])
async def test_answer_with_calls_ends_in_tool_use(double: ProviderDouble, provider: OpenAICompatible, reason: str) -> None:
    await double.play([play.tool_call("datetime", {"timezone": "UTC"}), play.finish(reason)])

    chunks = await ask(provider)

    assert calls_of(chunks) == [("call_0", "datetime", '{"timezone": "UTC"}')]
    assert finish_of(chunks).stop_reason == "tool_use"


CALLS: dict[str, tuple[Script, list[tuple[str, str, str]]]] = {
    "interleaved": (
        [
            play.tool_call_piece(0, "", call_id="a", name="f"),
            play.tool_call_piece(1, '{"y"', call_id="b", name="g"),
            play.tool_call_piece(0, '{"x":1}'),
            play.tool_call_piece(1, ":2}"),
        ],
        [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')],
    ),
    "without ids": ([play.tool_call("f", "{}", call_id=None)], [("", "f", "{}")]),
    "the same id twice": (
        [play.tool_call("f", "{}", call_id="a"), play.tool_call("g", "{}", call_id="a", index=1)],
        [("a", "f", "{}"), ("a", "g", "{}")],
    ),
    "all of index 0": (
        [play.tool_call("f", "{}", call_id="a"), play.tool_call("g", "{}", call_id="b")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "without an index": (
        [play.tool_call("f", '{"x": 1234}', index=None), play.tool_call("g", "{}", index=None, call_id="b")],
        [("call_None", "f", '{"x": 1234}'), ("b", "g", "{}")],
    ),
    "indexes with a gap": ([play.tool_call("f", "{}", index=3, call_id="a")], [("a", "f", "{}")]),
    "id and name in each piece": (
        [play.tool_call_piece(0, '{"x"', call_id="a", name="f"), play.tool_call_piece(0, ":1}", call_id="a", name="f")],
        [("a", "f", '{"x":1}')],
    ),
    "truncated arguments": ([play.tool_call("f", '{"x": ')], [("call_0", "f", '{"x": ')]),
    "no such tool": ([play.tool_call("rm -rf", {})], [("call_0", "rm -rf", "{}")]),
    "no arguments": ([play.tool_call("f", "")], [("call_0", "f", "")]),
    "arguments as an object": (
        [play.event({"choices": [{"delta": {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]}}]})],
        [("a", "f", '{"x":1}')],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
async def test_calls_are_told_apart_however_they_are_marked(
    double: ProviderDouble, provider: OpenAICompatible, name: str
) -> None:
    script, expected = CALLS[name]
    await double.play([*script, play.finish("tool_calls")])

    assert calls_of(await ask(provider)) == expected


SLOPPY: dict[str, tuple[Script, str]] = {
    "CR line ends": ([play.wire(line_end="\r"), play.text("a", "b"), play.finish()], "ab"),
    "CRLF line ends": ([play.wire(line_end="\r\n"), play.text("a", "b"), play.finish()], "ab"),
    "byte order mark": ([play.wire(has_bom=True), play.text("a"), play.finish()], "a"),
    "three bytes a write": ([play.wire(write_bytes=3), play.text("Zür", "ich 🚂"), play.finish()], "Zürich 🚂"),
    "comments": ([play.head(), play.pings(3, seconds=0), play.text("a"), play.finish()], "a"),
    "no [DONE]": ([play.text("a"), play.finish(has_done=False)], "a"),
    "no end of the body after [DONE]": ([play.text("a"), play.finish(), play.hang()], "a"),
    "a break after the finish marker": ([play.text("a"), play.finish(has_done=False), play.cut()], "a"),
    "a body that ends with its connection": ([play.head(is_chunked=False), play.text("a"), play.finish()], "a"),
    "an empty answer": ([play.finish()], ""),
    "a refusal": ([play.refusal("I can", "not."), play.finish()], "I cannot."),
    "lone surrogates": ([play.text("a\udc00b", "\ud83d", "c", "d\ud83d"), play.finish()], "a\ufffdb\ufffdcd\ufffd"),
    "a surrogate pair in two events": ([play.text("x\ud83d", "\ude82y"), play.finish()], "x🚂y"),
    "NUL": ([play.text("a\x00b"), play.finish()], "a\x00b"),
    "an event of many lines": ([play.raw(b'data: {"choices":\ndata: [{"delta":{"content":"a"}}]}\n\n'), play.finish()], "a"),
    "nulls everywhere": ([play.event({"choices": [{"delta": None}], "usage": None, "error": None}), play.finish()], ""),
}


@pytest.mark.parametrize("name", SLOPPY)
async def test_sloppy_stream_is_read_as_it_was_meant(double: ProviderDouble, provider: OpenAICompatible, name: str) -> None:
    script, expected = SLOPPY[name]
    await double.play(script)

    chunks = await ask(provider)

    assert text_of(chunks) == expected
    assert finish_of(chunks).stop_reason == "end_turn"


async def test_surrogates_in_arguments_and_reasoning_are_mended_too(double: ProviderDouble, provider: OpenAICompatible) -> None:
    halves = [play.tool_call_piece(0, '{"x":"\ud83d', call_id="a\ud83d", name="f"), play.tool_call_piece(0, '\ude82"}')]
    await double.play([play.reasoning("\ud83d", "\ude82", member="reasoning"), *halves, play.finish()])

    chunks = await ask(provider)

    assert ReasoningChunk("🚂") in chunks
    assert calls_of(chunks) == [("a\ufffd", "f", '{"x":"🚂"}')]


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        [],
        {},
        {"prompt_tokens": -1, "completion_tokens": 1e30},
        {"prompt_tokens": 10**30, "completion_tokens": True},
        {"prompt_tokens": "12", "completion_tokens": None, "prompt_tokens_details": {"cached_tokens": 5}},
    ],
)
async def test_usage_that_cannot_be_believed_counts_as_zero(
    double: ProviderDouble, provider: OpenAICompatible, usage: Any
) -> None:
    await double.play([play.text("a"), play.finish(usage=usage)])

    assert finish_of(await ask(provider)).usage == Usage()


async def test_closing_the_stream_closes_the_connection(double: ProviderDouble, provider: OpenAICompatible) -> None:
    await double.play([play.endless(rate=1000)])

    async with aclosing(provider.stream(REQUEST)) as chunks:
        await anext(chunks)

    assert (await double.ended(1)).closed_by_client_at is not None


async def test_cancelling_a_silent_stream_closes_the_connection(double: ProviderDouble, provider: OpenAICompatible) -> None:
    await double.play([play.head(), play.hang()])

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(ask(provider))
        await double.started(1)
        task.cancel()

    assert (await double.ended(1)).closed_by_client_at is not None


async def test_complete_answers_share_a_connection(double: ProviderDouble, provider: OpenAICompatible) -> None:
    for _ in range(3):
        await ask(provider)

    assert len({request.connection for request in await double.requests()}) == 1


async def test_proxies_of_the_environment_are_not_used(
    double: ProviderDouble, provider: OpenAICompatible, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert text_of(await ask(provider))


async def test_two_hundred_streams_at_once_keep_apart(double: ProviderDouble, provider: OpenAICompatible) -> None:
    count = 200
    counting: list[Script] = [[play.text(*[f"{number};"] * 9), play.finish()] for number in range(count)]
    await double.play(*counting)

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(provider)) for _ in range(count)]

    assert sorted(text_of(task.result()) for task in asked) == sorted(f"{number};" * 9 for number in range(count))


def test_params_are_refused_one_by_one_by_name() -> None:
    adapter = OpenAICompatible("http://127.0.0.1:9/v1", None)

    with pytest.raises(InvalidRequest) as caught:
        adapter.check_params({"temperature": "hot", "top_p": 2, "seed": True, "stop": [1], "x" * 99: 1, "model": "m"})

    errors = caught.value.members["errors"]
    assert isinstance(errors, list)
    locs = ["temperature", "top_p", "seed", "stop.0", "x" * 64, "model"]
    assert [error["loc"] for error in errors] == [f"provider_params.{loc}" for loc in locs]


@pytest.mark.parametrize(
    ("base_url", "api_key"),
    [
        ("ftp://x/v1", None),
        ("127.0.0.1/v1", None),
        ("http://", None),
        ("http://x:y:z/", None),
        ("http://x/v1", "a\nb"),
        ("http://x/v1", "ä"),
    ],
)
def test_unusable_configuration_is_refused_at_start_without_showing_the_key(base_url: str, api_key: str | None) -> None:
    with pytest.raises(StartupError) as caught:
        OpenAICompatible(base_url, api_key)

    assert api_key is None or api_key not in str(caught.value)
