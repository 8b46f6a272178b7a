"""What a caller may do to a turn that runs: steer it, supersede it, stop it after its step."""

import asyncio
from typing import Any

import pytest

from tests.api import databases, shapes
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

PAUSE = scripts.hang()
CALL = scripts.tool_call("datetime", {}, call_id="call_1")


async def running(desk: Desk, service: Service) -> dict[str, Any]:
    """Start a turn, and return it once the model has spoken."""
    turn: dict[str, Any] = (await desk.start("Hello", ASYNC)).json()
    await service.frames(f"{desk.path}/events", until=["text_delta"])
    return turn


async def told_to_stop(database_url: str, turn_id: str) -> None:
    """Wait until a turn is to end after its step."""
    async with asyncio.timeout(5):
        query = "SELECT 1 FROM turns WHERE id = $1 AND stop_note IS NOT NULL"
        while not await databases.fetch(database_url, query, turn_id):
            await asyncio.sleep(0.01)


async def test_steering_enters_before_the_next_step_and_is_answered_at_once(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    await double.play(
        [scripts.text("I look."), PAUSE, CALL, scripts.finish("tool_calls")], [scripts.text("In Rome."), scripts.finish()]
    )
    live = await running(desk, service)

    answer = await desk.start("And in Rome?", on_busy="steer")
    await double.go_on()

    assert (answer.status_code, answer.json()["turn_id"], answer.json()["status"]) == (202, live["turn_id"], "running")
    log = await desk.log_at_rest()
    shapes.assert_log(log)
    types = [event["type"] for event in log]
    assert types.index("tool_result_received") < types.index("turn_steered") < len(types) - types[::-1].index("step_started")
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    shapes.assert_transcript(messages)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user", "assistant"]
    assert messages[3]["content"] == [{"type": "text", "text": "And in Rome?"}]


async def test_turn_that_would_have_ended_goes_on_with_what_steers_it(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    await double.play([scripts.text("Paris."), PAUSE, scripts.finish()], [scripts.text("Rome."), scripts.finish()])
    live = await running(desk, service)

    first = await desk.start("And Italy?", on_busy="steer")
    second = await desk.start("Only the name.", on_busy="steer")
    await double.go_on()

    assert (first.status_code, second.status_code) == (202, 202)
    log = await desk.log_at_rest()
    assert [event["prompt"] for event in log if event["type"] == "turn_steered"] == ["And Italy?", "Only the name."]
    turn = await desk.turn(live["turn_id"])
    assert (turn["status"], turn["text"], turn["steps"]) == ("completed", "Rome.", 2)


async def test_steering_an_idle_session_is_a_plain_turn(desk: Desk) -> None:
    answer = await desk.start("Hello", on_busy="steer")

    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


async def test_steering_with_options_of_a_turn_is_refused(desk: Desk, service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    await running(desk, service)

    answer = await desk.start("Go on", on_busy="steer", max_tokens=5)

    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, "max_tokens")
    await desk.interrupt()


async def test_steering_that_came_too_late_is_kept_for_the_next_turn(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    await running(desk, service)
    await desk.start("Go on", on_busy="steer")

    await desk.interrupt()

    log = await service.log_of(desk.id)
    assert [event["type"] for event in log[-2:]] == ["turn_steered", "turn_interrupted"]
    assert (await desk.start("Now")).json()["status"] == "completed"
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [block["text"] for block in messages[2]["content"]] == ["Go on"]


async def test_repeat_of_a_steering_has_one_effect(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.text("Paris."), PAUSE, scripts.finish()], [scripts.text("Rome."), scripts.finish()])
    live = await running(desk, service)
    key = {"Idempotency-Key": "steer-1"}

    answers = [await desk.start("And Italy?", key, on_busy="steer") for _ in range(2)]
    await double.go_on()

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].headers["idempotency-replayed"] == "true"
    log = await desk.log_at_rest()
    assert [event["type"] for event in log].count("turn_steered") == 1
    assert (await desk.turn(live["turn_id"]))["steps"] == 2


async def test_turn_that_interrupts_supersedes_the_live_one_and_runs_before_the_queue(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    live = await running(desk, service)
    queued = await desk.queue("Later")

    answer = await desk.start("Now", on_busy="interrupt")

    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    log = await desk.log_at_rest()
    ended = next(event for event in log if event["type"] == "turn_interrupted")
    assert (ended["turn_id"], ended["reason"], ended["text"]) == (live["turn_id"], "superseded", "Par")
    started = [event["turn_id"] for event in log if event["type"] == "turn_started"]
    assert started == [live["turn_id"], answer.json()["turn_id"], queued["turn_id"]]
    shapes.assert_log(log)


async def test_stop_after_the_step_waits_for_its_tools_and_asks_no_model_again(
    service: Service, desk: Desk, double: ProviderDouble, api_database_url: str
) -> None:
    await double.play([scripts.text("I look."), PAUSE, CALL, scripts.finish("tool_calls")])
    live = await running(desk, service)

    async with asyncio.TaskGroup() as tasks:
        body = {"mode": "after_step", "reason": "enough"}
        stop = tasks.create_task(service.client.post(f"{desk.path}/interrupt", json=body))
        await told_to_stop(api_database_url, live["turn_id"])
        await double.go_on()

    answer, log = stop.result(), await service.log_of(desk.id)
    turn = answer.json()
    assert (answer.status_code, turn["turn_id"], turn["status"]) == (200, live["turn_id"], "interrupted")
    assert (turn["steps"], turn["text"]) == (1, "I look.")
    assert (log[-1]["type"], log[-1]["reason"], log[-1]["note"]) == ("turn_interrupted", "user", "enough")
    assert "tool_result_received" in [event["type"] for event in log]
    assert len(await double.requests()) == 1
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    shapes.assert_transcript(messages)


async def test_stop_after_the_step_that_is_the_last_lets_the_turn_complete(
    service: Service, desk: Desk, double: ProviderDouble, api_database_url: str
) -> None:
    await double.play([scripts.text("Paris."), PAUSE, scripts.finish()])
    live = await running(desk, service)

    async with asyncio.TaskGroup() as tasks:
        stop = tasks.create_task(service.client.post(f"{desk.path}/interrupt", json={"mode": "after_step"}))
        await told_to_stop(api_database_url, live["turn_id"])
        await double.go_on()

    answer = stop.result()
    assert (answer.status_code, answer.json()["status"], answer.json()["text"]) == (200, "completed", "Paris.")


async def test_stop_after_the_step_of_an_idle_session_is_refused(service: Service, desk: Desk) -> None:
    answer = await service.client.post(f"{desk.path}/interrupt", json={"mode": "after_step"})

    assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_NOT_RUNNING")


async def test_steerings_and_an_end_at_once_lose_nothing(service: Service, desk: Desk, double: ProviderDouble) -> None:
    for _ in range(10):
        await double.reset()
        await double.play([scripts.text("Paris."), scripts.finish()])
        started = desk.start("Hello", ASYNC, on_busy="queue")
        answers = await asyncio.gather(started, *(desk.start("And?", on_busy="steer") for _ in range(3)))
        assert all(answer.status_code in {200, 202} for answer in answers), [answer.text for answer in answers]
        while (await service.client.get(desk.path)).json()["state"]["is_active"]:
            await asyncio.sleep(0.01)
    messages = (await service.client.get(f"{desk.path}/messages?limit=200")).json()["messages"]
    asked = [block["text"] for message in messages if message["role"] == "user" for block in message["content"]]
    assert (asked.count("Hello"), asked.count("And?")) == (10, 30)
    shapes.assert_log(await service.log_of(desk.id))
