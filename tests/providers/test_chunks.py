"""How the chunks of an answer gather."""

from collections.abc import Iterable

import pytest

from app.errors import ProviderError
from app.messages import StopReason, Usage
from app.providers import chunks, refusals
from app.providers.base import ModelChunk, ReasoningChunk, TextChunk, ToolCallChunk

CALL = ToolCallChunk(0, "a", "f", "{}")


def test_neighbours_of_one_channel_are_joined_and_nothing_is_reordered() -> None:
    gathering = chunks.Chunks()

    def take(_events: Iterable[bytes]) -> None:
        for channel, text in (("reasoning", "h"), ("reasoning", "m"), ("text", "a"), ("text", ""), ("text", "b")):
            gathering.say("text" if channel == "text" else "reasoning", text)
        gathering.add(CALL)
        gathering.say("text", "c")

    given = list(gathering.given(take, []))

    assert given == [ReasoningChunk("hm"), TextChunk("ab"), CALL, TextChunk("c")]
    assert [chunk.tokens for chunk in given if isinstance(chunk, TextChunk | ReasoningChunk)] == [2, 2, 1]
    assert gathering.characters == {"text": 3, "reasoning": 2}
    assert list(gathering.given(lambda _: None, [])) == []


def test_failure_comes_after_what_came_before_it() -> None:
    gathering = chunks.Chunks()
    before: list[ModelChunk] = []

    def take(_events: Iterable[bytes]) -> None:
        gathering.say("text", "a")
        raise refusals.malformed("It is not of the wire.")

    with pytest.raises(ProviderError):
        before.extend(gathering.given(take, []))

    assert before == [TextChunk("a")]


@pytest.mark.parametrize(
    ("said", "has_calls", "expected"),
    [
        ("end_turn", False, "end_turn"),
        ("end_turn", True, "tool_use"),
        ("max_tokens", True, "max_tokens"),
        ("content_filter", True, "content_filter"),
    ],
)
def test_answer_asks_for_tools_where_it_has_calls_and_was_not_cut(
    said: StopReason, has_calls: bool, expected: StopReason
) -> None:
    assert chunks.finish(said, Usage(), has_calls=has_calls).stop_reason == expected


def test_answer_without_a_finish_marker_is_none() -> None:
    with pytest.raises(ProviderError) as caught:
        chunks.finish(None, Usage(), has_calls=True)

    assert (caught.value.reason, caught.value.is_retryable) == ("PROVIDER_PROTOCOL", True)
