"""The real adapter against the double: what each fault becomes."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from email.utils import format_datetime

import pytest

from app import clock
from app.errors import ProviderError
from app.providers.base import ModelChunk
from app.providers.deadlines import Deadlines
from app.providers.openai_compatible import OpenAICompatible
from tests.provider_double import scripts as play
from tests.provider_double.client import ProviderDouble
from tests.provider_double.scripts import Script
from tests.providers.asking import CONTENT, IMPATIENT, REQUEST, ask, refused, text_of

pytestmark = pytest.mark.anyio

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
    "error event, rate": ([play.error_event(code="rate_limit_exceeded")], "PROVIDER_RATE_LIMITED", True),
    "error event, quota": ([play.error_event(code="insufficient_quota")], "PROVIDER_RATE_LIMITED", False),
    "error event, 503": ([play.text("a"), play.error_event(code=503)], "PROVIDER_UNAVAILABLE", True),
    "error event, 400": ([play.text("a"), play.error_event(code=400)], "PROVIDER_PROTOCOL", True),
    "error event, no object": ([play.event({"error": "vendor-canary"})], "PROVIDER_PROTOCOL", True),
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
        before: list[ModelChunk] = []
        with pytest.raises(ProviderError):
            async for chunk in chunks:
                before += [chunk]

    assert text_of(before) == "ab"


@pytest.fixture
async def impatient(double: ProviderDouble) -> AsyncIterator[OpenAICompatible]:
    """An adapter with small deadlines."""
    deadlines = Deadlines(first_byte_seconds=0.5, idle_seconds=0.5)
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
async def test_each_deadline_ends_the_call_and_its_connection(double: ProviderDouble, script: Script, message: str) -> None:
    impatient = OpenAICompatible(double.base_url, None, deadlines=IMPATIENT[message])
    await double.play(script)

    error = await refused(impatient)

    assert (error.reason, error.is_retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert message in str(error)
    assert (await double.ended(1)).closed_by_client_at is not None
    await impatient.aclose()


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
