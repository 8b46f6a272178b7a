"""The real adapter against the double: what a good stream gives, and what each fault becomes."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from app import clock
from app.errors import InvalidRequest, ProviderError, StartupError
from app.messages import Message, Text, Usage
from app.providers.base import Finish, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk, ToolSpec
from app.providers.deadlines import Deadlines
from app.providers.openai_compatible import OpenAICompatible
from tests.provider_double import scripts as play
from tests.provider_double.client import ProviderDouble
from tests.provider_double.scripts import Script

pytestmark = pytest.mark.anyio

REQUEST = ModelRequest("m", "Be brief.", (Message("user", (Text("Hello"),)),))
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'


async def ask(provider: OpenAICompatible, request: ModelRequest = REQUEST) -> list[ModelChunk]:
    async with aclosing(provider.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def refused(provider: OpenAICompatible) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(provider)
    return caught.value


def text_of(chunks: Sequence[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def finish_of(chunks: Sequence[ModelChunk]) -> Finish:
    *before, finish = chunks
    assert isinstance(finish, Finish)
    assert not any(isinstance(chunk, Finish) for chunk in before)
    return finish


def calls_of(chunks: Sequence[ModelChunk]) -> list[tuple[str | None, str | None, str]]:
    """The calls as id, name and joined arguments; only a call's first piece may name it."""
    calls: list[tuple[str | None, str | None, str]] = []
    for chunk in chunks:
        if isinstance(chunk, ToolCallChunk) and chunk.index == len(calls):
            calls.append((chunk.id, chunk.name, chunk.args_delta))
        elif isinstance(chunk, ToolCallChunk):
            assert (chunk.id, chunk.name) == (None, None)
            call_id, name, args = calls[chunk.index]
            calls[chunk.index] = call_id, name, args + chunk.args_delta
    return calls


