"""A vendor's faults over the whole path: what the log shows, and how the turn ends."""

from typing import Any

import pytest

from tests.api import shapes
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PARIS = (scripts.text("Paris."), scripts.finish())
MOST_TRIES = 4


async def told(service: Service) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run one turn and return its view and its events."""
    created = await service.create("Hello")
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])
    log = await service.log_of(created["session_id"])
    shapes.assert_log(log)
    shapes.assert_transcript((await service.client.get(f"/v1/sessions/{created['session_id']}/messages")).json()["messages"])
    return view, [event for event in log if event["turn_id"] == view["turn_id"]]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ([scripts.status(500)], "PROVIDER_UNAVAILABLE"),
        ([scripts.status(503)], "PROVIDER_UNAVAILABLE"),
        ([scripts.status(429)], "PROVIDER_RATE_LIMITED"),
        ([scripts.head(), scripts.cut()], "PROVIDER_UNAVAILABLE"),
        ([scripts.head(), scripts.cut(is_reset=True)], "PROVIDER_UNAVAILABLE"),
    ],
    ids=["500", "503", "429", "cut", "reset"],
)
async def test_fault_before_the_first_word_is_tried_again_and_repeats_nothing(
    service: Service, double: ProviderDouble, fault: scripts.Script, reason: str
) -> None:
    await double.play(fault, PARIS)

    view, events = await told(service)

    kinds = [event["type"] for event in events]
    assert kinds == [
        "turn_started",
        "step_started",
        "retrying",
        "text_delta",
        "text_complete",
        "step_completed",
        "turn_completed",
    ]
    retrying = events[2]
    assert (retrying["attempt"], retrying["max_attempts"], retrying["reason"]) == (1, MOST_TRIES, reason)
    assert (view["status"], view["text"], view["attempt"], view["steps"]) == ("completed", "Paris.", 1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        [scripts.text("Lon"), scripts.cut()],
        [scripts.text("Lon"), scripts.cut(is_reset=True)],
        [scripts.text("Lon")],
        [scripts.reasoning("hm"), scripts.text("Lon"), scripts.error_event()],
    ],
    ids=["cut", "reset", "no finish marker", "error event"],
)
async def test_fault_after_the_first_word_discards_what_was_shown_and_tries_again(
    service: Service, double: ProviderDouble, fault: scripts.Script
) -> None:
    await double.play(fault, PARIS)

    view, events = await told(service)

    kinds = [event["type"] for event in events if event["type"] != "reasoning_delta"]
    assert kinds == ["turn_started", "step_started", "text_delta", "retrying", "step_discarded", "step_started", "text_delta",
                     "text_complete", "step_completed", "turn_completed"]  # fmt: skip
    discarded = next(event for event in events if event["type"] == "step_discarded")
    started = next(event for event in events if event["type"] == "step_started")
    assert (discarded["step"], discarded["from_seq"]) == (1, started["seq"])
    assert (view["status"], view["text"]) == ("completed", "Paris.")


async def test_four_tries_are_made_and_then_the_turn_fails_with_what_it_had(service: Service, double: ProviderDouble) -> None:
    call = scripts.tool_call("datetime", {})
    await double.play([scripts.text("One moment."), call, scripts.finish("tool_calls")])
    await double.play(*[[scripts.status(500)]] * MOST_TRIES)

    view, events = await told(service)

    assert [event["attempt"] for event in events if event["type"] == "retrying"] == [1, 2, 3]
    assert (await double.counts()).received == 1 + MOST_TRIES
    assert (view["status"], view["error"]["reason"], view["stop_reason"]) == ("failed", "PROVIDER_UNAVAILABLE", None)
    assert events[-1]["type"] == "turn_failed"
    assert events[-1]["text"] == view["text"] == "One moment."
    assert events[-1]["error"] == view["error"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ([scripts.status(401)], "PROVIDER_AUTH"),
        ([scripts.status(403)], "PROVIDER_AUTH"),
        ([scripts.status(400)], "PROVIDER_REFUSED_REQUEST"),
        ([scripts.status(404, code="model_not_found")], "MODEL_UNKNOWN"),
        ([scripts.context_overflow()], "CONTEXT_OVERFLOW"),
    ],
    ids=["401", "403", "400", "404", "overflow"],
)
async def test_fault_that_no_try_can_mend_fails_at_once(
    service: Service, double: ProviderDouble, fault: scripts.Script, reason: str
) -> None:
    await double.play(fault)

    view, events = await told(service)

    assert [event["type"] for event in events] == ["turn_started", "step_started", "turn_failed"]
    assert (view["status"], view["error"]["code"], view["error"]["reason"]) == ("failed", "AGENT_ERROR", reason)
    assert (await double.counts()).received == 1


async def test_retry_after_is_waited_for(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.status(429, retry_after=2)], PARIS)

    view, events = await told(service)

    [retrying] = [event for event in events if event["type"] == "retrying"]
    first, second = await double.requests()
    assert view["status"] == "completed"
    assert retrying["delay_ms"] == 2000
    assert second.received_at - first.received_at >= 2


async def test_session_goes_on_after_a_failed_turn_with_a_valid_transcript(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.status(400)], PARIS)
    created = await service.create("Hello")
    await service.ended(created["session_id"], created["turn"]["turn_id"])

    following = await service.client.post(f"/v1/sessions/{created['session_id']}/turns", json={"prompt": "And now?"})

    assert following.json()["text"] == "Paris."
