"""The real adapter against Gemini's double, and the double against the vendor's own client."""

import base64
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from google import genai
from google.genai import types

from app.errors import InvalidRequest, ProviderError, StartupError
from app.messages import Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.base import Finish, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk, ToolSpec, VendorChunk
from app.providers.gemini import Gemini
from tests.provider_double import scripts as play
from tests.provider_double.gemini import SIGNATURE, GeminiDouble, blocked, call, context_overflow, error, parts, refusal, signed
from tests.provider_double.scripts import Script
from tests.providers.asking import IMPATIENT, ask, calls_of, finish_of, refused, text_of

pytestmark = pytest.mark.anyio

MODEL = "gemini-3-pro"
DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {"timezone": {"type": "string"}}})
CONTENT = b'data: {"candidates":[{"content":{"parts":[{"text":"%b"}]}}]}\n\n'
BUSY_DETAILS = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]


def request(*messages: Message, model: str = MODEL, **members: Any) -> ModelRequest:
    return ModelRequest(model, members.pop("system", None), messages or (Message("user", (Text("Hello"),)),), **members)


@pytest.fixture
async def double() -> AsyncIterator[GeminiDouble]:
    """The double; the test fails if it had to refuse a transcript."""
    async with GeminiDouble("key-canary") as running:
        yield running
        assert running.rejected == []


@pytest.fixture
async def provider(double: GeminiDouble) -> AsyncIterator[Gemini]:
    """The real adapter, pointed at the double."""
    adapter = Gemini(double.base_url, "key-canary")
    yield adapter
    await adapter.aclose()


async def test_stream_gives_reasoning_text_and_usage_in_order(double: GeminiDouble, provider: Gemini) -> None:
    usage = {"promptTokenCount": 21, "cachedContentTokenCount": 20, "candidatesTokenCount": 5, "thoughtsTokenCount": 7}
    double.play([play.reasoning("Ca", "pital?"), play.text("Par", "is."), play.finish(usage=usage)])

    chunks = await ask(provider, request())

    assert [type(chunk) for chunk in chunks] == sorted(map(type, chunks), key=[ReasoningChunk, TextChunk, Finish].index)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk)) == "Capital?"
    assert text_of(chunks) == "Paris."
    assert chunks[-1] == Finish("end_turn", Usage(input_tokens=1, output_tokens=12, cache_read_tokens=20))


async def test_request_carries_key_model_system_tools_and_params(double: GeminiDouble, provider: Gemini) -> None:
    params = {"temperature": 0, "top_k": 3, "stop_sequences": ["END"], "thinking_level": "low", "include_thoughts": True}
    provider.check_params(params)

    await ask(provider, request(system="Be brief.", tools=(DATETIME,), max_tokens=9, params=params | {"seed": None}))

    [record] = double.requests
    function = {"name": "datetime", "description": "Tell the time.", "parametersJsonSchema": DATETIME.input_schema}
    assert record.headers["x-goog-api-key"] == "key-canary"
    assert record.body == {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [function]}],
        "generationConfig": {
            "temperature": 0,
            "topK": 3,
            "stopSequences": ["END"],
            "maxOutputTokens": 9,
            "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True},
        },
    }


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", "end_turn"),
        ("MAX_TOKENS", "max_tokens"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("SOMETHING_NEW", "end_turn"),
    ],
)
async def test_finish_reason_becomes_ours(double: GeminiDouble, provider: Gemini, reason: str, expected: str) -> None:
    double.play([play.text("x"), play.finish(reason)])

    assert finish_of(await ask(provider, request())).stop_reason == expected


async def test_blocked_prompt_ends_in_content_filter(double: GeminiDouble, provider: Gemini) -> None:
    double.play([blocked()])

    assert await ask(provider, request()) == [Finish("content_filter", Usage(input_tokens=7))]


async def test_calls_are_numbered_and_end_in_tool_use(double: GeminiDouble, provider: Gemini) -> None:
    first = call("datetime", {"timezone": "UTC"}, call_id="a", signature=SIGNATURE)
    double.play([play.text("Let me look."), first, call("datetime", {}), play.finish()])

    chunks = await ask(provider, request(tools=(DATETIME,)))

    assert calls_of(chunks) == [("a", "datetime", '{"timezone":"UTC"}'), ("", "datetime", "{}")]
    assert [chunk.vendor for chunk in chunks if isinstance(chunk, ToolCallChunk)] == [SIGNATURE, None]
    assert finish_of(chunks).stop_reason == "tool_use"


