"""Fallback models: when another is asked, what it is asked, and what the log says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from app.agent.loop import Fallback, Task
from app.errors import ProviderError
from app.journal.types import Retrying, StepCompleted, TextComplete
from app.messages import ToolUse
from app.providers.base import Finish, NativeSchema, ReasoningChunk, TextChunk, ToolCallChunk, VendorChunk
from tests.agent.doubles import USAGE, Acting, Book, Part, Played, assert_valid, brief, call, carried_out, echo, fault, task_of

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RATE_LIMITED = "PROVIDER_RATE_LIMITED"


def down(tries: int = 4) -> list[list[Part]]:
    """Fail in all tries."""
    return [[fault()] for _ in range(tries)]


def backed(provider: Played, *others: Played, **more: Any) -> Task:
    """Make a task whose model has fallbacks."""
    fallbacks = [Fallback(other, f"other-{number}", f"model-{number}") for number, other in enumerate(others, 1)]
    return task_of(provider, fallbacks=fallbacks, **more)


@dataclass
class Schooled(Played):
    """A provider with a schema mode of its own."""

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Take it in its own way."""
        return NativeSchema({"own": schema}, ("It is not all there.",))


async def test_fallback_is_asked_at_once_after_all_tries_of_the_first_model() -> None:
    first, second = Played(down()), Played([brief("Paris.")])

    book = await carried_out(backed(first, second))

    assert (len(first.requests), [request.model for request in second.requests]) == (4, ["model-1"])
    assert book.of(Retrying)[:3] == [Retrying(number, 4, "PROVIDER_UNAVAILABLE", 0) for number in (1, 2, 3)]
    assert book.of(Retrying)[3:] == [Retrying(4, 4, "PROVIDER_UNAVAILABLE", 0, "model-1", "other-1")]
    assert book.types[4:] == ["retrying", "text_delta", "text_complete", "step_completed", "turn_completed"]


async def test_model_that_recovers_within_its_tries_keeps_the_step() -> None:
    second = Played([])

    book = await carried_out(backed(Played([*down(3), brief("Paris.")]), second))

    assert second.requests == []
    assert book.of(TextComplete) == [TextComplete(1, "Paris.")]


async def test_what_the_last_try_had_shown_is_discarded_before_the_fallback_is_asked() -> None:
    broken: list[Part] = [TextChunk("Lon"), fault()]

    book = await carried_out(backed(Played([*down(3), broken]), Played([brief("Paris.")])))

    assert book.types[4:9] == ["text_delta", "retrying", "step_discarded", "step_started", "text_delta"]
    assert book.of(TextComplete) == [TextComplete(1, "Paris.")]


async def test_fallback_has_tries_of_its_own_and_they_count_from_one() -> None:
    book = await carried_out(backed(Played(down()), Played([*down(2), brief("Paris.")])))

    assert [event.attempt for event in book.of(Retrying)] == [1, 2, 3, 4, 1, 2]
    assert [event.model for event in book.of(Retrying)] == [None, None, None, "model-1", None, None]


async def test_fallbacks_are_asked_in_order_and_the_fault_of_the_last_ends_the_turn() -> None:
    last: list[list[Part]] = [*down(3), [fault(RATE_LIMITED)]]
    models, book = [Played(down()), Played(down()), Played(last)], Book()

    with pytest.raises(ProviderError) as raised:
        await carried_out(backed(*models), book=book)

    assert raised.value.reason == RATE_LIMITED
    assert [len(model.requests) for model in models] == [4, 4, 4]
    assert [event.provider for event in book.of(Retrying) if event.provider] == ["other-1", "other-2"]


@pytest.mark.parametrize("reason", ["PROVIDER_AUTH", "PROVIDER_REFUSED_REQUEST", "CONTEXT_OVERFLOW", "MODEL_UNKNOWN"])
async def test_refusal_that_no_try_can_mend_asks_no_fallback(reason: str) -> None:
    second, book = Played([brief("never")]), Book()

    with pytest.raises(ProviderError) as raised:
        await carried_out(backed(Played([[fault(reason, is_retryable=False)]]), second), book=book)

    assert raised.value.reason == reason
    assert (second.requests, book.types) == ([], ["step_started"])


async def test_refusal_of_a_fallback_ends_the_turn_without_asking_the_next() -> None:
    third = Played([brief("never")])

    with pytest.raises(ProviderError, match="It broke") as raised:
        await carried_out(backed(Played(down()), Played([[fault("PROVIDER_AUTH", is_retryable=False)]]), third))

    assert (raised.value.reason, third.requests) == ("PROVIDER_AUTH", [])


async def test_next_step_begins_with_the_own_model_again() -> None:
    first, second = Played([*down(), brief("Done.")]), Played([brief(call())])

    book = await carried_out(backed(first, second), [Acting(echo)])

    assert (len(first.requests), len(second.requests)) == (5, 1)
    assert [event.step for event in book.of(StepCompleted)] == [1, 2]
    assert_valid(first.requests[-1].messages)


async def test_each_step_can_fall_back_from_the_first_of_the_list() -> None:
    first, second = Played([*down(), *down()]), Played([brief(call()), brief("Done.")])

    book = await carried_out(backed(first, second), [Acting(echo)])

    assert [event.model for event in book.of(Retrying) if event.model] == ["model-1", "model-1"]


async def test_fallback_is_asked_with_its_own_params_and_the_same_talk() -> None:
    first, second = Played(down()), Played([brief("Paris.")])
    fallback = Fallback(second, "other", "model", {"seed": 7})
    task = task_of(first, fallbacks=[fallback])

    await carried_out(task, [Acting(echo)])

    [asked] = second.requests
    assert (asked.params, first.requests[0].params) == ({"seed": 7}, {})
    assert (asked.messages, asked.tools) == (first.requests[0].messages, first.requests[0].tools)


async def test_what_a_vendor_wants_back_is_kept_under_the_name_of_the_one_that_answered() -> None:
    answer: list[Part] = [ReasoningChunk("hm"), VendorChunk("signature"), ToolCallChunk(0, "x", "echo", "{}", vendor="mark")]
    second = Played([[*answer, Finish("tool_use", USAGE)]])

    book = await carried_out(backed(Played([*down(), brief("Done.")]), second), [Acting(echo)])

    reasoning, use = book.messages[1].content
    assert getattr(reasoning, "vendor", None) == {"other-1": ["signature"]}
    assert use == ToolUse("x", "echo", {}, {"other-1": "mark"})


async def test_answer_in_a_schema_is_asked_for_in_the_way_of_whoever_is_asked() -> None:
    first = Played([*down(), brief('{"city": "Paris"}')])
    second = Schooled([brief("no JSON")])

    book = await carried_out(backed(first, second, output_schema=SCHEMA, schema_retries=1))

    assert "city" in (first.requests[0].system or "")
    assert (second.requests[0].system, second.requests[0].output_schema) == (None, {"own": SCHEMA})
    assert "city" in (first.requests[-1].system or "")
    assert first.requests[-1].output_schema is None
    assert book.events[-1].structured_output == {"city": "Paris"}  # type: ignore[attr-defined] # turn_completed
