"""What the loop may rely on whoever the vendor is: one suite over every adapter, each against its own strict double."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.errors import InvalidRequest
from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.base import Finish, ReasoningChunk, TextChunk
from tests.provider_double import scripts as play
from tests.provider_double.client import ProviderDouble
from tests.provider_double.scripts import Script
from tests.providers.asking import IMPATIENT, calls_of, finish_of, text_of
from tests.providers.behaviours import (
    ALL,
    LONG_ID,
    ODD_ID,
    SEALING,
    THOUGHT,
    WIRED,
    Stage,
    WiredStage,
    kept,
    kept_of_a_cut,
    outcome,
    reasoning_of,
    staged,
    wired,
)

pytestmark = pytest.mark.anyio

HELLO = Message("user", (Text("Hello"),))
PICTURES = (Image("image/png", "aGkgdGhlcmU=", None), Image(None, None, "https://example.org/a.png"))


@pytest.fixture(params=ALL)
async def stage(request: pytest.FixtureRequest, running_double: ProviderDouble) -> AsyncIterator[Stage]:
    """Each adapter, the scripted model among them."""
    async with staged(request.param, running_double) as opened:
        yield opened


@pytest.fixture(params=WIRED)
async def vendor(request: pytest.FixtureRequest, running_double: ProviderDouble) -> AsyncIterator[WiredStage]:
    """Each adapter with a wire; the test fails if its double had to refuse a transcript."""
    async with wired(request.param, running_double) as opened:
        yield opened
        assert await opened.rejected() == []


async def test_text_arrives_in_order_and_whole(stage: Stage) -> None:
    await stage.play([play.text("Par", "is", " is", " it, ", "Grüß", " dich 🌍!"), stage.finish()])

    chunks, error = await outcome(stage, stage.request(HELLO))

    assert error is None
    assert text_of(chunks) == "Paris is it, Grüß dich 🌍!"
    assert all(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
    assert finish_of(chunks).stop_reason == "end_turn"


@pytest.mark.parametrize(
    "wire",
    [play.wire(write_bytes=1), play.wire(line_end="\r\n"), play.wire(line_end="\r", has_bom=True), play.head(is_chunked=False)],
    ids=["bytes one by one", "CRLF", "CR and BOM", "no chunks"],
)
async def test_text_is_the_same_however_it_is_written(vendor: WiredStage, wire: play.Wire | play.Head) -> None:
    await vendor.play([wire, play.text("Grüß", " dich, 🌍\u2028!"), vendor.finish()])

    chunks, error = await outcome(vendor, vendor.request(HELLO))

    assert (text_of(chunks), error) == ("Grüß dich, 🌍\u2028!", None)


async def test_half_a_character_becomes_a_replacement_character(vendor: WiredStage) -> None:
    await vendor.play([play.text("a\ud83d", "b"), vendor.finish()])

    chunks, error = await outcome(vendor, vendor.request(HELLO))

    assert (text_of(chunks), error) == ("a\ufffdb", None)


async def test_reasoning_is_apart_from_text(stage: Stage) -> None:
    await stage.play([play.reasoning("Ca", "pital?", member="reasoning"), play.text("Par", "is."), stage.finish()])

    chunks, _ = await outcome(stage, stage.request(HELLO))

    spoken = [type(chunk) for chunk in chunks if isinstance(chunk, TextChunk | ReasoningChunk)]
    assert spoken == sorted(spoken, key=[ReasoningChunk, TextChunk].index)
    assert (reasoning_of(chunks), text_of(chunks)) == ("Capital?", "Paris.")


async def test_two_calls_in_parallel_have_their_own_names_and_arguments(stage: Stage) -> None:
    first = play.tool_call("datetime", {"timezone": "UTC"}, index=0, call_id="call_a")
    second = play.tool_call("datetime", {"timezone": "Europe/Zürich"}, index=1, call_id="call_b")
    await stage.play([play.text("Let me look."), first, second, stage.finish("tool_use")])

    chunks, _ = await outcome(stage, stage.request(HELLO))

    calls = calls_of(chunks)
    assert [(name, json.loads(args)) for _, name, args in calls] == [
        ("datetime", {"timezone": "UTC"}),
        ("datetime", {"timezone": "Europe/Zürich"}),
    ]
    assert len({call_id for call_id, *_ in calls}) == 2
    assert finish_of(chunks).stop_reason == "tool_use"


async def test_answer_that_was_cut_at_its_limit_says_so(vendor: WiredStage) -> None:
    await vendor.play([play.text("x"), vendor.finish("max_tokens")])

    chunks, _ = await outcome(vendor, vendor.request(HELLO))

    assert finish_of(chunks).stop_reason == "max_tokens"


async def test_usage_counts_cached_tokens_apart(vendor: WiredStage) -> None:
    await vendor.play([play.text("x"), vendor.finish(usage=vendor.usage(fresh=7, cached=20, output=5))])

    chunks, _ = await outcome(vendor, vendor.request(HELLO))

    assert finish_of(chunks).usage == Usage(input_tokens=7, output_tokens=5, cache_read_tokens=20)


async def test_counts_that_cannot_be_are_taken_as_0(vendor: WiredStage) -> None:
    await vendor.play([play.text("x"), vendor.finish(usage=vendor.usage(fresh=-3, cached=0, output=10**15))])

    chunks, _ = await outcome(vendor, vendor.request(HELLO))

    assert finish_of(chunks).usage == Usage()


@pytest.mark.parametrize("is_in_a_call", [False, True], ids=["in text", "in a call"])
async def test_cut_stream_is_an_error_and_what_came_before_it_is_given(vendor: WiredStage, is_in_a_call: bool) -> None:
    call = [play.tool_call("datetime", {}, call_id="a")] if is_in_a_call else []
    await vendor.play([play.text("a", "b"), *call, play.cut()])

    chunks, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert text_of(chunks) == "ab"
    assert not any(isinstance(chunk, Finish) for chunk in chunks)


async def test_reset_is_an_error(vendor: WiredStage) -> None:
    await vendor.play([play.text("a", "b"), play.cut(is_reset=True)])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_UNAVAILABLE", True)


UNFINISHED: dict[str, Script] = {
    "clean end": [play.text("ab")],
    "end of the connection": [play.head(is_chunked=False), play.text("ab"), play.cut()],
    "half an event": [play.text("ab"), play.raw(b'data: {"')],
    "calls alone": [play.text("ab"), play.tool_call("datetime", {}, call_id="a")],
    "[DONE] alone": [play.text("ab"), play.raw(b"data: [DONE]\n\n")],
}


@pytest.mark.parametrize("name", UNFINISHED)
async def test_stream_without_its_finish_marker_is_never_an_answer(vendor: WiredStage, name: str) -> None:
    await vendor.play(UNFINISHED[name])

    chunks, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_PROTOCOL", True)
    assert text_of(chunks) == "ab"
    assert not any(isinstance(chunk, Finish) for chunk in chunks)


async def test_error_inside_a_200_is_an_error_after_what_came_before_it(vendor: WiredStage) -> None:
    await vendor.play([play.text("a", "b"), vendor.crash])

    chunks, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert error.reason in {"PROVIDER_UNAVAILABLE", "PROVIDER_PROTOCOL"}
    assert error.is_retryable
    assert text_of(chunks) == "ab"


async def test_limit_of_requests_inside_a_200_is_told_as_a_429_is(vendor: WiredStage) -> None:
    await vendor.play([vendor.busy_inside])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_RATE_LIMITED", True)


async def test_refused_credentials_inside_a_200_are_not_tried_again(vendor: WiredStage) -> None:
    await vendor.play([vendor.locked_out_inside])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_AUTH", False)


@pytest.mark.parametrize("is_inside", [False, True], ids=["status", "inside a 200"])
async def test_context_that_is_full_is_told_from_other_refusals(vendor: WiredStage, is_inside: bool) -> None:
    await vendor.play([vendor.overflow_inside if is_inside else vendor.overflow])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("CONTEXT_OVERFLOW", False)


async def test_429_tells_how_long_the_vendor_asks_to_wait(vendor: WiredStage) -> None:
    await vendor.play([vendor.refusal(429, retry_after="7")])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable, error.retry_after_seconds) == ("PROVIDER_RATE_LIMITED", True, 7.0)


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_told(vendor: WiredStage, status: int) -> None:
    await vendor.play([vendor.refusal(status)])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_AUTH", False)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_fault_of_the_vendor_may_be_tried_again(vendor: WiredStage, status: int) -> None:
    await vendor.play([vendor.refusal(status, retry_after="3")])

    _, error = await outcome(vendor, vendor.request(HELLO))

    assert error is not None
    assert (error.reason, error.is_retryable, error.retry_after_seconds) == ("PROVIDER_UNAVAILABLE", True, 3.0)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([play.hang()], "did not begin to answer in time"),
        ([play.text("a"), play.hang()], "fell silent"),
        ([play.text("a"), play.drip(b'data: {"' + b"x" * 60, seconds_per_byte=0.05)], "longer than a whole call may"),
    ],
    ids=["no head", "silence", "slow drip"],
)
async def test_each_deadline_ends_the_call_and_its_connection(vendor: WiredStage, script: Script, message: str) -> None:
    await vendor.play(script)

    _, error = await outcome(vendor, vendor.request(HELLO), IMPATIENT[message])

    assert error is not None
    assert (error.reason, error.is_retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert message in str(error)
    async with asyncio.timeout(5):
        assert await vendor.hung_up()


async def test_closing_the_generator_closes_the_connection(vendor: WiredStage) -> None:
    await vendor.play([play.text("a"), play.hang()])

    async with aclosing(vendor.adapter()) as adapter:
        async with aclosing(adapter.stream(vendor.request(HELLO))) as stream:
            said = await anext(chunk async for chunk in stream if isinstance(chunk, TextChunk))
        async with asyncio.timeout(5):
            assert await vendor.hung_up()

    assert said == TextChunk("a")


async def test_max_tokens_reaches_the_wire(vendor: WiredStage) -> None:
    await outcome(vendor, vendor.request(HELLO, max_tokens=64))

    [body] = await vendor.bodies()
    assert vendor.limit_of(body) == 64


async def test_params_that_nobody_knows_are_refused_by_name(stage: Stage) -> None:
    async with aclosing(stage.adapter()) as adapter:
        with pytest.raises(InvalidRequest) as caught:
            adapter.check_params({"no_such_param": 1, "nor_this": None})

    errors = caught.value.members["errors"]
    assert isinstance(errors, list)
    assert [error["loc"] for error in errors] == ["provider_params.no_such_param", "provider_params.nor_this"]


@pytest.mark.parametrize("vendor", SEALING, indirect=True)
async def test_what_the_vendor_gave_with_its_reasoning_goes_back_with_the_next_request(vendor: WiredStage) -> None:
    assert vendor.seal is not None
    await vendor.play(vendor.reasoned_calls("call_a"))

    asked = await kept(vendor, HELLO)
    result = Message("tool", (ToolResult("call_a", "12:00", is_error=False),))
    await kept(vendor, HELLO, asked, result)

    first, second = map(json.dumps, await vendor.bodies())
    assert vendor.seal not in first
    assert second.count(vendor.seal) == 1


async def written_by(author: Stage) -> list[Message]:
    """A transcript in which all answers are the author's: reasoning, text and calls; a cut one; a call that waits for more."""
    hello = Message("user", (Text("Look at this."), *PICTURES))
    await author.play(author.reasoned_calls(LONG_ID, ODD_ID))
    asked = await kept(author, hello)
    first, second = asked.tool_uses
    results = Message("tool", (ToolResult(first.id, "12:00", is_error=False), ToolResult(second.id, "", is_error=True)))
    messages = [hello, asked, results]

    await author.play([play.reasoning("Hm."), play.text("It is half"), play.cut()])
    messages += [await kept_of_a_cut(author, hello), Message("user", (Text("Go on, please."),))]

    await author.play(author.reasoned_calls("call_c"))
    again = await kept(author, *messages)
    [last] = again.tool_uses
    return [*messages, again, Message("tool", (ToolResult(last.id, "13:00", is_error=False),))]


