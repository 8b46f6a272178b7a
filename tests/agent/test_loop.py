"""The loop: asks, runs tools, asks again, and puts each answer on record before it goes on."""

import pytest

from app.agent.budget import Budget, Meter
from app.agent.emissions import Record, Say, Tell
from app.agent.loop import Limits
from app.errors import AgentError, ProviderError
from app.journal.entry import Ending
from app.journal.types import StepCompleted, TextComplete, TextDelta, ToolCallRequested, TurnCompleted
from app.messages import Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.base import Finish, ReasoningChunk, TextChunk, ToolCallChunk
from tests.agent.doubles import AT_ONCE, Acting, Book, Played, assert_valid, brief, call, carried_out, echo, task_of

pytestmark = pytest.mark.anyio


async def test_plain_turn_tells_the_events_of_the_contract_in_order() -> None:
    book = await carried_out(task_of(Played([brief("Par", "is.")])))

    assert book.types == ["step_started", "text_delta", "text_delta", "text_complete", "step_completed", "turn_completed"]
    assert [event.delta for event in book.of(TextDelta)] == ["Par", "is."]
    assert book.of(TextComplete) == [TextComplete(1, "Paris.")]


async def test_last_record_completes_the_turn_with_its_sums() -> None:
    answers = [brief("a", call(), usage=Usage(1, 2, 3, 4)), brief("b", usage=Usage(10, 20, 30, 40))]

    book = await carried_out(task_of(Played(answers)), [Acting(echo)])

    last = book.emissions[-1]
    assert isinstance(last, Record)
    assert last.change is not None
    assert last.change.ending == Ending("completed", "end_turn")
    assert (last.change.usage, last.change.steps, last.change.tool_calls) == (Usage(10, 20, 30, 40), 1, 0)
    [completed] = book.of(TurnCompleted)
    assert (completed.text, completed.steps, completed.tool_calls, completed.usage.total_tokens) == ("b", 2, 1, 33)
    assert (completed.usage.cache_creation_tokens, completed.usage.cache_read_tokens) == (33, 44)


async def test_model_is_asked_again_with_its_answer_and_the_results() -> None:
    provider = Played([brief(ReasoningChunk("hm"), "I look.", call(args='{"x": 1}')), brief("Done.")])

    book = await carried_out(task_of(provider), [Acting(echo)])

    assert provider.requests[1].messages == [
        Message("user", (Text("Hello"),)),
        Message("assistant", (Reasoning("hm"), Text("I look."), ToolUse("call-0", "echo", {"x": 1})), "tool_use"),
        Message("tool", (ToolResult("call-0", '{"x":1}', is_error=False),)),
    ]
    assert [message.role for message in book.messages] == ["user", "assistant", "tool", "assistant"]
    assert_valid(book.messages)


async def test_summary_is_not_asked_for_once_a_limit_is_met() -> None:
    provider, budget = Played([brief("never")]), Budget([Meter("tokens", 10, 10)])
    history = [Message("user", (Text("a" * 400),)), Message("assistant", (Text("b"),)), Message("user", (Text("c"),))]

    with pytest.raises(AgentError) as raised:
        await carried_out(task_of(provider, history, context_tokens=10, budget=budget))

    assert (raised.value.reason, provider.requests) == ("BUDGET_EXHAUSTED", [])


async def test_tools_are_told_to_the_model() -> None:
    provider, tool = Played([brief("Hi.")]), Acting(echo)

    await carried_out(task_of(provider), [tool])

    assert provider.requests[0].tools == [tool.spec]


async def test_call_is_on_record_before_its_tool_runs() -> None:
    book_at_run: list[list[str]] = []

    async def look(_: object) -> str:
        book_at_run.append(list(book.types))
        return ""

    provider = Played([brief(call()), brief("Done.")])
    book = Book()
    await carried_out(task_of(provider), [Acting(look)], book=book)

    [seen] = book_at_run
    assert seen[-3:] == ["tool_call_requested", "step_completed", "tool_execution_started"]


async def test_answer_and_its_calls_are_one_record() -> None:
    book = await carried_out(task_of(Played([brief("a", call()), brief("b")])), [Acting(echo)])

    [first, *_] = [emission for emission in book.emissions if isinstance(emission, Record)]
    assert [type(event) for event in first.events] == [TextComplete, ToolCallRequested, StepCompleted]
    assert [message.role for message in first.messages] == ["assistant"]


async def test_deltas_are_said_and_not_waited_for() -> None:
    book = await carried_out(task_of(Played([brief("a", "b")])))

    assert [type(emission) for emission in book.emissions] == [Tell, Say, Say, Record]


