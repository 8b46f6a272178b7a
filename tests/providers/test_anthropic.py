"""The Anthropic adapter against its double: what a stream gives, and that the double is faithful."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anthropic
import pytest

from app.errors import InvalidRequest, StartupError
from app.messages import Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.anthropic import Anthropic
from app.providers.base import (
    Finish,
    ModelChunk,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ToolSpec,
    UsageChunk,
    VendorChunk,
)
from tests.provider_double import scripts as play
from tests.provider_double.anthropic import AnthropicDouble, redacted
from tests.provider_double.anthropic_transcript import signature_of
from tests.provider_double.scripts import Script
from tests.providers.asking import REQUEST, ask, calls_of, finish_of, text_of

pytestmark = pytest.mark.anyio

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {}})


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


def kept(chunks: Sequence[ModelChunk]) -> list[Any]:
    return [chunk.value for chunk in chunks if isinstance(chunk, VendorChunk)]


async def test_stream_gives_reasoning_its_signature_text_and_usage_in_order(
    double: AnthropicDouble, provider: Anthropic
) -> None:
    usage = {"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 7, "output_tokens": 5}
    double.play([play.reasoning("Ca", "pital?"), play.text("Par", "is."), play.finish("end_turn", usage=usage)])

    chunks = await ask(provider)

    order = [ReasoningChunk, VendorChunk, TextChunk, Finish]
    kinds = [type(chunk) for chunk in chunks if not isinstance(chunk, UsageChunk)]
    assert kinds == sorted(kinds, key=order.index)
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