@pytest.mark.parametrize("author_name", ALL)
async def test_transcript_of_each_vendor_is_taken_by_each_other(
    vendor: WiredStage, running_double: ProviderDouble, author_name: str
) -> None:
    if author_name == vendor.name:
        author: Stage = vendor
        transcript = await written_by(author)
    else:
        async with staged(author_name, running_double) as author:
            transcript = await written_by(author)

    _, error = await outcome(vendor, vendor.request(*transcript, params=vendor.thinking, max_tokens=4096))

    assert error is None
    sent = json.dumps((await vendor.bodies())[-1])
    words = ("Look at this.", PICTURES[0].data, PICTURES[1].url, "Let me look.", "12:00", "It is half", "Go on", "13:00")
    assert [word for word in words if str(word) not in sent] == []
    if author is not vendor:
        assert THOUGHT not in sent
        assert author.seal is None or author.seal not in sent


@pytest.mark.parametrize("is_first", [True, False], ids=["began", "went on"])
@pytest.mark.parametrize(("vendor", "other_name"), [*itertools.permutations(WIRED, 2)], indirect=["vendor"])
async def test_turn_in_which_two_vendors_spoke_is_taken_by_either(
    vendor: WiredStage, running_double: ProviderDouble, other_name: str, is_first: bool
) -> None:
    async with wired(other_name, running_double) as other:
        transcript = [HELLO]
        for author in (vendor, other) if is_first else (other, vendor):
            await author.play(author.reasoned_calls("call_a", "call_b"))
            asked = await kept(author, *transcript)
            transcript += [asked, Message("tool", tuple(ToolResult(use.id, "x", is_error=False) for use in asked.tool_uses))]

        _, error = await outcome(vendor, vendor.request(*transcript, params=vendor.thinking, max_tokens=4096))
        rejected = await other.rejected()

    assert (error, rejected) == (None, [])
    assert vendor.seal is None or vendor.seal in json.dumps((await vendor.bodies())[-1])