async def test_stream_gives_reasoning_text_and_usage_in_order(double: ProviderDouble, provider: OpenAICompatible) -> None:
    usage = {"prompt_tokens": 21, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}}
    await double.play([play.reasoning("Ca", "pital?"), play.text("Par", "is."), play.finish(usage=usage)])

    chunks = await ask(provider)

    assert chunks == [
        ReasoningChunk("Ca"),
        ReasoningChunk("pital?"),
        TextChunk("Par"),
        TextChunk("is."),
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


FAULTS: dict[str, tuple[Script, str, bool]] = {
    "401": ([play.status(401)], "PROVIDER_AUTH", False),
    "403": ([play.status(403)], "PROVIDER_AUTH", False),
    "400": ([play.status(400)], "PROVIDER_REFUSED_REQUEST", False),
    "402": ([play.status(402)], "PROVIDER_REFUSED_REQUEST", False),
    "413": ([play.status(413)], "PROVIDER_REFUSED_REQUEST", False),
    "422": ([play.status(422)], "PROVIDER_REFUSED_REQUEST", False),
    "404": ([play.status(404)], "MODEL_UNKNOWN", False),
    "400, no such model": ([play.status(400, code="model_not_found")], "MODEL_UNKNOWN", False),
    "400, context too long": ([play.context_overflow()], "CONTEXT_OVERFLOW", False),
    "413, context too long": ([play.status(413, message="Your prompt is too long.")], "CONTEXT_OVERFLOW", False),
    "429": ([play.status(429)], "PROVIDER_RATE_LIMITED", True),
    "429, no quota": ([play.status(429, code="insufficient_quota")], "PROVIDER_RATE_LIMITED", False),
    "408": ([play.status(408)], "PROVIDER_UNAVAILABLE", True),
    "500": ([play.status(500)], "PROVIDER_UNAVAILABLE", True),
    "503": ([play.status(503)], "PROVIDER_UNAVAILABLE", True),
    "502 with a page": ([play.html(502)], "PROVIDER_UNAVAILABLE", True),
    "200 with a page": ([play.html()], "PROVIDER_PROTOCOL", False),
    "200 with JSON": ([play.Status(200, {"content-type": "application/json"}, "{}")], "PROVIDER_PROTOCOL", False),
    "204": ([play.Status(204)], "PROVIDER_PROTOCOL", False),
    "redirect": ([play.redirect("/v1/elsewhere")], "PROVIDER_PROTOCOL", False),
    "hang-up before the head": ([play.cut()], "PROVIDER_UNAVAILABLE", True),
    "reset before the head": ([play.cut(is_reset=True)], "PROVIDER_UNAVAILABLE", True),
    "cut": ([play.text("a", "b"), play.cut()], "PROVIDER_UNAVAILABLE", True),
    "reset": ([play.text("a", "b"), play.cut(is_reset=True)], "PROVIDER_UNAVAILABLE", True),
    "cut that looks like an end": ([play.head(is_chunked=False), play.text("a"), play.cut()], "PROVIDER_PROTOCOL", True),
    "no finish marker": ([play.text("a")], "PROVIDER_PROTOCOL", True),
    "[DONE] without a finish marker": ([play.text("a"), play.raw(b"data: [DONE]\n\n")], "PROVIDER_PROTOCOL", True),
    "nothing at all": ([play.head()], "PROVIDER_PROTOCOL", True),
    "half an event": ([play.text("a"), play.raw(b'data: {"choi')], "PROVIDER_PROTOCOL", True),
    "error event": ([play.text("a"), play.error_event()], "PROVIDER_PROTOCOL", True),
    "error event, context": ([play.error_event(code="context_length_exceeded")], "CONTEXT_OVERFLOW", False),
    "broken off": ([play.text("a"), play.finish("error")], "PROVIDER_UNAVAILABLE", True),
    "not JSON": ([play.raw(b"data: {oops\n\n")], "PROVIDER_PROTOCOL", True),
    "not JSON, with an escape": ([play.raw(b'data: {"\\ud83d\n\n')], "PROVIDER_PROTOCOL", True),
    "JSON too deep": ([play.raw(b'data: ["\\ud83d"' + b"," + b"[" * 99_999 + b"\n\n")], "PROVIDER_PROTOCOL", True),
    "not UTF-8": ([play.raw(CONTENT % b"\xff\xfe")], "PROVIDER_PROTOCOL", True),
    "a line of 5 MB": ([play.raw(CONTENT % (b"x" * 5_000_000))], "PROVIDER_PROTOCOL", True),
    "no object": ([play.event([])], "PROVIDER_PROTOCOL", True),
    "choices no list": ([play.event({"choices": "x"})], "PROVIDER_PROTOCOL", True),
    "text no string": ([play.event({"choices": [{"delta": {"content": 5}}]})], "PROVIDER_PROTOCOL", True),
    "call no object": ([play.event({"choices": [{"delta": {"tool_calls": ["x"]}}]})], "PROVIDER_PROTOCOL", True),
    "reason no string": ([play.event({"choices": [{"finish_reason": 5}]})], "PROVIDER_PROTOCOL", True),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_becomes_a_reason_of_the_contract(double: ProviderDouble, provider: OpenAICompatible, name: str) -> None:
    script, reason, is_retryable = FAULTS[name]
    await double.play(script)

    error = await refused(provider)

    assert (error.reason, error.is_retryable) == (reason, is_retryable)
    assert (await double.counts()).received == 1  # nothing is followed, nothing tried again here


async def test_what_came_before_a_fault_is_given(double: ProviderDouble, provider: OpenAICompatible) -> None:
    await double.play([play.text("a", "b"), play.error_event()])

    async with aclosing(provider.stream(REQUEST)) as chunks:
        before = [await anext(chunks), await anext(chunks)]
        with pytest.raises(ProviderError):
            await anext(chunks)

    assert before == [TextChunk("a"), TextChunk("b")]


@pytest.fixture
async def impatient(double: ProviderDouble) -> AsyncIterator[OpenAICompatible]:
    """An adapter with small deadlines, each of which is told apart from the others."""
    deadlines = Deadlines(first_byte_seconds=0.15, idle_seconds=0.15, total_seconds=0.5)
    adapter = OpenAICompatible(double.base_url, None, deadlines=deadlines)
    yield adapter
    await adapter.aclose()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([play.hang()], "did not begin to answer in time"),
        ([play.head(), play.hang()], "fell silent"),
        ([play.text("a"), play.hang()], "fell silent"),
        ([play.drip(CONTENT % b"slowly", seconds_per_byte=0.05)], "longer than a whole call may"),
        ([play.pings(100, seconds=0.05)], "longer than a whole call may"),
        ([play.endless(rate=50)], "longer than a whole call may"),
        ([play.endless()], "longer than a whole call may"),
    ],
    ids=["no head", "only a head", "silence", "drip", "pings only", "endless, slow", "endless, fast"],
)
async def test_each_deadline_ends_the_call_and_its_connection(
    double: ProviderDouble, impatient: OpenAICompatible, script: Script, message: str
) -> None:
    await double.play(script)

    error = await refused(impatient)

    assert (error.reason, error.is_retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert message in str(error)
    assert (await double.ended(1)).closed_by_client_at is not None


async def test_silence_after_the_finish_marker_completes_the_answer(
    double: ProviderDouble, impatient: OpenAICompatible
) -> None:
    await double.play([play.text("a"), play.finish(has_done=False), play.hang()])

    assert text_of(await ask(impatient)) == "a"


async def test_deadline_that_passed_leaves_later_cancellation_alone(
    double: ProviderDouble, impatient: OpenAICompatible
) -> None:
    await double.play([play.hang()])

    async with asyncio.timeout(30) as outer:
        await refused(impatient)

    task = asyncio.current_task()
    assert task is not None
    assert (task.cancelling(), outer.expired()) == (0, False)


async def test_unreachable_provider_is_unavailable() -> None:
    adapter = OpenAICompatible("http://127.0.0.1:9/v1", None)

    error = await refused(adapter)

    assert (error.reason, error.is_retryable) == ("PROVIDER_UNAVAILABLE", True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("7", 7.0), ("0", 0.0), ("999999999999", 300.0), ("-1", None), ("soon", None), ("nan", None)],
)
async def test_retry_after_in_seconds_is_told(
    double: ProviderDouble, provider: OpenAICompatible, given: str, expected: float | None
) -> None:
    await double.play([play.status(429, retry_after=given)])

    assert (await refused(provider)).retry_after_seconds == expected


async def test_retry_after_as_a_date_is_told(double: ProviderDouble, provider: OpenAICompatible) -> None:
    soon = format_datetime(clock.now() + timedelta(seconds=20), usegmt=True)
    await double.play([play.status(503, retry_after=soon)], [play.status(503, retry_after="Thu, 01 Jan 1970 00:00:00 GMT")])

    first, second = await refused(provider), await refused(provider)

    assert first.retry_after_seconds is not None
    assert 10 < first.retry_after_seconds <= 20
    assert second.retry_after_seconds == 0


async def test_neither_key_nor_vendor_words_are_in_an_error(double: ProviderDouble, provider: OpenAICompatible) -> None:
    canary = (
        [play.status(400, message="vendor-canary")],
        [play.error_event("vendor-canary")],
        [play.raw(b"data: vendor-canary\n\n")],
    )
    await double.play(*canary)

    for _ in canary:
        error = await refused(provider)

        shown = "".join(traceback.format_exception(error))
        assert "vendor-canary" not in shown
        assert "sk-canary" not in shown


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
