"""Summing up: where a transcript is cut, what is asked, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent import compaction
from app.agent.compaction import LEAST_NEW_MESSAGES, Memory
from app.errors import AgentError
from app.messages import Message, Text, ToolResult, ToolUse
from app.providers.base import TextChunk
from tests.agent.doubles import Played, brief, fault

pytestmark = pytest.mark.anyio


def user(words: str) -> Message:
    """Make a prompt."""
    return Message("user", (Text(words),))


def answer(words: str) -> Message:
    """Make an answer."""
    return Message("assistant", (Text(words),), "end_turn")


def exchange(number: int) -> list[Message]:
    """Make a step with a call, and its result."""
    use = ToolUse(f"call_{number}", "echo", {"text": "x" * 50})
    return [Message("assistant", (use,), "tool_use"), Message("tool", (ToolResult(use.id, "y" * 50, is_error=False),))]


@given(st.lists(st.sampled_from(["chat", "step"]), min_size=1, max_size=20), st.integers(0, 2000))
def test_what_is_kept_begins_where_a_transcript_may(parts: list[str], size: int) -> None:
    messages = [user("a" * size)]
    for number, part in enumerate(parts):
        messages += exchange(number) if part == "step" else [answer("b" * 30), user("c" * 30)]

    found = compaction.cut(messages)

    if found is not None:
        assert [*found.older, *found.kept] == messages
        assert found.older
        assert found.kept[0].role != "tool"


def test_one_message_leaves_nothing_to_sum_up() -> None:
    assert compaction.cut([user("Hello" * 1000)]) is None
    assert compaction.cut([]) is None


async def test_summary_alone_is_not_summed_up_again() -> None:
    parts = compaction.cut([user("a" * 900), answer("b"), user("c" * 900)])
    assert parts is not None
    summary = (await compaction.sum_up(Played([brief("They spoke.")]), "m", parts, context_tokens=1000)).message

    assert compaction.cut([summary, user("c" * 900)]) is None
    assert compaction.cut([summary, user("c" * 900), answer("b"), user("d")]) is not None


def test_calls_stay_with_the_results_that_answer_them() -> None:
    found = compaction.cut([user("a" * 5000), *exchange(1)])

    assert found is not None
    assert [message.role for message in found.kept] == ["assistant", "tool"]


async def test_summary_is_asked_for_in_words_and_without_tools() -> None:
    provider = Played([brief("They spoke.")])
    parts = compaction.cut([user("a" * 900), *exchange(1), user("And now?")])
    assert parts is not None

    summary = await compaction.sum_up(provider, "m", parts, context_tokens=1000)

    [request] = provider.requests
    assert (request.tools, [message.role for message in request.messages]) == ((), ["user"])
    assert "They spoke." in summary.message.text


@pytest.mark.parametrize("said", [[fault()], brief("z" * 9000), brief()])
async def test_summary_that_fails_or_is_no_shorter_is_refused(said: list[TextChunk]) -> None:
    parts = compaction.cut([user("a" * 900), answer("b"), user("c")])
    assert parts is not None

    with pytest.raises(AgentError, match=r"summary|Summary"):
        await compaction.sum_up(Played([said]), "m", parts, context_tokens=1000)  # type: ignore[list-item]


def test_summary_is_due_near_the_models_context_and_not_at_once_again() -> None:
    memory = Memory(Played([]), "m", context_tokens=100)
    messages = [user("a" * 200), answer("b" * 200)]

    assert memory.is_due(messages)
    memory.take(messages)
    assert not memory.is_due([*messages, user("c" * 400)])
    assert memory.is_due([*messages, *[user("c")] * LEAST_NEW_MESSAGES])
    assert not Memory(Played([]), "m", context_tokens=1000).is_due(messages)