@pytest.mark.parametrize("vendor", SEALING, indirect=True)
async def test_calls_whose_reasoning_was_lost_are_taken_by_their_own_vendor(vendor: WiredStage) -> None:
    await vendor.play(vendor.reasoned_calls("call_a"))
    asked = await kept(vendor, HELLO)
    poor = Message("assistant", tuple(block for block in asked.content if not isinstance(block, Reasoning)), "tool_use")
    result = Message("tool", (ToolResult("call_a", "12:00", is_error=False),))

    _, error = await outcome(vendor, vendor.request(HELLO, poor, result, params=vendor.thinking, max_tokens=4096))

    assert error is None


async def test_calls_and_words_that_no_vendor_would_write_are_taken(vendor: WiredStage) -> None:
    uses = (ToolUse("", "files/read it", "not JSON"), ToolUse("ü" * 200, "", {}), ToolUse("c", "7" * 300, {"a": [None]}))
    transcript = [
        Message("user", (Text(""),)),
        Message("assistant", (Reasoning("only this"),)),
        Message("assistant", (Reasoning("and this"), *uses), "tool_use"),
        Message("tool", tuple(ToolResult(use.id, "", is_error=True) for use in uses)),
        Message("assistant", (Text("Half"),), "interrupted"),
        HELLO,
        Message("user", (Text("Once more"),)),
    ]

    _, error = await outcome(vendor, vendor.request(*transcript))

    assert error is None
