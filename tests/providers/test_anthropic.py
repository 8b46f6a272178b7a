"""The Anthropic adapter against its double: what a stream gives, and what each fault becomes."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import anthropic
import pytest

from app.errors import InvalidRequest, ProviderError, StartupError
from app.messages import Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.anthropic import Anthropic
from app.providers.base import Finish, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolSpec, VendorChunk
from app.providers.deadlines import Deadlines
from tests.provider_double import scripts as play
from tests.provider_double.anthropic import AnthropicDouble, error, error_body, redacted
from tests.provider_double.anthropic_transcript import signature_of
from tests.provider_double.scripts import Script
from tests.providers.asking import REQUEST, calls_of, finish_of, text_of

pytestmark = pytest.mark.anyio

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {}})
DELTA = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
MARKER: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}


@pytest.fixture
async def double() -> AsyncIterator[AnthropicDouble]:
    """The double; the test fails if it had to refuse a transcript."""
    async with AnthropicDouble("sk-canary") as running:
        yield running
    assert running.rejected == []


@pytest.fixture
async def provider(double: AnthropicDouble) -> AsyncIterator[Anthropic]:
    """The real adapter, pointed at the double."""
    adapter = Anthropic(double.base_url, "sk-canary")
    yield adapter
    await adapter.aclose()


async def ask(provider: Anthropic, request: ModelRequest = REQUEST) -> list[ModelChunk]:
    async with aclosing(provider.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def refused(provider: Anthropic) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(provider)
    return caught.value


def kept(chunks: Sequence[ModelChunk]) -> list[Any]:
    return [chunk.value for chunk in chunks if isinstance(chunk, VendorChunk)]


async def test_stream_gives_reasoning_its_signature_text_and_usage_in_order(
    double: AnthropicDouble, provider: Anthropic
) -> None:
    usage = {"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 7, "output_tokens": 5}
    double.play([play.reasoning("Ca", "pital?"), play.text("Par", "is."), play.finish("end_turn", usage=usage)])

    chunks = await ask(provider)

    order = [ReasoningChunk, VendorChunk, TextChunk, Finish]
    assert [type(chunk) for chunk in chunks] == sorted(map(type, chunks), key=order.index)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk)) == "Capital?"
    assert kept(chunks) == [{"type": "thinking", "thinking": "Capital?", "signature": signature_of("Capital?")}]
    assert text_of(chunks) == "Paris."
    assert finish_of(chunks) == Finish("end_turn", Usage(1, 5, cache_creation_tokens=7, cache_read_tokens=20))


async def test_input_tokens_of_the_beginning_stay_where_the_end_says_nothing_of_them(
    double: AnthropicDouble, provider: Anthropic
) -> None:
    assert finish_of(await ask(provider)).usage == Usage(input_tokens=21, output_tokens=5)


async def test_calls_are_numbered_from_zero_and_end_in_tool_use(double: AnthropicDouble, provider: Anthropic) -> None:
    calls = [play.tool_call("f", {"x": 1}, call_id="a"), play.tool_call("g", "", call_id="b")]
    double.play([play.text("Let me see."), *calls, play.finish("tool_use")])

    chunks = await ask(provider)

    assert calls_of(chunks) == [("a", "f", '{"x": 1}'), ("b", "g", "")]
    assert finish_of(chunks).stop_reason == "tool_use"


async def test_arguments_that_come_whole_with_the_beginning_are_taken(double: AnthropicDouble, provider: Anthropic) -> None:
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
    start = play.event({"type": "content_block_start", "index": 0, "content_block": block})
    double.play([start, play.event({"type": "content_block_stop", "index": 0}), play.finish("tool_use")])

    assert calls_of(await ask(provider)) == [("a", "f", '{"x":1}')]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("refusal", "content_filter"),
        ("tool_use", "end_turn"),
        ("something_new", "end_turn"),
    ],
)
async def test_stop_reason_becomes_ours(double: AnthropicDouble, provider: Anthropic, reason: str, expected: str) -> None:
    double.play([play.text("x"), play.finish(reason)])

    assert finish_of(await ask(provider)).stop_reason == expected


async def test_thoughts_come_back_unchanged_where_they_stood(double: AnthropicDouble, provider: Anthropic) -> None:
    double.play([
        play.reasoning("one"), redacted("opaque"), play.text("First. "), play.reasoning("two"), play.text("Second."),
        play.tool_call("datetime", {}, call_id="a"), play.finish("tool_use"),
    ])  # fmt: skip
    chunks = await ask(provider)
    answer = Message(
        "assistant",
        (Reasoning("onetwo", {"anthropic": kept(chunks)}), Text(text_of(chunks)), ToolUse("a", "datetime", {})),
    )
    result = Message("tool", (ToolResult("a", "noon", is_error=False),))
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2000}}

    await ask(provider, ModelRequest("m", None, (*REQUEST.messages, answer, result), (DATETIME,), params=thinking))

    content = double.bodies[1]["messages"][1]["content"]
    kinds = [block.get("text") or block.get("thinking") or block["type"] for block in content]
    assert kinds == ["one", "redacted_thinking", "First. ", "two", "Second.", "tool_use"]
    assert double.bodies[1]["thinking"] == thinking["thinking"]
    assert double.bodies[1]["max_tokens"] > 2000


FOREIGN = (
    Message("user", (Text("What time is it?"),)),
    Message(
        "assistant",
        (
            Reasoning("hm", {"gemini": ["opaque"], "openai": [{"id": "rs_1"}]}),
            Text(" "),
            ToolUse("call|with:odd.id" * 9, "clock now!", "not an object", {"gemini": "sig"}),
            ToolUse("", "datetime", {"zone": "UTC"}),
        ),
    ),
    Message("tool", (ToolResult("call|with:odd.id" * 9, "", is_error=True), ToolResult("", "", is_error=False))),
    Message("assistant", (Reasoning("only thought", {"openai": [1]}),), "interrupted"),
    Message("user", (Text("Go on"),)),
    Message("user", (Text(""),)),
)


@pytest.mark.parametrize("messages", [FOREIGN, FOREIGN[:3], FOREIGN[:4]], ids=["whole", "in a step", "thought last"])
@pytest.mark.parametrize("tools", [(DATETIME,), ()], ids=["tools", "no tools"])
@pytest.mark.parametrize("thinking", [None, {"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}])
async def test_transcript_of_another_vendor_is_taken(
    double: AnthropicDouble, provider: Anthropic, messages: Sequence[Message], tools: Sequence[ToolSpec], thinking: Any
) -> None:
    request = ModelRequest("m", " ", messages, tools, params={"thinking": thinking})

    assert text_of(await ask(provider, request))

    assert "opaque" not in str(double.bodies[0])
    assert "hm" not in str(double.bodies[0]["messages"])
    assert double.bodies[0]["messages"][1]["content"][0]["input"] == {}


SLOPPY: dict[str, tuple[Script, str]] = {
    "CR line ends": ([play.wire(line_end="\r"), play.text("a", "b"), play.finish()], "ab"),
    "CRLF line ends": ([play.wire(line_end="\r\n"), play.text("a", "b"), play.finish()], "ab"),
    "byte order mark": ([play.wire(has_bom=True), play.text("a"), play.finish()], "a"),
    "three bytes a write": ([play.wire(write_bytes=3), play.text("Zür", "ich 🚂"), play.finish()], "Zürich 🚂"),
    "pings": ([play.head(), play.pings(3, seconds=0), play.text("a"), play.finish()], "a"),
    "no message_stop": ([play.text("a"), play.finish(has_done=False)], "a"),
    "no end of the body": ([play.text("a"), play.finish(), play.hang()], "a"),
    "a break after the finish marker": ([play.text("a"), play.finish(has_done=False), play.cut()], "a"),
    "an empty answer": ([play.finish()], ""),
    "lone surrogates": ([play.text("a\udc00b"), play.finish()], "a\ufffdb"),
    "NUL": ([play.text("a\x00b"), play.finish()], "a\x00b"),
    "events and blocks of a later version": (
        [
            play.event({"type": "news"}),
            play.event({"type": "content_block_start", "index": 9, "content_block": {"type": "news", "text": 5}}),
            play.event({"type": "content_block_delta", "index": 9, "delta": {"type": "news_delta"}}),
            play.text("a"),
            play.finish(),
        ],
        "a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOPPY)
async def test_sloppy_stream_is_read_as_it_was_meant(double: AnthropicDouble, provider: Anthropic, name: str) -> None:
    script, expected = SLOPPY[name]
    double.play(script)

    chunks = await ask(provider)

    assert text_of(chunks) == expected
    assert finish_of(chunks).stop_reason == "end_turn"


@pytest.mark.parametrize("absurd", [-1, 1e30, 10**15, True, "12", [], {}])
async def test_counts_that_cannot_be_believed_are_zero(double: AnthropicDouble, provider: Anthropic, absurd: Any) -> None:
    names = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    double.play([play.text("a"), play.finish(usage=dict.fromkeys(names, absurd))])

    assert finish_of(await ask(provider)).usage == Usage()


@pytest.mark.parametrize("usage", [None, "many", []])
async def test_usage_that_is_none_does_no_harm(double: AnthropicDouble, provider: Anthropic, usage: Any) -> None:
    double.play([play.text("a"), play.finish(usage=usage)])

    assert finish_of(await ask(provider)).usage.input_tokens == 21


TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"
FAULTS: dict[str, tuple[Script, str, bool]] = {
    "401": ([error(401, "authentication_error")], "PROVIDER_AUTH", False),
    "403": ([error(403, "permission_error")], "PROVIDER_AUTH", False),
    "400": ([error(400, "invalid_request_error")], "PROVIDER_REFUSED_REQUEST", False),
    "400, context too long": ([error(400, "invalid_request_error", TOO_LONG)], "CONTEXT_OVERFLOW", False),
    "400, no room to answer": (
        [error(400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2")],
        "CONTEXT_OVERFLOW", False,
    ),
    "404": ([error(404, "not_found_error")], "MODEL_UNKNOWN", False),
    "413": ([error(413, "request_too_large")], "PROVIDER_REFUSED_REQUEST", False),
    "429": ([error(429, "rate_limit_error")], "PROVIDER_RATE_LIMITED", True),
    "500": ([error(500, "api_error")], "PROVIDER_UNAVAILABLE", True),
    "529": ([error(529, "overloaded_error")], "PROVIDER_UNAVAILABLE", True),
    "502 with a page": ([play.html(502)], "PROVIDER_UNAVAILABLE", True),
    "200 with a page": ([play.html()], "PROVIDER_PROTOCOL", False),
    "redirect": ([play.redirect("/elsewhere")], "PROVIDER_PROTOCOL", False),
    "hang-up before the head": ([play.cut()], "PROVIDER_UNAVAILABLE", True),
    "cut": ([play.text("a", "b"), play.cut()], "PROVIDER_UNAVAILABLE", True),
    "reset": ([play.text("a", "b"), play.cut(is_reset=True)], "PROVIDER_UNAVAILABLE", True),
    "cut in a call": ([play.tool_call("f", {}), play.cut()], "PROVIDER_UNAVAILABLE", True),
    "no finish marker": ([play.text("a")], "PROVIDER_PROTOCOL", True),
    "an end without a reason": ([play.text("a"), play.event({"type": "message_stop"})], "PROVIDER_PROTOCOL", True),
    "nothing at all": ([play.head()], "PROVIDER_PROTOCOL", True),
    "half an event": ([play.text("a"), play.raw(b'data: {"type":"mess')], "PROVIDER_PROTOCOL", True),
    "overloaded in the answer": ([play.text("a"), play.event(error_body("overloaded_error"))], "PROVIDER_UNAVAILABLE", True),
    "failed in the answer": ([play.text("a"), play.event(error_body("api_error"))], "PROVIDER_UNAVAILABLE", True),
    "an unknown error in the answer": ([play.event(error_body("news"))], "PROVIDER_UNAVAILABLE", True),
    "an error that is no object": ([play.event({"type": "error", "error": "vendor-canary"})], "PROVIDER_PROTOCOL", True),
    "too many in the answer": ([play.event(error_body("rate_limit_error"))], "PROVIDER_RATE_LIMITED", True),
    "a bad key in the answer": ([play.event(error_body("authentication_error"))], "PROVIDER_AUTH", False),
    "context in the answer": ([play.event(error_body("invalid_request_error", TOO_LONG))], "CONTEXT_OVERFLOW", False),
    "not JSON": ([play.raw(b"data: {vendor-canary\n\n")], "PROVIDER_PROTOCOL", True),
    "JSON too deep": ([play.raw(b"data: " + b"[" * 99_999 + b"\n\n")], "PROVIDER_PROTOCOL", True),
    "not UTF-8": ([play.raw(DELTA % b"\xff\xfe")], "PROVIDER_PROTOCOL", True),
    "a line of 5 MB": ([play.raw(DELTA % (b"x" * 5_000_000))], "PROVIDER_PROTOCOL", True),
    "no object": ([play.event([])], "PROVIDER_PROTOCOL", True),
    "no type": ([play.event({})], "PROVIDER_PROTOCOL", True),
    "a piece of no block": ([play.raw(DELTA % b"x")], "PROVIDER_PROTOCOL", True),
    "a block without a number": ([play.event({"type": "content_block_stop"})], "PROVIDER_PROTOCOL", True),
    "text no string": (
        [play.event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 5}})],
        "PROVIDER_PROTOCOL", True,
    ),
    "reason no string": ([play.event({"type": "message_delta", "delta": {"stop_reason": 5}})], "PROVIDER_PROTOCOL", True),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_becomes_a_reason_of_the_contract(double: AnthropicDouble, provider: Anthropic, name: str) -> None:
    script, reason, is_retryable = FAULTS[name]
    double.play(script)

    failure = await refused(provider)

    assert (failure.reason, failure.is_retryable) == (reason, is_retryable)
    assert len(double.requests) == 1  # nothing is followed, nothing tried again here
    shown = "".join(traceback.format_exception(failure))
    assert "canary" not in shown


async def test_what_came_before_a_fault_is_given(double: AnthropicDouble, provider: Anthropic) -> None:
    double.play([play.text("a", "b"), play.event(error_body("overloaded_error"))])

    async with aclosing(provider.stream(REQUEST)) as chunks:
        before: list[ModelChunk] = []
        with pytest.raises(ProviderError):
            async for chunk in chunks:
                before += [chunk]

    assert text_of(before) == "ab"


@pytest.mark.parametrize(("given", "expected"), [(None, None), ("7", 7.0), ("soon", None)])
async def test_retry_after_is_told(
    double: AnthropicDouble, provider: Anthropic, given: str | None, expected: float | None
) -> None:
    double.play([error(429, "rate_limit_error", retry_after=given)])

    assert (await refused(provider)).retry_after_seconds == expected


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([play.hang()], "did not begin to answer in time"),
        ([play.text("a"), play.hang()], "fell silent"),
        ([play.drip(DELTA % b"slowly", seconds_per_byte=0.05)], "longer than a whole call may"),
        ([play.pings(100, seconds=0.05)], "longer than a whole call may"),
        ([play.endless(rate=50)], "longer than a whole call may"),
    ],
    ids=["no head", "silence", "drip", "pings only", "endless"],
)
async def test_each_deadline_ends_the_call_and_its_connection(double: AnthropicDouble, script: Script, message: str) -> None:
    deadlines = Deadlines(first_byte_seconds=0.15, idle_seconds=0.15, total_seconds=0.5)
    impatient = Anthropic(double.base_url, "sk-canary", deadlines=deadlines)
    double.play(script)

    failure = await refused(impatient)

    assert (failure.reason, failure.is_retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert message in str(failure)
    async with asyncio.timeout(5):
        await double.closed_by_client.wait()


async def test_closing_the_stream_closes_the_connection(double: AnthropicDouble, provider: Anthropic) -> None:
    double.play([play.endless(rate=1000)])

    async with aclosing(provider.stream(REQUEST)) as chunks:
        await anext(chunks)

    async with asyncio.timeout(5):
        await double.closed_by_client.wait()


async def test_complete_answers_share_a_connection(double: AnthropicDouble, provider: Anthropic) -> None:
    for _ in range(3):
        await ask(provider)

    assert len(set(double.ports)) == 1


async def test_the_vendors_own_client_reads_the_double(double: AnthropicDouble) -> None:
    double.play([
        play.reasoning("hm"), play.words("It is noon."), play.tool_call("datetime", {"zone": "UTC"}, call_id="toolu_1"),
        play.finish("tool_use"),
    ])  # fmt: skip
    client = anthropic.AsyncAnthropic(base_url=double.base_url, api_key="sk-canary", max_retries=0)

    async with (
        client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello"}]) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        answer = await stream.get_final_message()

    assert text == "It is noon."
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[2].model_dump(include={"id", "name", "input"}) == {
        "id": "toolu_1", "name": "datetime", "input": {"zone": "UTC"},
    }  # fmt: skip
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("tool_use", 21, 5)


async def test_the_vendors_own_client_reads_the_doubles_refusals() -> None:
    async with AnthropicDouble("right") as strict:
        wrong = anthropic.AsyncAnthropic(base_url=strict.base_url, api_key="wrong", max_retries=0)
        right = anthropic.AsyncAnthropic(base_url=strict.base_url, api_key="right", max_retries=0)
        async with wrong, right:
            with pytest.raises(anthropic.AuthenticationError):
                await wrong.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello"}])
            with pytest.raises(anthropic.BadRequestError):
                await right.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": " "}])


def test_params_are_refused_one_by_one_by_name() -> None:
    adapter = Anthropic("http://127.0.0.1:9", None)
    wrong: dict[str, Any] = {
        "thinking": {"type": "adaptive"},
        "effort": "huge",
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 3,
        "stop_sequences": [" "],
        "disable_parallel_tool_use": 1,
        "metadata": {"name": "x"},
        "max_tokens": 1,
    }

    with pytest.raises(InvalidRequest) as caught:
        adapter.check_params(wrong)

    errors = caught.value.members["errors"]
    assert isinstance(errors, list)
    locs = {entry["loc"].split(".")[1] for entry in errors}
    assert locs == wrong.keys() - {"thinking"}


@pytest.mark.parametrize(
    "params",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "temperature": 1.0, "top_p": 0.95},
        {"thinking": {"type": "disabled"}, "temperature": 0, "top_k": 40},
        {"thinking": {"type": "adaptive", "display": "omitted"}, "effort": "xhigh", "stop_sequences": "END"},
        {"disable_parallel_tool_use": True, "service_tier": "auto", "inference_geo": "us", "metadata": {"user_id": "u"}},
        {"thinking": None, "temperature": None},
    ],
)
async def test_params_that_are_accepted_are_accepted_by_the_vendor(
    double: AnthropicDouble, provider: Anthropic, params: dict[str, Any]
) -> None:
    provider.check_params(params)

    assert text_of(await ask(provider, ModelRequest("m", None, REQUEST.messages, (DATETIME,), params=params)))


@pytest.mark.parametrize(("base_url", "api_key"), [("ftp://x", None), ("http://x", "a\nb"), ("http://x", "ä")])
def test_unusable_configuration_is_refused_at_start_without_showing_the_key(base_url: str, api_key: str | None) -> None:
    with pytest.raises(StartupError) as caught:
        Anthropic(base_url, api_key)

    assert api_key is None or api_key not in str(caught.value)
