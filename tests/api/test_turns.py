"""Turns: the four ways of starting one, what a busy session does, the queue, lists and views."""

import asyncio
from typing import Any

import pytest

from tests.api import shapes
from tests.api.conftest import MAX_WAIT_SECONDS
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service, read_frames

pytestmark = pytest.mark.anyio


async def test_plain_start_answers_200_with_the_ended_turn(desk: Desk) -> None:
    answer = await desk.start("Hello")

    turn = answer.json()
    shapes.assert_shaped(turn, shapes.TURN)
    assert (answer.status_code, turn["status"], turn["number"]) == (200, "completed", 1)
    assert answer.headers["location"] == f"{desk.path}/turns/{turn['turn_id']}"
    assert await desk.turn(turn["turn_id"]) == turn


async def test_failed_turn_answers_200_with_its_status(desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.status(400)])

    answer = await desk.start("Hello")

    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["error"]["reason"] == "PROVIDER_REFUSED_REQUEST"


async def test_respond_async_answers_202_with_the_live_turn(busy: Desk) -> None:
    [turn] = (await busy.turns())["turns"]

    assert (turn["status"], turn["attempt"], turn["ended_at"]) == ("running", 1, None)
    shapes.assert_shaped(turn, shapes.TURN)
    await busy.interrupt()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, MAX_WAIT_SECONDS), ({"Prefer": "wait=1"}, 1), ({"Prefer": "wait=0"}, 0), ({"Prefer": "respond-async, wait=1"}, 1),
     ({"Prefer": "wait=999"}, MAX_WAIT_SECONDS)],
)  # fmt: skip
async def test_turn_that_outlasts_the_wait_answers_202(
    desk: Desk, double: ProviderDouble, headers: dict[str, str], seconds: float
) -> None:
    await double.play([scripts.hang()])
    began = asyncio.get_running_loop().time()

    answer = await desk.start("Hello", headers)

    waited = asyncio.get_running_loop().time() - began
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert answer.headers["location"] == f"{desk.path}/turns/{answer.json()['turn_id']}"
    assert seconds <= waited < seconds + 1
    await desk.interrupt()


async def test_wait_answers_200_as_soon_as_the_turn_has_ended(desk: Desk) -> None:
    answer = await desk.start("Hello", {"Prefer": "wait=20"})

    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


async def test_stream_answers_200_and_ends_after_the_terminal_event(service: Service, desk: Desk) -> None:
    headers = {"Accept": "text/event-stream"}
    async with service.client.stream("POST", f"{desk.path}/turns", json={"prompt": "Hi"}, headers=headers) as answer:
        frames = [frame async for frame in read_frames(answer)]

    turn_id = frames[0].data["turn_id"]
    assert answer.status_code == 200
    assert answer.headers["location"] == f"{desk.path}/turns/{turn_id}"
    assert answer.headers["cache-control"] == "no-store"
    assert [frame.event for frame in frames[:2]] == ["turn_started", "step_started"]
    assert [frame.event for frame in frames[-3:]] == ["text_complete", "step_completed", "turn_completed"]
    assert [frame.data for frame in frames] == (await service.log_of(desk.id))[1:]


async def test_blocks_are_a_prompt_too_and_stay_as_given(service: Service, desk: Desk, double: ProviderDouble) -> None:
    blocks = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]

    answer = await service.client.post(f"{desk.path}/turns", json={"prompt": blocks})

    assert answer.status_code == 200
    assert (await double.received(1)).body["messages"] == [{"role": "user", "content": "One.\n\nTwo."}]
    assert (await service.log_of(desk.id))[1]["prompt"] == blocks


async def test_overrides_hold_for_their_turn_alone(desk: Desk, double: ProviderDouble) -> None:
    await desk.start("One", model="other", max_tokens=9)
    await desk.start("Two")

    first, second = [request.body for request in await double.requests()]
    assert (first["model"], first["max_tokens"]) == ("other", 9)
    assert (second["model"], second.get("max_tokens")) == ("double", None)


@pytest.mark.parametrize("on_busy", [None, "reject", "queue"])
async def test_on_an_idle_session_on_busy_means_nothing(desk: Desk, on_busy: str | None) -> None:
    answer = await desk.start("Hello", on_busy=on_busy)

    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


