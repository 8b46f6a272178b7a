"""The calls of one step: side by side, each told as it ends, answered together in request order."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from app.agent import calls
from app.agent.calls import MOST_AT_ONCE, MOST_RESULT_BYTES
from app.agent.emissions import Emission, Record, Tell
from app.agent.loop import Limits
from app.agent.transcript import UNKNOWN_OUTCOME, Call
from app.journal.types import (
    ToolExecutionCompleted,
    ToolExecutionStarted,
    ToolExecutionTimedOut,
    ToolResultReceived,
)
from app.messages import Message, Text, ToolResult, ToolUse
from app.tools.base import ToolError, call_id
from tests.agent.doubles import AT_ONCE, Acting, Book, Played, assert_valid, brief, call, carried_out, echo, for_ever, task_of

pytestmark = pytest.mark.anyio

SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Watched(Book):
    """A book that says when an execution is told to have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = {name: asyncio.Event() for name in ("first", "second", "third")}

    def keep(self, emission: Emission) -> None:
        """Write, and set the signal of each call that ended."""
        super().keep(emission)
        for event in getattr(emission, "events", ()):
            if isinstance(event, ToolExecutionCompleted):
                self.ended[event.id].set()


async def answered(tool: Acting, *, timeout_seconds: float = 30, args: str = '{"n": 1}') -> tuple[ToolResult, Book]:
    """Run one call in a turn, and return its result."""
    limits = Limits(10, timeout_seconds, AT_ONCE)
    book = await carried_out(task_of(Played([brief(call(tool.name, args)), brief("Done.")])), [tool], limits=limits)
    assert_valid(book.messages)
    [result] = book.messages[2].content
    assert isinstance(result, ToolResult)
    return result, book


async def test_calls_of_a_step_run_side_by_side_and_each_is_told_as_it_ends() -> None:
    book = Watched()

    async def after(args: Mapping[str, Any]) -> str:
        if args["n"] < 3:
            await book.ended[("second", "third")[args["n"] - 1]].wait()
        return f"{args['n']}"

    asked = [call(args=f'{{"n": {n}}}', id=name, index=n - 1) for n, name in enumerate(book.ended, 1)]
    await carried_out(task_of(Played([brief(*asked), brief("Done.")])), [Acting(after)], book=book)

    assert [event.id for event in book.of(ToolExecutionCompleted)] == ["third", "second", "first"]


async def test_tool_can_tell_which_call_it_carries_out() -> None:
    async def own_id(_: Mapping[str, Any]) -> str:
        return str(call_id())

    result, _ = await answered(Acting(own_id))

    assert result.content == result.tool_use_id
    assert call_id() is None


async def test_results_enter_the_transcript_in_request_order_in_one_message() -> None:
    book = Watched()

    async def after(args: Mapping[str, Any]) -> str:
        if args["n"] == 1:
            await book.ended["second"].wait()
        return f"{args['n']}"

    asked = [call(args='{"n": 1}', id="first"), call(args='{"n": 2}', id="second", index=1)]
    await carried_out(task_of(Played([brief(*asked), brief("Done.")])), [Acting(after)], book=book)

    assert [event.id for event in book.of(ToolResultReceived)] == ["first", "second"]
    assert book.messages[2] == Message(
        "tool", (ToolResult("first", "1", is_error=False), ToolResult("second", "2", is_error=False))
    )
    [record] = [
        emission for emission in book.emissions if isinstance(emission, Record) and book.messages[2] in emission.messages
    ]
    assert [type(event) for event in record.events] == [ToolResultReceived] * 2


async def test_no_more_calls_than_the_bound_run_at_once() -> None:
    running, most = 0, 0

    async def count(_: object) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return ""

    asked = [call(id=f"{index}", index=index) for index in range(3 * MOST_AT_ONCE)]
    book = await carried_out(task_of(Played([brief(*asked), brief("Done.")])), [Acting(count)])

    assert most == MOST_AT_ONCE
    assert_valid(book.messages)
    assert len(book.of(ToolExecutionCompleted)) == len(asked)