async def test_tool_whose_name_the_vendor_cannot_take_is_called_by_its_own(double: GeminiDouble, provider: Gemini) -> None:
    tool = ToolSpec("7zip/list", "List.", {"type": "object"})
    double.play([call("_7zip_list", {}, signature=SIGNATURE), play.finish()])

    assert calls_of(await ask(provider, request(tools=(tool,)))) == [("", "7zip/list", "{}")]


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"promptTokenCount": -1, "candidatesTokenCount": 10**12}])
async def test_absurd_usage_counts_as_nothing(double: GeminiDouble, provider: Gemini, usage: Any) -> None:
    double.play([play.text("x"), play.finish(usage=usage)])

    assert finish_of(await ask(provider, request())).usage == Usage()


@pytest.mark.parametrize(
    "wire",
    [play.wire(line_end="\r"), play.wire(line_end="\r\n", has_bom=True), play.wire(write_bytes=1), play.wire(write_bytes=3)],
    ids=["CR", "CRLF and BOM", "split UTF-8", "pieces of three"],
)
async def test_every_way_of_writing_events_is_read(double: GeminiDouble, provider: Gemini, wire: play.Wire) -> None:
    double.play([wire, play.text("Grüße ", "🙂!"), play.finish()])

    assert text_of(await ask(provider, request())) == "Grüße 🙂!"


FAULTS: dict[str, tuple[Script, str, bool]] = {
    "401": ([refusal(401, "UNAUTHENTICATED")], "PROVIDER_AUTH", False),
    "403": ([refusal(403, "PERMISSION_DENIED")], "PROVIDER_AUTH", False),
    "400": ([refusal(400)], "PROVIDER_REFUSED_REQUEST", False),
    "400, wrong key": ([refusal(400, message="API key not valid. Please pass a valid API key.")], "PROVIDER_AUTH", False),
    "400, context too long": ([context_overflow()], "CONTEXT_OVERFLOW", False),
    "404": ([refusal(404, "NOT_FOUND", "models/x is not found.")], "MODEL_UNKNOWN", False),
    "429": ([refusal(429, "RESOURCE_EXHAUSTED")], "PROVIDER_RATE_LIMITED", True),
    "500": ([refusal(500, "INTERNAL")], "PROVIDER_UNAVAILABLE", True),
    "503": ([refusal(503, "UNAVAILABLE", "The model is overloaded.")], "PROVIDER_UNAVAILABLE", True),
    "200 with a page": ([play.html()], "PROVIDER_PROTOCOL", False),
    "200 with JSON": ([play.Status(200, {"content-type": "application/json"}, "[]")], "PROVIDER_PROTOCOL", False),
    "hang-up before the head": ([play.cut()], "PROVIDER_UNAVAILABLE", True),
    "cut": ([play.text("a", "b"), play.cut()], "PROVIDER_UNAVAILABLE", True),
    "reset": ([play.text("a", "b"), play.cut(is_reset=True)], "PROVIDER_UNAVAILABLE", True),
    "cut that looks like an end": ([play.head(is_chunked=False), play.text("a"), play.cut()], "PROVIDER_PROTOCOL", True),
    "no finish marker": ([play.text("a")], "PROVIDER_PROTOCOL", True),
    "finish marker that is none": ([play.text("a"), play.finish("FINISH_REASON_UNSPECIFIED")], "PROVIDER_PROTOCOL", True),
    "nothing at all": ([play.head()], "PROVIDER_PROTOCOL", True),
    "half an event": ([play.text("a"), play.raw(b'data: {"cand')], "PROVIDER_PROTOCOL", True),
    "malformed call": ([play.finish("MALFORMED_FUNCTION_CALL")], "PROVIDER_PROTOCOL", True),
    "missing signature": ([play.finish("MISSING_THOUGHT_SIGNATURE")], "PROVIDER_REFUSED_REQUEST", False),
    "error event, busy": ([play.text("a"), play.event(error(503, "UNAVAILABLE", "Busy."))], "PROVIDER_UNAVAILABLE", True),
    "error event, quota": ([play.event(error(429, "RESOURCE_EXHAUSTED", "Slow."))], "PROVIDER_RATE_LIMITED", True),
    "error event, unknown": ([play.event({"error": "oops"})], "PROVIDER_PROTOCOL", True),
    "error event, context": ([play.event({"error": {"message": "input token count"}})], "CONTEXT_OVERFLOW", False),
    "not JSON": ([play.raw(b"data: {oops\n\n")], "PROVIDER_PROTOCOL", True),
    "not UTF-8": ([play.raw(CONTENT % b"\xff\xfe")], "PROVIDER_PROTOCOL", True),
    "no object": ([play.event([])], "PROVIDER_PROTOCOL", True),
    "candidates no list": ([play.event({"candidates": "x"})], "PROVIDER_PROTOCOL", True),
    "text no string": ([parts({"text": 5})], "PROVIDER_PROTOCOL", True),
    "part no object": ([play.event({"candidates": [{"content": {"parts": ["x"]}}]})], "PROVIDER_PROTOCOL", True),
    "call no object": ([parts({"functionCall": 5})], "PROVIDER_PROTOCOL", True),
    "reason no string": ([play.event({"candidates": [{"finishReason": 5}]})], "PROVIDER_PROTOCOL", True),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_becomes_a_reason_of_the_contract(double: GeminiDouble, provider: Gemini, name: str) -> None:
    script, reason, is_retryable = FAULTS[name]
    double.play(script)

    failure = await refused(provider)

    assert (failure.reason, failure.is_retryable) == (reason, is_retryable)
    assert len(double.requests) == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([refusal(429, "RESOURCE_EXHAUSTED", retry_after="7")], 7.0),
        ([refusal(429, "RESOURCE_EXHAUSTED", details=BUSY_DETAILS)], 34.5),
        ([refusal(429, "RESOURCE_EXHAUSTED", details=[{"retryDelay": "soon"}, 5])], None),
        ([refusal(503, "UNAVAILABLE")], None),
    ],
)
async def test_wait_that_the_vendor_asks_for_is_told(
    double: GeminiDouble, provider: Gemini, script: Script, expected: float | None
) -> None:
    double.play(script)

    assert (await refused(provider)).retry_after_seconds == expected