@pytest.mark.parametrize("fields", [{}, {"on_busy": "reject"}, {"on_busy": None}])
@pytest.mark.parametrize("headers", [{}, ASYNC, {"Accept": "text/event-stream"}])
async def test_busy_session_rejects_and_names_the_live_turn(
    busy: Desk, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    before = (await busy.client.get(busy.path)).json()["state"]

    answer = await busy.start("Another", headers, **fields)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "SESSION_BUSY")
    assert (problem["session_id"], problem["turn_id"]) == (busy.id, before["current_turn_id"])
    assert (await busy.client.get(busy.path)).json()["state"]["queued_turns"] == 0
    await busy.interrupt()


async def test_of_fifty_turns_started_at_once_one_is_taken(desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.hang()])

    answers = await asyncio.gather(*(desk.start("Hello", ASYNC) for _ in range(50)))

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 49
    assert len((await desk.turns())["turns"]) == 1
    await desk.interrupt()


async def test_queued_turns_run_in_order_of_acceptance_behind_the_live_one(service: Service, busy: Desk) -> None:
    queued = [await busy.queue(prompt) for prompt in ("Two", "Three", "Four")]
    state = (await busy.client.get(busy.path)).json()["state"]
    waiting = [await busy.turn(view["turn_id"]) for view in queued]

    await busy.interrupt()
    ended = [await service.ended(busy.id, view["turn_id"]) for view in queued]

    assert (state["queued_turns"], state["status"]) == (3, "running")
    assert [(view["status"], view["number"], view["started_at"], view["text"]) for view in waiting] == [
        ("queued", number, None, None) for number in (2, 3, 4)
    ]
    assert [view["status"] for view in ended] == ["completed"] * 3
    assert ended[0]["ended_at"] <= ended[1]["started_at"] <= ended[1]["ended_at"] <= ended[2]["started_at"]
    log = await service.log_of(busy.id)
    shapes.assert_log(log)
    for name in ("turn_queued", "turn_started"):
        told = [(event["number"], event["prompt"]) for event in log if event["type"] == name]
        assert told[-3:] == [(2, "Two"), (3, "Three"), (4, "Four")]


async def test_plain_start_in_a_queue_waits_for_its_own_end(busy: Desk) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(busy.start("Two", on_busy="queue"))
        while not (await busy.turns("status=queued"))["turns"]:
            pass
        await busy.interrupt()

    assert (waiting.result().status_code, waiting.result().json()["status"]) == (200, "completed")


async def test_stream_of_a_queued_turn_begins_with_its_queueing(service: Service, busy: Desk) -> None:
    headers = {"Accept": "text/event-stream"}
    body = {"prompt": "Two", "on_busy": "queue"}
    async with service.client.stream("POST", f"{busy.path}/turns", json=body, headers=headers) as answer:
        frames = read_frames(answer)
        first = await anext(frames)
        await busy.interrupt()
        rest = [frame async for frame in frames]

    assert (first.event, rest[0].event, rest[-1].event) == ("turn_queued", "turn_started", "turn_completed")
    assert {frame.data["turn_id"] for frame in rest} == {first.data["turn_id"]}


async def test_queued_turn_is_edited_and_runs_with_its_new_prompt(service: Service, busy: Desk, double: ProviderDouble) -> None:
    view = await busy.queue("Old")

    edited = await busy.client.patch(f"{busy.path}/turns/{view['turn_id']}", json={"prompt": "New"})
    await busy.interrupt()
    await service.ended(busy.id, view["turn_id"])

    shapes.assert_shaped(edited.json(), shapes.TURN)
    assert (edited.status_code, edited.json()["status"]) == (200, "queued")
    assert (await double.requests())[-1].body["messages"][-1]["content"] == "New"


