"""One model call: what is tried again, what is not, and what the log says of it."""

import asyncio

import pytest

from app.agent.emissions import Discard, Emission
from app.agent.loop import Limits
from app.agent.step import RetryPolicy
from app.errors import ProviderError
from app.journal.types import Retrying, StepDiscarded, StepStarted, TextComplete
from app.messages import Usage
from app.providers.base import Finish, ReasoningChunk, TextChunk
from tests.agent.doubles import AT_ONCE, Acting, Book, Part, Played, brief, call, carried_out, echo, fault, task_of

pytestmark = pytest.mark.anyio


async def test_try_that_failed_before_it_showed_anything_is_repeated_without_a_discard() -> None:
    provider = Played([[fault()], brief("Paris.")])

    book = await carried_out(task_of(provider))

    assert book.types == ["step_started", "retrying", "text_delta", "text_complete", "step_completed", "turn_completed"]
    assert book.of(Retrying) == [Retrying(1, 4, "PROVIDER_UNAVAILABLE", 0)]
    assert len(provider.requests) == 2


@pytest.mark.parametrize("shown", [TextChunk("Lon"), ReasoningChunk("hm"), call()], ids=["text", "reasoning", "call"])
async def test_try_that_had_shown_something_is_discarded_from_its_first_event_and_begun_again(shown: Part) -> None:
    book = await carried_out(task_of(Played([[shown, fault()], brief("Paris.")])))

    kind = book.types[1]
    assert book.types[:6] == ["step_started", kind, "retrying", "step_discarded", "step_started", "text_delta"]
    assert book.of(StepDiscarded) == [StepDiscarded(1, "PROVIDER_UNAVAILABLE", 1)]
    assert book.of(StepStarted) == [StepStarted(1), StepStarted(1)]
    assert book.of(TextComplete) == [TextComplete(1, "Paris.")]


async def test_nothing_of_a_discarded_try_is_in_the_answer_or_in_its_calls() -> None:
    provider = Played([[TextChunk("void"), call(id="x"), fault()], brief(call(id="x")), brief("Done.")])

    book = await carried_out(task_of(provider), [Acting(echo)])

    [_, answer, *_] = book.messages
    assert [(use.id, use.name) for use in answer.tool_uses] == [("x", "echo")]
    assert answer.text == ""


async def test_four_tries_are_made_in_all_and_the_last_fault_ends_the_turn() -> None:
    provider, book = Played([[fault()], [TextChunk("a"), fault()], [fault()], [fault("PROVIDER_RATE_LIMITED")]]), Book()

    with pytest.raises(ProviderError) as raised:
        await carried_out(task_of(provider), book=book)

    assert raised.value.reason == "PROVIDER_RATE_LIMITED"
    assert len(provider.requests) == 4
    assert [event.attempt for event in book.of(Retrying)] == [1, 2, 3]


@pytest.mark.parametrize("reason", ["PROVIDER_AUTH", "PROVIDER_REFUSED_REQUEST"])
async def test_fault_that_no_further_try_can_mend_is_not_tried_again(reason: str) -> None:
    provider, book = Played([[fault(reason, is_retryable=False)], brief("never")]), Book()

    with pytest.raises(ProviderError) as raised:
        await carried_out(task_of(provider), book=book)

    assert raised.value.reason == reason
    assert book.types == ["step_started"]
    assert len(provider.answers) == 1


async def test_each_try_closes_its_stream() -> None:
    provider = Played([[TextChunk("a"), fault()], brief("b")])

    await carried_out(task_of(provider))

    assert provider.closed == 2


async def test_each_step_has_its_own_tries() -> None:
    provider = Played([[fault()], [fault()], [fault()], brief(call()), [fault()], [fault()], [fault()], brief("Done.")])

    book = await carried_out(task_of(provider), [Acting(echo)])

    assert [event.attempt for event in book.of(Retrying)] == [1, 2, 3, 1, 2, 3]


async def test_usage_is_that_of_the_whole_answer_alone() -> None:
    provider = Played([[TextChunk("a"), fault()], [TextChunk("b"), Finish("end_turn", Usage(5, 7))]])

    book = await carried_out(task_of(provider))

    assert book.events[-1].usage.total_tokens == 12  # type: ignore[attr-defined] # turn_completed


async def test_discard_comes_before_the_pause_so_that_readers_know_at_once() -> None:
    patient = Limits(10, 30, RetryPolicy(first_delay_seconds=60))
    is_discarded = asyncio.Event()

    class Watched(Book):
        def keep(self, emission: Emission) -> None:
            super().keep(emission)
            if isinstance(emission, Discard):
                is_discarded.set()

    book = Watched()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(carried_out(task_of(Played([[TextChunk("a"), fault()]])), limits=patient, book=book))
        await is_discarded.wait()
        turn.cancel()

    assert book.types == ["step_started", "text_delta", "retrying", "step_discarded"]


def test_pauses_double_with_jitter_and_heed_what_the_vendor_asks() -> None:
    policy = RetryPolicy(first_delay_seconds=0.5, longest_delay_seconds=60)

    pauses = [[policy.delay(attempt, fault()) for _ in range(50)] for attempt in (1, 2, 3)]

    for pause, least in zip(pauses, (0.5, 1.0, 2.0), strict=True):
        assert least <= min(pause) < max(pause) <= least * 1.5
    assert policy.delay(1, fault(after=7)) == 7
    assert policy.delay(1, fault(after=3_600)) == 60
    assert AT_ONCE.delay(3, fault()) == 0