async def test_what_came_before_a_fault_is_given(double: GeminiDouble, provider: Gemini) -> None:
    double.play([play.text("a", "b"), play.raw(CONTENT % b"c" + b"data: {oops\n\n")])

    before: list[ModelChunk] = []
    async with aclosing(provider.stream(request())) as chunks:
        with pytest.raises(ProviderError):
            async for chunk in chunks:
                before += [chunk]

    assert text_of(before) == "abc"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([play.hang()], "did not begin to answer in time"),
        ([play.text("a"), play.hang()], "fell silent"),
        ([play.drip(CONTENT % b"slowly", seconds_per_byte=0.05)], "longer than a whole call may"),
    ],
    ids=["no head", "silence", "drip"],
)
async def test_each_deadline_ends_the_call_and_its_connection(double: GeminiDouble, script: Script, message: str) -> None:
    impatient = Gemini(double.base_url, "key-canary", deadlines=IMPATIENT[message])
    double.play(script)

    failure = await refused(impatient)

    assert (failure.reason, failure.is_retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert message in str(failure)
    assert (await double.ended(1)).closed_by_client_at is not None
    await impatient.aclose()


async def test_neither_key_nor_vendor_words_are_in_an_error(double: GeminiDouble, provider: Gemini) -> None:
    words = "vendor-canary"
    double.play(
        [refusal(400, message=words)], [play.event(error(500, "INTERNAL", words))], [play.raw(b"data: vendor-canary\n\n")]
    )

    for _ in range(3):
        shown = "".join(traceback.format_exception(await refused(provider)))
        assert words not in shown
        assert "key-canary" not in shown


async def test_signatures_go_back_on_the_parts_that_had_them(double: GeminiDouble, provider: Gemini) -> None:
    signatures = [base64.b64encode(bytes([number])).decode() for number in range(4)]
    double.play([
        signed("Hm.", signatures[0], thought=True),
        play.text("It ", "is"),
        signed(" noon", signatures[1]),
        play.text("?"),
        call("datetime", {}, call_id="a", signature=signatures[2]),
        signed("", signatures[3]),
        play.finish(),
    ])
    hello = Message("user", (Text("Hello"),))

    chunks = await ask(provider, request(hello, tools=(DATETIME,)))
    vendor = {"gemini": [chunk.value for chunk in chunks if isinstance(chunk, VendorChunk)]}
    [marked] = [chunk.vendor for chunk in chunks if isinstance(chunk, ToolCallChunk)]
    answer = Message(
        "assistant",
        (Reasoning("Hm.", vendor), Text(text_of(chunks)), ToolUse("a", "datetime", {}, {"gemini": marked})),
        "tool_use",
    )
    result = Message("tool", (ToolResult("a", "12:00", is_error=False),))
    await ask(provider, request(hello, answer, result, tools=(DATETIME,)))

    assert double.requests[1].body["contents"][1]["parts"] == [
        {"text": "Hm.", "thoughtSignature": signatures[0], "thought": True},
        {"text": "It is"},
        {"text": " noon", "thoughtSignature": signatures[1]},
        {"text": "?"},
        {"functionCall": {"id": "a", "name": "datetime", "args": {}}, "thoughtSignature": signatures[2]},
        {"text": "", "thoughtSignature": signatures[3]},
    ]


async def test_model_that_wants_signatures_refuses_a_call_without_one() -> None:
    call_parts = [{"functionCall": {"name": "f", "args": {}}}]
    answer_parts = [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]
    body: Any = [("user", [{"text": "Go"}]), ("model", call_parts), ("user", answer_parts)]
    async with GeminiDouble() as double:
        client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=double.root_url, api_version="v1beta"))
        with pytest.raises(genai.errors.ClientError, match="missing a thought_signature"):
            stream = await client.aio.models.generate_content_stream(
                model=MODEL, contents=[types.Content.model_validate({"role": role, "parts": given}) for role, given in body]
            )
            await anext(stream)
        await client.aio.aclose()