async def test_queued_turn_is_cancelled_and_never_runs(service: Service, busy: Desk, double: ProviderDouble) -> None:
    first, second = await busy.queue("Two"), await busy.queue("Three")

    answer = await busy.client.delete(f"{busy.path}/turns/{first['turn_id']}")
    await busy.interrupt()
    await service.ended(busy.id, second["turn_id"])

    view = answer.json()
    shapes.assert_shaped(view, shapes.TURN)
    assert (answer.status_code, view["status"], view["stop_reason"]) == (200, "cancelled", None)
    assert shapes.is_time(view["ended_at"])
    assert "Two" not in str([request.body for request in await double.requests()])
    log = await service.log_of(busy.id)
    shapes.assert_log(log)
    [cancelled] = [event for event in log if event["type"] == "turn_cancelled"]
    assert (cancelled["turn_id"], cancelled["reason"], cancelled["seq"]) == (first["turn_id"], "user", view["last_seq"])


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_turn_that_is_not_queued_is_neither_edited_nor_cancelled(busy: Desk, method: str) -> None:
    cancelled = await busy.queue("Two")
    await busy.client.delete(f"{busy.path}/turns/{cancelled['turn_id']}")
    live = (await busy.client.get(busy.path)).json()["state"]["current_turn_id"]

    for turn_id in (live, cancelled["turn_id"]):
        body = {"json": {"prompt": "New"}} if method == "PATCH" else {}
        answer = await busy.client.request(method, f"{busy.path}/turns/{turn_id}", **body)  # type: ignore[arg-type]

        assert (answer.status_code, answer.json()["code"]) == (409, "TURN_NOT_QUEUED")
        assert (answer.json()["session_id"], answer.json()["turn_id"]) == (busy.id, turn_id)
    await busy.interrupt()


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": 5}, {"prompt": "a", "on_busy": "queue"}])
async def test_edit_that_breaks_the_schema_is_refused(busy: Desk, body: dict[str, Any]) -> None:
    view = await busy.queue("Old")

    answer = await busy.client.patch(f"{busy.path}/turns/{view['turn_id']}", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    await busy.client.delete(f"{busy.path}/turns/{view['turn_id']}")
    await busy.interrupt()


async def test_turns_are_listed_oldest_first_by_status_and_in_pages(busy: Desk) -> None:
    queued = [(await busy.queue(prompt))["turn_id"] for prompt in ("Two", "Three")]
    live = (await busy.client.get(busy.path)).json()["state"]["current_turn_id"]

    whole = await busy.turns()
    first = await busy.turns("limit=2")
    second = await busy.turns(f"limit=2&cursor={first['next_cursor']}")

    assert whole.keys() == {"turns", "next_cursor"}
    for view in whole["turns"]:
        shapes.assert_shaped(view, shapes.TURN)
    assert [view["turn_id"] for view in whole["turns"]] == [live, *queued]
    assert whole["next_cursor"] is second["next_cursor"] is None
    assert first["turns"] + second["turns"] == whole["turns"]
    assert [view["turn_id"] for view in (await busy.turns("status=queued"))["turns"]] == queued
    assert [view["turn_id"] for view in (await busy.turns("status=running"))["turns"]] == [live]
    assert (await busy.turns("limit=0"))["turns"] == (await busy.turns("status=failed"))["turns"] == []
    assert await busy.turns("limit=200&cursor=&status=") == whole
    for turn_id in queued:
        await busy.client.delete(f"{busy.path}/turns/{turn_id}")
    await busy.interrupt()


async def test_usage_of_the_session_is_the_sum_of_its_turns_and_of_what_the_provider_said(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}}
    call = scripts.tool_call("datetime", {})
    await double.play([call, scripts.finish("tool_calls", usage=usage)], [scripts.text("a"), scripts.finish(usage=usage)])
    await double.play([scripts.text("b"), scripts.finish(usage=None)])

    turns = [(await desk.start("One")).json(), (await desk.start("Two")).json()]

    counts = {"input_tokens": 40, "output_tokens": 10, "cache_creation_tokens": 0, "cache_read_tokens": 20}
    nothing = dict.fromkeys(counts, 0)
    billing = (await service.client.get(desk.path)).json()["billing"]
    assert turns[0]["usage"] == {**counts, "total_tokens": 50}
    assert turns[1]["usage"] == {**nothing, "total_tokens": 0}
    assert billing == {"total_tokens": 50, "usage": counts}
    assert (turns[0]["steps"], turns[0]["tool_calls"]) == (2, 1)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "content_filter")],
)
async def test_stop_reason_tells_why_the_model_stopped(desk: Desk, double: ProviderDouble, finish: str, reason: str) -> None:
    await double.play([scripts.text("a"), scripts.finish(finish)])

    turn = (await desk.start("Hello")).json()

    assert (turn["status"], turn["stop_reason"]) == ("completed", reason)