@pytest.mark.parametrize("stop_reason", ["end_turn", "max_tokens", "stop_sequence", "content_filter"])
async def test_vendors_stop_reason_is_the_turns(stop_reason: str) -> None:
    book = await carried_out(task_of(Played([[TextChunk("a"), Finish(stop_reason, Usage())]])))  # type: ignore[arg-type]

    last = book.emissions[-1]
    assert isinstance(last, Record)
    assert last.change is not None
    assert last.change.ending == Ending("completed", stop_reason)  # type: ignore[arg-type]
    assert book.messages[-1].stop_reason == stop_reason


async def test_answer_that_speaks_of_tools_and_calls_none_ends_the_turn() -> None:
    book = await carried_out(task_of(Played([[TextChunk("a"), Finish("tool_use", Usage())]])))

    last = book.emissions[-1]
    assert isinstance(last, Record)
    assert last.change is not None
    assert last.change.ending == Ending("completed", "end_turn")


@pytest.mark.parametrize("chunks", [[], [ReasoningChunk("hm")]], ids=["nothing", "reasoning alone"])
async def test_answer_without_words_completes_the_turn_and_adds_no_message(chunks: list[ReasoningChunk]) -> None:
    book = await carried_out(task_of(Played([brief(*chunks)])))

    assert [message.role for message in book.messages] == ["user"]
    assert book.of(TurnCompleted)[0].text == ""


async def test_text_of_an_earlier_step_stays_the_turns_where_the_last_says_nothing() -> None:
    book = await carried_out(task_of(Played([brief("I look.", call()), brief()])), [Acting(echo)])

    assert book.of(TurnCompleted)[0].text == "I look."


async def test_sums_go_on_from_the_attempts_before() -> None:
    task = task_of(Played([brief("b", usage=Usage(1, 1))]), steps=4, tool_calls=3, usage=Usage(10, 10), text="a")

    book = await carried_out(task)

    [completed] = book.of(TurnCompleted)
    assert (completed.steps, completed.tool_calls, completed.usage.total_tokens, completed.text) == (5, 3, 22, "b")
    assert book.events[0].step == 5  # type: ignore[attr-defined] # step_started


async def test_turn_that_never_ends_fails_at_the_step_limit_with_every_call_answered() -> None:
    provider = Played([brief(call()) for _ in range(9)])
    limits = Limits(step_limit=3, tool_timeout_seconds=30, retries=AT_ONCE)
    book = Book()
    with pytest.raises(AgentError) as raised:
        await carried_out(task_of(provider), [Acting(echo)], limits=limits, book=book)

    assert raised.value.reason == "STEP_LIMIT"
    assert len(provider.requests) == 3
    assert book.types[-1] == "tool_result_received"
    assert_valid(book.messages)


async def test_tool_ids_that_a_provider_repeats_or_leaves_out_are_made_unique() -> None:
    provider = Played([
        brief(call(id="x"), call(id="x", index=1), call(id="", index=2)),
        brief(call(id="x"), call(id="y", index=1)),
        brief("Done."),
    ])  # fmt: skip

    book = await carried_out(task_of(provider), [Acting(echo)])

    ids = [event.id for event in book.of(ToolCallRequested)]
    assert len(set(ids)) == 5
    assert (ids[0], ids[4]) == ("x", "y")
    assert all(len(id_) <= 40 for id_ in ids)
    assert_valid(book.messages)


async def test_pieces_of_calls_that_interleave_are_put_together() -> None:
    pieces = [
        ToolCallChunk(0, "a", "echo", '{"x"'),
        ToolCallChunk(1, "b", "echo", '{"y"'),
        ToolCallChunk(0, None, None, ": 1}"),
        ToolCallChunk(1, None, None, ": 2}"),
    ]

    book = await carried_out(task_of(Played([brief(*pieces), brief("Done.")])), [Acting(echo)])

    assert [(event.id, event.args) for event in book.of(ToolCallRequested)] == [("a", {"x": 1}), ("b", {"y": 2})]


async def test_stream_without_its_finish_marker_is_never_a_complete_answer() -> None:
    with pytest.raises(ProviderError) as raised:
        await carried_out(task_of(Played([[TextChunk("half")]])))

    assert raised.value.reason == "PROVIDER_PROTOCOL"


async def test_stopping_the_loop_closes_the_providers_stream() -> None:
    provider = Played([[TextChunk("a"), TextChunk("b")]])

    with pytest.raises(ProviderError):
        await carried_out(task_of(provider))

    assert provider.closed == 1
