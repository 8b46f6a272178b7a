"""Compaction: a summary stands in for older messages, for the model alone."""

import asyncio
from typing import Any

import pytest

from tests.api import shapes
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

LONG = "word " * 400
SUMMARY = (scripts.text("They spoke of words."), scripts.finish())


def said(text: str) -> Any:
    """Make an answer."""
    return (scripts.text(text), scripts.finish())


async def test_caller_has_it_summed_up_and_the_history_keeps_all(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play(said(LONG), said(LONG), SUMMARY, said("Yes."))
    await desk.start("One?")
    await desk.start("Two?")
    before = (await service.client.get(f"{desk.path}/messages")).json()["messages"]

    answer = await service.client.post(f"{desk.path}/compact")

    assert answer.status_code == 200, answer.text
    log = await desk.log_at_rest()
    shapes.assert_log(log)
    assert [event["type"] for event in log[-2:]] == ["compaction_started", "compaction_completed"]
    assert (log[-1]["messages_before"], log[-1]["turn_id"]) == (4, None)
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert messages[:-1] == before
    assert (messages[-1]["summary"], "They spoke of words." in messages[-1]["content"][0]["text"]) == (True, True)
    assert (await desk.start("Still there?")).json()["text"] == "Yes."
    request = (await double.requests())[-1].body["messages"]
    assert "They spoke of words." in request[0]["content"]
    assert LONG.strip() not in str(request[:1])
    assert "They spoke of words." not in "".join(event.get("delta", "") for event in log)


async def test_usage_of_the_summary_is_on_the_bill(service: Service, desk: Desk, double: ProviderDouble) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    await double.play(said(LONG), said(LONG), [scripts.text("Words."), scripts.finish(usage=usage)])
    await desk.start("One?")
    await desk.start("Two?")
    before = (await service.client.get(desk.path)).json()["billing"]["total_tokens"]

    answer = await service.client.post(f"{desk.path}/compact")

    assert answer.json()["billing"]["total_tokens"] == before + 107


async def test_repeat_with_a_key_sums_up_once(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play(said(LONG), said(LONG), SUMMARY, SUMMARY)
    await desk.start("One?")
    await desk.start("Two?")

    answers = [await service.client.post(f"{desk.path}/compact", headers={"Idempotency-Key": "once"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert answers[0].json() == answers[1].json()
    assert len(await double.requests()) == 3


async def test_asked_for_twice_at_once_it_is_summed_up_once(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play(said(LONG), said(LONG), SUMMARY, SUMMARY, SUMMARY)
    await desk.start("One?")
    await desk.start("Two?")

    async def compact() -> int:
        return (await service.client.post(f"{desk.path}/compact", headers={"Idempotency-Key": "once"})).status_code

    statuses = await asyncio.gather(compact(), compact(), compact())

    assert set(statuses) <= {200, 409}
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [message.get("summary", False) for message in messages].count(True) == 1
    types = [event["type"] for event in await desk.log_at_rest()]
    assert types.count("compaction_started") == 1 + types.count("compaction_failed")


async def test_too_long_for_the_provider_is_summed_up_once_and_asked_again(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    await double.play(said(LONG), [scripts.context_overflow()], SUMMARY, said("Paris."))
    await desk.start("One?")

    turn = (await desk.start("Two?")).json()

    log = await desk.log_at_rest()
    shapes.assert_log(log)
    assert (turn["status"], turn["text"]) == ("completed", "Paris.")
    types = [event["type"] for event in log]
    assert types.count("compaction_completed") == 1
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [message.get("summary", False) for message in messages] == [False, False, False, True, False]


async def test_too_long_again_fails_and_does_not_loop(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play(said(LONG), [scripts.context_overflow()], SUMMARY, [scripts.context_overflow()])
    await desk.start("One?")

    turn = (await desk.start("Two?")).json()

    assert (turn["status"], turn["error"]["reason"], len(await double.requests())) == ("failed", "CONTEXT_OVERFLOW", 4)


async def test_summary_that_is_no_shorter_fails_the_turn(service: Service, desk: Desk, double: ProviderDouble) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    long = (scripts.text(LONG * 3), scripts.finish(usage=usage))
    await double.play(said("Yes."), [scripts.context_overflow()], long, long)
    await desk.start("One?")
    before = (await service.client.get(desk.path)).json()["billing"]["total_tokens"]

    turn = (await desk.start("Two?")).json()
    after = (await service.client.post(f"{desk.path}/compact")).json()["billing"]["total_tokens"]

    assert (turn["error"]["reason"], turn["usage"]["total_tokens"]) == ("COMPACTION_FAILED", 107)
    failures = [event for event in await desk.log_at_rest() if event["type"] == "compaction_failed"]
    assert [failure["usage"]["input_tokens"] for failure in failures] == [100, 100]
    assert after == before + 2 * 107
    assert (await desk.start("Three?")).json()["status"] == "completed"


async def test_live_turn_refuses_compaction(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    await desk.start("One?", ASYNC)
    await double.started(1)

    answer = await service.client.post(f"{desk.path}/compact")

    assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_BUSY")
    await desk.interrupt()


async def test_session_with_nothing_to_sum_up_stays_as_it_is(service: Service, desk: Desk) -> None:
    answer = await service.client.post(f"{desk.path}/compact")

    assert (answer.status_code, answer.json()["state"]["message_count"]) == (200, 0)


async def test_realm_may_switch_it_off(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await service.client.patch("/v1/realm/config", json={"config": {"compaction": {"enabled": False}}})
    try:
        await double.play(said(LONG), [scripts.context_overflow()])
        await desk.start("One?")
        turn = (await desk.start("Two?")).json()
        answer = await service.client.post(f"{desk.path}/compact")
    finally:
        await service.client.put("/v1/realm/config", json={"config": {}})

    assert (answer.status_code, answer.json()["code"]) == (501, "SESSION_COMPACTION_DISABLED")
    assert turn["error"]["reason"] == "CONTEXT_OVERFLOW"
