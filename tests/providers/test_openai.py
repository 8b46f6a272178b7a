"""The real adapter against a double of OpenAI's Responses: answers, what goes back of them, and the double's own faith."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall

from app.agent.step import RetryPolicy, Step
from app.errors import InvalidRequest, StartupError
from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.base import Finish, ModelRequest, ReasoningChunk, TextChunk, ToolSpec, VendorChunk
from app.providers.openai import BASE_URL, OpenAI
from tests.provider_double import scripts as play
from tests.provider_double.openai import OpenAIDouble
from tests.provider_double.scripts import Script
from tests.providers.asking import ask, calls_of, finish_of, text_of

pytestmark = pytest.mark.anyio

DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object"})
USER = Message("user", (Text("Hello"),))


@pytest.fixture
async def vendor() -> AsyncIterator[OpenAIDouble]:
    """A double with nothing to play; the test fails if it had to refuse a request."""
    async with OpenAIDouble("sk-canary") as double:
        yield double
        assert double.rejected == []


@pytest.fixture
async def provider(vendor: OpenAIDouble) -> AsyncIterator[OpenAI]:
    """The real adapter, pointed at the double."""
    adapter = OpenAI(vendor.base_url, "sk-canary")
    yield adapter
    await adapter.aclose()


async def message_of(provider: OpenAI, messages: Sequence[Message]) -> Message:
    """The answer to a transcript as the loop would keep it."""
    step = Step(provider, "openai", ModelRequest("m", None, messages, (DATETIME,)), number=1, taken_ids=())
    async with aclosing(step.run(RetryPolicy(max_attempts=1))) as emissions:
        async for _ in emissions:
            pass
    assert step.message is not None
    return step.message


async def test_stream_gives_reasoning_text_and_usage_in_order(vendor: OpenAIDouble, provider: OpenAI) -> None:
    details = {"cached_tokens": 20, "cache_write_tokens": 3}
    usage = {
        "input_tokens": 30,
        "input_tokens_details": details,
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    vendor.play([play.reasoning("Capital", "of France?"), play.text("Par", "is."), play.finish(usage=usage)])

    chunks = await ask(provider)

    order = [ReasoningChunk, VendorChunk, TextChunk, VendorChunk, Finish]
    assert list(dict.fromkeys(map(type, chunks))) == list(dict.fromkeys(order))
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk)) == "Capital\n\nof France?"
    assert text_of(chunks) == "Paris."
    assert finish_of(chunks) == Finish(
        "end_turn", Usage(input_tokens=7, output_tokens=5, cache_creation_tokens=3, cache_read_tokens=20)
    )


async def test_request_carries_key_model_system_tools_and_params(vendor: OpenAIDouble, provider: OpenAI) -> None:
    params = {"temperature": 0, "reasoning_effort": "low", "reasoning_summary": "auto", "verbosity": "high"}
    params |= {"prompt_cache_ttl": "12h", "top_p": None}
    plain = {"parallel_tool_calls": False, "service_tier": "flex", "prompt_cache_key": "k", "truncation": "auto"}
    provider.check_params(params | plain)
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}

    await ask(
        provider,
        ModelRequest("m", "Be brief.", (USER,), (DATETIME,), max_tokens=16, params=params | plain, output_schema=schema),
    )

    parameters = {"type": "object", "properties": {}}
    tool = {"type": "function", "name": "datetime", "description": "Tell the time.", "strict": False}
    assert vendor.ledger.records[0].headers["authorization"] == "Bearer sk-canary"
    assert vendor.bodies == [
        plain
        | {
            "model": "m",
            "instructions": "Be brief.",
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
            "stream": True,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "max_output_tokens": 16,
            "temperature": 0,
            "reasoning": {"effort": "low", "summary": "auto"},
            "prompt_cache_options": {"ttl": "12h"},
            "text": {
                "verbosity": "high",
                "format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True},
            },
            "tools": [{**tool, "parameters": parameters}],
        }
    ]


async def test_tool_calls_are_streamed_and_numbered_from_0(vendor: OpenAIDouble, provider: OpenAI) -> None:
    first = play.tool_call("datetime", {"timezone": "UTC"}, call_id="call_a")
    second = play.tool_call("datetime", "", call_id="call_b")
    vendor.play([play.reasoning("hm"), play.words("Let me look."), first, second, play.finish()])

    chunks = await ask(provider)

    assert calls_of(chunks) == [("call_a", "datetime", '{"timezone": "UTC"}'), ("call_b", "datetime", "")]
    assert finish_of(chunks).stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([play.text("x"), play.finish()], "end_turn"),
        ([play.refusal("I will not."), play.finish()], "end_turn"),
        ([play.text("x"), play.finish("length")], "max_tokens"),
        ([play.tool_call("f", '{"x'), play.finish("length")], "max_tokens"),
        ([play.text("x"), play.finish("content_filter")], "content_filter"),
    ],
    ids=["completed", "refusal", "too long", "too long in a call", "filtered"],
)
async def test_end_becomes_a_stop_reason_of_ours(vendor: OpenAIDouble, provider: OpenAI, script: Script, expected: str) -> None:
    vendor.play(script)

    assert finish_of(await ask(provider)).stop_reason == expected


WIRES: dict[str, Script] = {
    "CR": [play.wire(line_end="\r")],
    "CRLF": [play.wire(line_end="\r\n")],
    "byte order mark": [play.wire(has_bom=True)],
    "bytes one by one": [play.wire(write_bytes=1)],
    "pings": [play.pings(3, seconds=0)],
    "no chunks": [play.head(is_chunked=False)],
}


@pytest.mark.parametrize("name", WIRES)
async def test_answer_is_the_same_however_it_is_written(vendor: OpenAIDouble, provider: OpenAI, name: str) -> None:
    vendor.play([*WIRES[name], play.text("Grüß", " dich, 🌍\u2028!"), play.finish()])

    assert text_of(await ask(provider)) == "Grüß dich, 🌍\u2028!"


async def test_lone_surrogate_becomes_a_replacement_character(vendor: OpenAIDouble, provider: OpenAI) -> None:
    vendor.play([play.text("a\ud83d", "b"), play.finish()])

    assert text_of(await ask(provider)) == "a\ufffdb"


@pytest.mark.parametrize(
    "usage",
    [None, [], {"input_tokens": -1, "output_tokens": 10**15}, {"input_tokens": "7", "input_tokens_details": 1}],
)
async def test_absurd_usage_counts_as_0(vendor: OpenAIDouble, provider: OpenAI, usage: Any) -> None:
    vendor.play([play.text("x"), play.finish(usage=usage)])

    assert finish_of(await ask(provider)).usage == Usage()


async def test_reasoning_goes_back_before_the_calls_that_it_led_to(vendor: OpenAIDouble, provider: OpenAI) -> None:
    call = play.tool_call("datetime", {}, call_id="call_a")
    again = play.tool_call("datetime", {"timezone": "UTC"}, call_id="call_b")
    vendor.play([play.reasoning("hm"), play.text("Wait."), play.reasoning(), call, play.reasoning(), again, play.finish()])

    asked = await message_of(provider, [USER])
    results = Message("tool", (ToolResult("call_a", "noon", is_error=False), ToolResult("call_b", "", is_error=True)))
    await message_of(provider, [USER, asked, results])

    sent = vendor.bodies[1]["input"][1:]
    kinds = ["reasoning", "message", "reasoning", "function_call", "reasoning", "function_call"]
    assert [item["type"] for item in sent] == [*kinds, "function_call_output", "function_call_output"]
    assert sent[0] == {
        "type": "reasoning",
        "id": "rs_1_0",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "encrypted rs_1_0",
    }
    assert sent[3] == {
        "type": "function_call",
        "id": "fc_1_3",
        "call_id": "call_a",
        "name": "datetime",
        "arguments": "{}",
    }


async def test_call_whose_reasoning_is_gone_goes_back_without_its_own_id(vendor: OpenAIDouble, provider: OpenAI) -> None:
    vendor.play([play.reasoning("hm"), play.tool_call("datetime", {}, call_id="a"), play.finish()])
    asked = await message_of(provider, [USER])
    cut = Message("assistant", asked.tool_uses, asked.stop_reason)

    await message_of(provider, [USER, cut, Message("tool", (ToolResult("a", "noon", is_error=False),))])

    assert "id" not in vendor.bodies[1]["input"][1]


async def test_model_without_reasoning_is_neither_asked_for_it_nor_given_any(vendor: OpenAIDouble, provider: OpenAI) -> None:
    vendor.play([play.reasoning("hm"), play.tool_call("datetime", {}, call_id="a"), play.finish()])
    asked = await message_of(provider, [USER])
    messages = [USER, asked, Message("tool", (ToolResult("a", "noon", is_error=False),))]

    await ask(provider, ModelRequest("gpt-4.1-mini", None, messages))

    assert "include" not in vendor.bodies[1]
    assert [item["type"] for item in vendor.bodies[1]["input"]] == ["message", "function_call", "function_call_output"]


async def test_transcript_of_another_vendor_is_translated(vendor: OpenAIDouble, provider: OpenAI) -> None:
    foreign = "toolu_" + "x" * 80
    thought = Reasoning("hm", {"anthropic": [{"type": "thinking", "signature": "s"}]})
    uses = (ToolUse(foreign, "files/read it", {"path": "a"}, {"gemini": "sig"}), ToolUse("b:1", "f", "not JSON"))
    messages = [
        Message("user", (Text("Look."), Image("image/png", "aGk=", None), Image(None, None, "https://example.org/a.png"))),
        Message("user", (Text(""),)),
        Message("assistant", (thought, Text("Reading."), *uses)),
        Message("tool", (ToolResult(foreign, "boom", is_error=True), ToolResult("b:1", "", is_error=False))),
        Message("assistant", (Reasoning("only this"),)),
        Message("assistant", (Text("Half"),), "interrupted"),
        Message("assistant", (Text(""),)),
        USER,
    ]

    await ask(provider, ModelRequest("m", None, messages))

    look, empty, said, first, second, one, two, half, hello = vendor.bodies[0]["input"]
    assert [part["type"] for part in look["content"]] == ["input_text", "input_image", "input_image"]
    assert look["content"][1]["image_url"] == "data:image/png;base64,aGk="
    assert empty["content"] == [{"type": "input_text", "text": "(empty)"}]
    assert (said["content"], half["content"], hello["role"]) == ("Reading.", "Half", "user")
    assert (first["name"], first["arguments"], second["arguments"]) == ("files_read_it", '{"path":"a"}', "{}")
    assert (one["call_id"], two["call_id"]) == (first["call_id"], second["call_id"])


@pytest.mark.parametrize(
    ("params", "locs"),
    [
        ({"temperature": 2.1, "top_p": "1"}, ["temperature", "top_p"]),
        ({"reasoning_effort": "huge", "verbosity": "loud"}, ["reasoning_effort", "verbosity"]),
        ({"prompt_cache_key": "", "safety_identifier": "x" * 129}, ["prompt_cache_key", "safety_identifier"]),
        ({"store": True, "stop": "x"}, ["store", "stop"]),
    ],
)
def test_params_are_refused_one_by_one_by_name(params: dict[str, Any], locs: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        OpenAI(BASE_URL, "k").check_params(params)

    errors = caught.value.members["errors"]
    assert isinstance(errors, list)
    assert [error["loc"] for error in errors] == [f"provider_params.{loc}" for loc in locs]


@pytest.mark.parametrize(("url", "key"), [("api.openai.com", "k"), ("ftp://x/v1", "k"), (BASE_URL, "k\n")])
def test_url_or_key_that_cannot_be_used_stops_the_start(url: str, key: str) -> None:
    with pytest.raises(StartupError):
        OpenAI(url, key)


async def test_double_is_taken_for_the_vendor_by_its_own_client(vendor: OpenAIDouble) -> None:
    call = play.tool_call("datetime", {"timezone": "UTC"}, call_id="call_a")
    vendor.play([play.reasoning("hm", "ok"), play.text("Let ", "me look."), call, play.finish()])

    async with openai.AsyncOpenAI(api_key="sk-canary", base_url=vendor.base_url, max_retries=0) as client:
        kept: Any = {"store": False, "include": ["reasoning.encrypted_content"]}
        asked: Any = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]
        async with client.responses.stream(model="m", input=asked, **kept) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            response = await stream.get_final_response()

    assert "".join(deltas) == response.output_text == "Let me look."
    [tool] = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
    assert (tool.call_id, tool.name, tool.arguments) == ("call_a", "datetime", '{"timezone": "UTC"}')
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.usage is not None
    assert (response.status, response.usage.total_tokens) == ("completed", 15)