async def test_tool_that_takes_too_long_is_stopped_and_told_of_before_its_error_result() -> None:
    result, book = await answered(Acting(for_ever), timeout_seconds=0.01)

    assert result == ToolResult("call-0", "The tool took longer than 0.01 s.", is_error=True)
    assert book.of(ToolExecutionTimedOut) == [ToolExecutionTimedOut("call-0", "echo", 10)]
    place = book.types.index("tool_execution_timed_out")
    assert book.types[place - 1 : place + 3] == [
        "tool_execution_started", "tool_execution_timed_out", "tool_execution_completed", "tool_result_received",
    ]  # fmt: skip
    [told] = [emission for emission in book.emissions if isinstance(emission, Tell) and len(emission.events) == 2]
    assert [event.type for event in told.events] == ["tool_execution_timed_out", "tool_execution_completed"]


async def test_tool_that_ignores_being_stopped_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "DEAF_SECONDS", 0.05)
    is_free = asyncio.Event()

    async def deaf(_: object) -> str:
        while not is_free.is_set():
            with suppress(asyncio.CancelledError):
                await is_free.wait()
        return "late"

    async def free(_: object) -> str:
        is_free.set()
        return ""

    asked = [brief(call("deaf")), brief(call("free")), brief("Done.")]
    limits = Limits(10, 0.01, AT_ONCE)
    try:
        book = await carried_out(task_of(Played(asked)), [Acting(deaf, "deaf"), Acting(free, "free")], limits=limits)
    finally:
        is_free.set()

    assert book.messages[2].content == (ToolResult("call-0", "The tool took longer than 0.01 s.", is_error=True),)
    assert len(book.of(ToolExecutionTimedOut)) == 1
    assert book.types[-1] == "turn_completed"


async def test_timeout_of_the_tools_own_making_is_a_failure_and_not_the_limit() -> None:
    async def impatient(_: object) -> str:
        raise TimeoutError

    result, book = await answered(Acting(impatient))

    assert result == ToolResult("call-0", "The tool failed: TimeoutError.", is_error=True)
    assert book.of(ToolExecutionTimedOut) == []


async def test_tools_own_words_of_failure_are_for_the_model() -> None:
    async def refuse(_: object) -> str:
        raise ToolError("There is no such city.")

    result, _ = await answered(Acting(refuse))

    assert result == ToolResult("call-0", "There is no such city.", is_error=True)


@pytest.mark.parametrize("error", [RuntimeError("secret"), asyncio.CancelledError("secret")], ids=["error", "cancelled"])
async def test_tool_that_crashes_gets_an_error_result_without_its_words_and_the_turn_goes_on(error: BaseException) -> None:
    async def crash(_: object) -> str:
        raise error

    result, book = await answered(Acting(crash))

    assert result.is_error
    assert result.content == f"The tool failed: {type(error).__name__}."
    assert book.types[-1] == "turn_completed"


async def test_unknown_tool_is_answered_with_the_names_of_those_that_are_known() -> None:
    book = await carried_out(
        task_of(Played([brief(call("teleport")), brief("Done.")])), [Acting(echo, "echo"), Acting(echo, "other")]
    )

    assert book.messages[2].content == (
        ToolResult("call-0", "There is no tool 'teleport'. The tools are: echo, other.", is_error=True),
    )
    assert book.of(ToolExecutionStarted) == []
    assert book.types[-1] == "turn_completed"


@pytest.mark.parametrize("args", ['{"n": ', "[1]", '"text"', "17", "nonsense"])
async def test_arguments_that_are_no_json_object_are_answered_and_not_run(args: str) -> None:
    tool = Acting(echo)

    result, book = await answered(tool, args=args)

    assert result.is_error
    assert "not a JSON object" in result.content
    assert tool.runs == []
    [use] = book.messages[1].tool_uses
    assert use.args == args


