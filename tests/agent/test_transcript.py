"""After any cut of any turn the transcript is valid, and what a tool has done is not done again."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent import transcript
from app.agent.emissions import Emission
from app.agent.loop import Limits
from app.agent.transcript import NOT_RUN, UNKNOWN_OUTCOME, Call
from app.errors import AgentError
from app.journal.types import (
    ReasoningDelta,
    StepDiscarded,
    StepStarted,
    TextDelta,
    ToolExecutionCompleted,
    ToolExecutionStarted,
    TurnResumed,
)
from app.messages import Message, Reasoning, Text, ToolResult, Usage
from app.providers.base import Finish, ReasoningChunk, TextChunk, ToolCallChunk
from app.tools.base import ToolError
from tests.agent.doubles import (
    AT_ONCE,
    Acting,
    Book,
    Part,
    Played,
    assert_valid,
    brief,
    call,
    carried_out,
    echo,
    fault,
    task_of,
)

LIMITS = Limits(step_limit=20, tool_timeout_seconds=30, retries=AT_ONCE)

words = st.text(min_size=1, max_size=5)
pieces = st.lists(words, max_size=3)
arguments = st.sampled_from(['{"x":1}', "{}", '{"x":"wrong"}', '{"x":', "[]", ""])
calls = st.lists(
    st.tuples(st.sampled_from(["echo", "fails", "again", "unknown"]), arguments, st.sampled_from("ab") | st.just("")),
    max_size=4,
)


@st.composite
def tries(draw: st.DrawFn) -> list[list[Part]]:
    """One step: tries that break, at any place, and one that is whole."""
    said: list[Part] = [ReasoningChunk(text) for text in draw(pieces)]
    said += [TextChunk(text) for text in draw(pieces)]
    opened: list[Part] = []
    rest: list[Part] = []
    for index, (name, args, id_) in enumerate(draw(calls)):
        cut = draw(st.integers(0, len(args)))
        opened.append(ToolCallChunk(index, id_, name, args[:cut]))
        rest.append(ToolCallChunk(index, None, None, args[cut:]))
    said += opened + draw(st.permutations(rest))
    whole: list[Part] = [*said, Finish("tool_use" if opened else "end_turn", Usage(1, 1))]
    broken = [[*said[: draw(st.integers(0, len(said)))], fault()] for _ in range(draw(st.integers(0, 2)))]
    return [*broken, whole]


turns = st.lists(tries(), max_size=3).map(lambda steps: [answer for step in steps for answer in step])


def tools() -> list[Acting]:
    """Make tools: one that answers, one that fails, one that may run twice."""

    async def fails(_: object) -> str:
        raise ToolError("no")

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return [Acting(echo, "echo", schema=schema), Acting(fails, "fails"), Acting(echo, "again", is_idempotent=True)]


def copied(answers: Sequence[list[Part]]) -> Played:
    """Make a provider that plays these, and then an end."""
    return Played([*map(list, answers), brief("The end.")])


async def played(answers: Sequence[list[Part]]) -> tuple[list[tuple[int, int]], Book]:
    """Play a turn; return the places where it may be cut (events, messages) and the whole book."""
    book = _Cuts()
    await carried_out(task_of(copied(answers)), tools(), limits=LIMITS, book=book)
    return book.cuts, book


class _Cuts(Book):
    """A book that keeps how long it was after each emission."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts: list[tuple[int, int]] = [(0, 1)]

    def keep(self, emission: Emission) -> None:
        """Write, and mark the place."""
        super().keep(emission)
        self.cuts.append((len(self.stored), len(self.messages)))


def cut_at(book: Book, cut: tuple[int, int]) -> Book:
    """Return the book as it was at a place."""
    events, messages = cut
    return Book(book.messages[:messages], book.events[:events], [], book.stored[:events])


@given(turns)
@settings(max_examples=60, deadline=None)
def test_closing_a_turn_cut_at_any_place_leaves_a_valid_transcript(answers: list[list[Part]]) -> None:
    cuts, book = asyncio.run(played(answers))

    assert_valid(book.messages)
    for cut in cuts[:-1]:
        left = cut_at(book, cut)
        closing = transcript.close(left.state)
        assert_valid([*left.messages, *closing.messages, Message("user", (Text("next"),))])


@given(turns)
@settings(max_examples=60, deadline=None)
def test_interrupted_text_is_what_was_shown(answers: list[list[Part]]) -> None:
    cuts, book = asyncio.run(played(answers))

    for cut in cuts[:-1]:
        left = cut_at(book, cut)
        state = left.state
        if state is not None and state.is_cut:
            begun = [place for place, event in enumerate(left.events) if isinstance(event, StepStarted)][-1]
            shown = "".join(getattr(event, "delta", "") for event in left.events[begun:] if event.type == "text_delta")
            closing = transcript.close(state)
            assert closing.text == shown
            assert [message.text for message in closing.messages] == ([shown] if shown else [])


