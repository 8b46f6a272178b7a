"""The Anthropic adapter against its double: what each fault becomes."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.errors import ProviderError
from app.providers.anthropic import Anthropic
from app.providers.base import ModelChunk
from tests.provider_double import scripts as play
from tests.provider_double.anthropic import AnthropicDouble, error, error_body
from tests.provider_double.scripts import Script
from tests.providers.asking import IMPATIENT, REQUEST, refused, text_of

pytestmark = pytest.mark.anyio

DELTA = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'


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
    impatient = Anthropic(double.base_url, "sk-canary", deadlines=IMPATIENT[message])
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
