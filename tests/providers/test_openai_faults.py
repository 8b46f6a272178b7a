"""The real adapter against a double of OpenAI's Responses: what each fault becomes."""

import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.errors import ProviderError
from app.messages import Message, Text
from app.providers.base import ModelChunk, ModelRequest
from app.providers.deadlines import Deadlines
from app.providers.openai import OpenAI
from tests.provider_double import scripts as play
from tests.provider_double.openai import OpenAIDouble, error_event, failed
from tests.provider_double.scripts import Script
from tests.providers.asking import IMPATIENT, REQUEST, text_of

pytestmark = pytest.mark.anyio

DELTA = b'data: {"type":"response.output_text.delta","delta":"%b"}\n\n'
REFUSED, BUSY, BROKEN = "PROVIDER_REFUSED_REQUEST", "PROVIDER_RATE_LIMITED", "PROVIDER_PROTOCOL"
DOWN, FULL = "PROVIDER_UNAVAILABLE", "CONTEXT_OVERFLOW"

FAULTS: dict[str, tuple[Script, str, bool]] = {
    "401": ([play.status(401)], "PROVIDER_AUTH", False),
    "403": ([play.status(403)], "PROVIDER_AUTH", False),
    "400": ([play.status(400)], REFUSED, False),
    "404": ([play.status(404)], "MODEL_UNKNOWN", False),
    "400, no such model": ([play.status(400, code="model_not_found")], "MODEL_UNKNOWN", False),
    "400, context too long": ([play.context_overflow()], FULL, False),
    "429": ([play.status(429)], BUSY, True),
    "429, no quota": ([play.status(429, code="insufficient_quota")], BUSY, False),
    "500": ([play.status(500)], DOWN, True),
    "503": ([play.status(503)], DOWN, True),
    "200 with a page": ([play.html()], BROKEN, False),
    "redirect": ([play.redirect("/v1/elsewhere")], BROKEN, False),
    "hang-up before the head": ([play.cut()], DOWN, True),
    "reset": ([play.text("a", "b"), play.cut(is_reset=True)], DOWN, True),
    "cut": ([play.text("a", "b"), play.cut()], DOWN, True),
    "cut that looks like an end": ([play.head(is_chunked=False), play.text("a"), play.cut()], BROKEN, True),
    "no finish marker": ([play.text("a")], BROKEN, True),
    "[DONE] without a finish marker": ([play.text("a"), play.raw(b"data: [DONE]\n\n")], BROKEN, True),
    "nothing at all": ([play.head()], BROKEN, True),
    "half an event": ([play.text("a"), play.raw(b'data: {"type":"response.comp')], BROKEN, True),
    "failed": ([play.text("a"), failed("server_error")], DOWN, True),
    "failed, rate": ([failed("rate_limit_exceeded")], BUSY, True),
    "failed, quota": ([failed("insufficient_quota")], BUSY, False),
    "failed, prompt": ([failed("invalid_prompt")], REFUSED, False),
    "failed, image": ([failed("failed_to_download_image")], REFUSED, False),
    "failed, policy": ([failed("bio_policy")], REFUSED, False),
    "failed, context": ([failed("context_length_exceeded")], FULL, False),
    "error event": ([play.text("a"), error_event("server_error")], DOWN, True),
    "error event, no code": ([error_event(None)], DOWN, True),
    "error event, context": ([error_event(None, "Your input exceeds the context window of this model.")], FULL, False),
    "error event, nested": ([play.event({"type": "error", "error": {"type": "invalid_request_error"}})], REFUSED, False),
    "error event, bare": ([play.error_event()], DOWN, True),
    "incomplete, who knows why": ([play.event({"type": "response.incomplete", "response": {}})], DOWN, True),
    "not JSON": ([play.raw(b"data: {oops\n\n")], BROKEN, True),
    "not UTF-8": ([play.raw(DELTA % b"\xff\xfe")], BROKEN, True),
    "a line of 5 MB": ([play.raw(DELTA % (b"x" * 5_000_000))], BROKEN, True),
    "no object": ([play.event([])], BROKEN, True),
    "no type": ([play.event({"choices": []})], BROKEN, True),
    "type no string": ([play.event({"type": ["x"]})], BROKEN, True),
    "text no string": ([play.event({"type": "response.output_text.delta", "delta": 5})], BROKEN, True),
    "item no object": ([play.event({"type": "response.output_item.added", "item": []})], BROKEN, True),
    "call without a place": (
        [play.event({"type": "response.output_item.added", "item": {"type": "function_call"}})], BROKEN, True,
    ),
    "arguments of no call": (
        [play.event({"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "x"})], BROKEN, True,
    ),
    "end without a response": ([play.event({"type": "response.completed"})], BROKEN, True),
}  # fmt: skip


@pytest.fixture
async def vendor() -> AsyncIterator[OpenAIDouble]:
    """A double with nothing to play."""
    async with OpenAIDouble() as double:
        yield double


@pytest.fixture
async def provider(vendor: OpenAIDouble) -> AsyncIterator[OpenAI]:
    """The real adapter, pointed at the double."""
    adapter = OpenAI(vendor.base_url, "sk-canary")
    yield adapter
    await adapter.aclose()


async def refused(provider: OpenAI, request: ModelRequest = REQUEST) -> tuple[ProviderError, list[ModelChunk]]:
    """The error that an answer ends in, and what came before it."""
    before: list[ModelChunk] = []
    with pytest.raises(ProviderError) as caught:
        async with aclosing(provider.stream(request)) as chunks:
            async for chunk in chunks:
                before += [chunk]
    return caught.value, before


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_becomes_a_reason_of_the_contract(vendor: OpenAIDouble, provider: OpenAI, name: str) -> None:
    script, reason, is_retryable = FAULTS[name]
    vendor.play(script)

    error, _ = await refused(provider)

    assert (error.reason, error.is_retryable) == (reason, is_retryable)
    assert vendor.ledger.counts.received == 1  # nothing is followed, nothing tried again here


async def test_what_came_before_a_fault_is_given(vendor: OpenAIDouble, provider: OpenAI) -> None:
    vendor.play([play.text("a", "b"), failed("server_error")])

    _, before = await refused(provider)

    assert text_of(before) == "ab"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([play.hang()], "did not begin to answer in time"),
        ([play.head(), play.hang()], "fell silent"),
        ([play.text("a"), play.hang()], "fell silent"),
        ([play.drip(DELTA % b"slowly", seconds_per_byte=0.05)], "longer than a whole call may"),
        ([play.pings(100, seconds=0.05)], "longer than a whole call may"),
    ],
    ids=["no head", "only a head", "silence", "drip", "pings only"],
)
async def test_each_deadline_ends_the_call_and_its_connection(vendor: OpenAIDouble, script: Script, message: str) -> None:
    impatient = OpenAI(vendor.base_url, "sk-canary", deadlines=IMPATIENT[message])
    vendor.play(script)

    error, _ = await refused(impatient)

    assert (error.reason, error.is_retryable) == (DOWN, True)
    assert message in str(error)
    assert (await vendor.ledger.wait(1, "ended")).closed_by_client_at is not None
    await impatient.aclose()


async def test_silence_after_the_finish_marker_completes_the_answer(vendor: OpenAIDouble) -> None:
    impatient = OpenAI(vendor.base_url, "sk-canary", deadlines=Deadlines(idle_seconds=0.5))
    vendor.play([play.text("a"), play.finish(), play.hang()])

    async with aclosing(impatient.stream(REQUEST)) as chunks:
        assert text_of([chunk async for chunk in chunks]) == "a"
    await impatient.aclose()


@pytest.mark.parametrize(("given", "expected"), [("7", 7.0), (None, None), ("soon", None)])
async def test_retry_after_is_told(vendor: OpenAIDouble, provider: OpenAI, given: str | None, expected: float | None) -> None:
    vendor.play([play.status(429, retry_after=given)])

    error, _ = await refused(provider)

    assert error.retry_after_seconds == expected


async def test_limit_that_the_vendor_does_not_take_is_refused_before_it_is_asked(
    vendor: OpenAIDouble, provider: OpenAI
) -> None:
    request = ModelRequest("m", None, (Message("user", (Text("Hello"),)),), max_tokens=15)

    error, _ = await refused(provider, request)

    assert (error.reason, vendor.ledger.counts.received) == (REFUSED, 0)


async def test_neither_key_nor_vendor_words_are_in_an_error(vendor: OpenAIDouble, provider: OpenAI) -> None:
    canaries: list[Script] = [
        [play.status(400, message="vendor-canary")],
        [failed("invalid_prompt", "vendor-canary")],
        [error_event("vendor-canary", "vendor-canary")],
        [play.raw(b"data: vendor-canary\n\n")],
    ]
    vendor.play(*canaries)

    for _ in canaries:
        error, _before = await refused(provider)

        shown = "".join(traceback.format_exception(error))
        assert "vendor-canary" not in shown
        assert "sk-canary" not in shown