async def test_arguments_that_break_the_schema_are_answered_with_the_place() -> None:
    tool = Acting(echo, schema=SCHEMA)

    result, _ = await answered(tool, args='{"n": "one"}')

    assert result.is_error
    assert "at n: 'one' is not of type 'integer'" in result.content
    assert tool.runs == []


async def test_no_arguments_are_an_empty_object() -> None:
    tool = Acting(echo)

    await answered(tool, args="")

    assert tool.runs == [{}]


async def test_refused_call_does_not_keep_the_others_of_its_step() -> None:
    tool = Acting(echo, schema=SCHEMA)
    asked = [call(args="{}", id="a"), call(args='{"n": 1}', id="b", index=1), call("none", id="c", index=2)]

    book = await carried_out(task_of(Played([brief(*asked), brief("Done.")])), [tool])

    assert [(block.tool_use_id, block.is_error) for block in book.messages[2].content if isinstance(block, ToolResult)] == [
        ("a", True), ("b", False), ("c", True),
    ]  # fmt: skip


async def test_huge_result_is_cut_and_says_so() -> None:
    async def shout(_: object) -> str:
        return "ä" * MOST_RESULT_BYTES

    result, _ = await answered(Acting(shout))

    assert len(result.content.encode()) < MOST_RESULT_BYTES + 100
    assert result.content.endswith(f"\n[cut: {2 * MOST_RESULT_BYTES} bytes in all]")


async def test_result_that_is_no_unicode_is_made_so() -> None:
    async def garble(_: object) -> str:
        return "a\ud800\0b"

    result, _ = await answered(Acting(garble))

    assert result.content == "a?\0b"


def left_open(**known: Any) -> tuple[list[Message], list[Call]]:
    """Make the transcript and the open call that an attempt has left behind."""
    history = [Message("user", (Text("Hello"),)), Message("assistant", (ToolUse("a", "echo", {"n": 1}),), "tool_use")]
    return history, [Call("a", "echo", {"n": 1}, **known)]


async def test_started_call_of_an_earlier_attempt_is_not_run_again() -> None:
    tool = Acting(echo)
    history, open_calls = left_open(is_started=True)

    book = await carried_out(task_of(Played([brief("Done.")]), history, open_calls=open_calls, steps=1), [tool])

    assert tool.runs == []
    assert [(event.id, event.result) for event in book.of(ToolExecutionCompleted)] == [("a", UNKNOWN_OUTCOME)]
    assert book.types[-1] == "turn_completed"


async def test_started_call_of_an_idempotent_tool_is_run_again() -> None:
    tool = Acting(echo, is_idempotent=True)
    history, open_calls = left_open(is_started=True)

    book = await carried_out(task_of(Played([brief("Done.")]), history, open_calls=open_calls, steps=1), [tool])

    assert tool.runs == [{"n": 1}]
    assert book.of(ToolResultReceived) == [ToolResultReceived("a", "echo", is_error=False)]


async def test_call_that_an_earlier_attempt_finished_keeps_its_result() -> None:
    tool = Acting(echo)
    result = ToolResult("a", "kept", is_error=False)
    history, open_calls = left_open(is_started=True, result=result)
    provider = Played([brief("Done.")])

    book = await carried_out(task_of(provider, history, open_calls=open_calls, steps=1), [tool])

    assert tool.runs == []
    assert book.types[:2] == ["tool_result_received", "step_started"]
    assert provider.requests[0].messages[-1] == Message("tool", (result,))


async def test_call_that_was_asked_for_and_not_begun_is_run() -> None:
    tool = Acting(echo)
    history, open_calls = left_open()

    await carried_out(task_of(Played([brief("Done.")]), history, open_calls=open_calls, steps=1), [tool])

    assert tool.runs == [{"n": 1}]


async def test_stopping_the_turn_cancels_the_calls_that_run() -> None:
    is_running, was_stopped = asyncio.Event(), asyncio.Event()

    async def run(_: object) -> str:
        is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_stopped.set()
        return ""

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(carried_out(task_of(Played([brief(call())])), [Acting(run)]))
        await is_running.wait()
        turn.cancel()

    assert was_stopped.is_set()
