"""What vendors report of an answer that is not whole: given as it comes, and kept where the answer fails."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from app.errors import ProviderError
from app.messages import Usage
from app.providers import anthropic_answer, chat_completions, gemini_contents, openai_responses
from app.providers.base import ModelChunk, TextChunk, UsageChunk
from app.providers.calls import Reader

READERS: dict[str, Callable[[], Reader]] = {
    "anthropic": anthropic_answer.AnswerReader,
    "chat_completions": chat_completions.AnswerReader,
    "gemini": lambda: gemini_contents.AnswerReader({}),
    "openai": openai_responses.AnswerReader,
}
TEXT = {"content": {"parts": [{"text": "a"}]}}
BEGUN = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}}
WHOLE = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
COUNTED = {"prompt_tokens": 9, "completion_tokens": 1}
CHOICE = {"delta": {"content": "a"}}
METADATA = {"promptTokenCount": 9, "candidatesTokenCount": 1}
FAILED = {"usage": {"input_tokens": 9, "output_tokens": 1}}
REPORT = UsageChunk(Usage(9, 1))


def read(vendor: str, *events: dict[str, Any]) -> tuple[list[ModelChunk], ProviderError | None]:
    """Read events, and return what was given and what it ended with."""
    given: list[ModelChunk] = []
    try:
        for chunk in READERS[vendor]().read([orjson.dumps(event) for event in events]):
            given.append(chunk)  # noqa: PERF402 - what came before a failure is looked at
    except ProviderError as error:
        return given, error
    return given, None


@pytest.mark.parametrize(
    ("vendor", "events"),
    [
        ("anthropic", [BEGUN, BLOCK]),
        ("chat_completions", [{"choices": [CHOICE], "usage": COUNTED}]),
        ("gemini", [{"candidates": [TEXT], "usageMetadata": METADATA}]),
    ],
)
def test_report_in_the_middle_is_given_before_what_came_with_it(vendor: str, events: list[dict[str, Any]]) -> None:
    assert read(vendor, *events) == ([REPORT, TextChunk("a")], None)


@pytest.mark.parametrize(
    ("vendor", "events"),
    [
        ("anthropic", [BEGUN, BLOCK, WHOLE]),
        ("chat_completions", [{"choices": [CHOICE | {"finish_reason": "stop"}], "usage": COUNTED}]),
        ("gemini", [{"candidates": [TEXT | {"finishReason": "STOP"}], "usageMetadata": METADATA}]),
        ("openai", [{"type": "response.output_text.delta", "delta": "a"}, {"type": "response.completed", "response": FAILED}]),
    ],
)
def test_report_of_a_whole_answer_is_left_to_its_finish(vendor: str, events: list[dict[str, Any]]) -> None:
    given, error = read(vendor, *events)

    assert error is None
    assert given == [*([REPORT] if vendor == "anthropic" else []), TextChunk("a")]  # whose beginning has one of its own


@pytest.mark.parametrize(
    ("vendor", "events"),
    [
        ("anthropic", [BEGUN, {"type": "error", "error": {"type": "overloaded_error"}}]),
        ("chat_completions", [{"choices": [{"finish_reason": "error"}], "usage": COUNTED}]),
        ("gemini", [{"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}], "usageMetadata": METADATA}]),
        ("openai", [{"type": "response.failed", "response": FAILED | {"error": {"code": "server_error"}}}]),
        ("openai", [{"type": "response.incomplete", "response": FAILED | {"incomplete_details": {"reason": "x"}}}]),
    ],
)
def test_report_of_an_answer_that_fails_comes_before_the_failure(vendor: str, events: list[dict[str, Any]]) -> None:
    given, error = read(vendor, *events)

    assert given == [REPORT]
    assert error is not None