async def resumed(left: Book, answers: Sequence[list[Part]], acting: Sequence[Acting]) -> Book:
    """Go on with a turn as the next attempt does."""
    state = left.state
    left.write(TurnResumed(2, "n"))
    if state is not None and state.is_cut:
        left.write(StepDiscarded(state.step, "resumed", state.from_seq))
    steps = sum(event.type == "step_completed" for event in left.events)
    task = task_of(copied(answers), left.messages.copy(), open_calls=state.open_calls if state else (), steps=steps)
    return await carried_out(task, acting, limits=LIMITS, book=left)


@given(turns, st.data())
@settings(max_examples=60, deadline=None)
def test_turn_taken_over_at_any_place_ends_with_a_valid_transcript_and_runs_no_tool_twice(
    answers: list[list[Part]], data: st.DataObject
) -> None:
    cuts, book = asyncio.run(played(answers))
    cut = data.draw(st.sampled_from(cuts[:-1]))
    left, acting = cut_at(book, cut), tools()
    finished = left.messages.copy()
    started = {event.id for event in left.of(ToolExecutionStarted)}

    after = asyncio.run(resumed(left, data.draw(turns), acting))

    assert_valid(after.messages)
    assert after.messages[: len(finished)] == finished
    runs = [event.id for event in after.of(ToolExecutionStarted) if event.name != "again"]
    assert len(runs) == len(set(runs))
    assert {event.id for event in after.of(ToolExecutionStarted)} >= started
    completed = [event.id for event in after.of(ToolExecutionCompleted)]
    assert len(completed) == len(set(completed))


def complete_step() -> Book:
    """Write a whole answer with three calls: one done, one started, one not begun."""
    answer = brief("I look.", call(id="a"), call(id="b", index=1), call(id="c", index=2))
    book = Book()
    with pytest.raises(AgentError, match="steps"):
        asyncio.run(carried_out(task_of(Played([answer])), limits=Limits(1, 30, AT_ONCE), book=book))
    whole = book.types.index("step_completed") + 1
    left = cut_at(book, (whole, 2))
    left.write(ToolExecutionStarted("a", "echo"), ToolExecutionStarted("b", "echo"))
    left.write(ToolExecutionCompleted("a", "echo", "done", is_error=False, duration_ms=1))
    return left


def test_close_answers_every_call_in_request_order_by_what_is_known_of_it() -> None:
    book = complete_step()

    closing = transcript.close(book.state)

    assert closing.text == ""
    assert [event.type for event in closing.events] == ["tool_result_received"] * 3
    assert closing.messages == [
        Message(
            "tool",
            (
                ToolResult("a", "done", is_error=False),
                ToolResult("b", UNKNOWN_OUTCOME, is_error=True),
                ToolResult("c", NOT_RUN, is_error=True),
            ),
        )
    ]


def test_open_calls_know_what_was_started_and_what_was_done() -> None:
    state = complete_step().state

    assert state is not None
    assert [(call.id, call.is_started, call.result is not None) for call in state.open_calls] == [
        ("a", True, True),
        ("b", True, False),
        ("c", False, False),
    ]


def test_close_keeps_reasoning_before_the_text_that_was_cut() -> None:
    book = Book()
    book.write(StepStarted(1))
    for chunk in (ReasoningChunk("hm"), TextChunk("Par")):
        book.write(_delta(chunk))

    closing = transcript.close(book.state)

    assert closing.messages == [Message("assistant", (Reasoning("hm"), Text("Par")), "interrupted")]


@pytest.mark.parametrize("chunks", [[], [ReasoningChunk("hm")]], ids=["nothing", "reasoning alone"])
def test_close_adds_no_message_where_no_text_was_shown(chunks: list[ReasoningChunk]) -> None:
    book = Book()
    book.write(StepStarted(1), *map(_delta, chunks))

    assert transcript.close(book.state) == transcript.Closing([], [], "")


def test_discarded_step_has_nothing_to_close() -> None:
    book = Book()
    book.write(StepStarted(1), _delta(TextChunk("void")), StepDiscarded(1, "resumed", 1))

    state = book.state

    assert state is not None
    assert not state.is_cut
    assert transcript.close(state) == transcript.Closing([], [], "")


def test_fold_begins_anew_at_each_start_of_a_step() -> None:
    book = Book()
    book.write(StepStarted(1), _delta(TextChunk("void")), StepDiscarded(1, "x", 1), StepStarted(1), _delta(TextChunk("ok")))

    state = transcript.fold(book.stored)

    assert state is not None
    assert (state.from_seq, state.text, state.is_cut) == (4, ["ok"], True)


def test_fold_of_nothing_is_nothing() -> None:
    assert transcript.fold([]) is None
    assert transcript.close(None) == transcript.Closing([], [], "")


def test_results_are_made_in_request_order_whatever_order_they_came_in() -> None:
    found = [Call("b", "echo", {}, result=ToolResult("b", "2", is_error=True)), Call("a", "echo", {}, is_started=True)]

    told, message = transcript.results(found)

    assert [(event.id, event.is_error) for event in told] == [("b", True), ("a", True)]  # type: ignore[attr-defined]
    assert [block.tool_use_id for block in message.content] == ["b", "a"]  # type: ignore[union-attr]


def _delta(chunk: TextChunk | ReasoningChunk) -> ReasoningDelta | TextDelta:
    return TextDelta(1, chunk.text) if isinstance(chunk, TextChunk) else ReasoningDelta(1, chunk.text)