@pytest.mark.parametrize(
    ("params", "loc"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"seed": 2**31}, "seed"),
        ({"stop_sequences": [""]}, "stop_sequences.0"),
        ({"presence_penalty": 2}, "presence_penalty"),
        ({"thinking_budget": 1, "thinking_level": "low"}, "thinking_level"),
        ({"include_thoughts": "yes"}, "include_thoughts"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_params_are_refused_by_name(params: dict[str, Any], loc: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Gemini("http://127.0.0.1:9", None).check_params(params)

    errors: Any = caught.value.members["errors"]
    assert [entry["loc"] for entry in errors] == [f"provider_params.{loc}"]


@pytest.mark.parametrize(("url", "key"), [("ftp://x", None), ("http://127.0.0.1:9", "a\nb")])
def test_what_cannot_be_called_is_told_at_start(url: str, key: str | None) -> None:
    with pytest.raises(StartupError):
        Gemini(url, key)


@pytest.mark.parametrize("model", ["tunedModels/x", "../x", "models/../../x", "a?b#c:d"])
async def test_model_name_leads_nowhere_else(double: GeminiDouble, provider: Gemini, model: str) -> None:
    assert text_of(await ask(provider, request(model=model))) == "ok"


async def test_official_client_reads_the_doubles_text_thoughts_and_calls() -> None:
    async with GeminiDouble("k") as double:
        client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=double.root_url, api_version="v1beta"))
        double.play([
            play.reasoning("Hm."),
            play.text("It is ", "noon."),
            call("datetime", {"x": 1}, signature=SIGNATURE),
            play.finish(),
        ])

        stream = await client.aio.models.generate_content_stream(model=MODEL, contents="Hello")
        responses = [response async for response in stream]
        await client.aio.aclose()

    contents = [candidate.content for response in responses for candidate in response.candidates or ()]
    read = [part for content in contents if content is not None for part in content.parts or ()]
    assert "".join(part.text or "" for part in read if not part.thought) == "It is noon."
    assert [part.text for part in read if part.thought] == ["Hm."]
    assert [(part.function_call.name, part.function_call.args) for part in read if part.function_call] == [
        ("datetime", {"x": 1})
    ]
    assert read[-1].thought_signature == base64.b64decode(SIGNATURE)
    last = responses[-1]
    assert last.usage_metadata is not None
    assert last.usage_metadata.total_token_count == 12
    assert last.candidates is not None
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
