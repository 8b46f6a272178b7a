"""`POST …/interrupt`: the live turn ends at once, and what it has said is kept."""

import asyncio

import pytest

from tests.api import shapes
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

INTERRUPT_SECONDS = 2.0


async def test_interrupt_answers_with_the_ended_turn_and_keeps_its_text(
    service: Service, busy: Desk, double: ProviderDouble
) -> None:
    async with asyncio.timeout(INTERRUPT_SECONDS):
        answer = await service.client.post(f"{busy.path}/interrupt", json={"reason": "enough", "mode": "now"})

    turn, log = answer.json(), await service.log_of(busy.id)
    shapes.assert_shaped(turn, shapes.TURN)
    shapes.assert_log(log)
    assert (answer.status_code, turn["status"], turn["stop_reason"], turn["text"]) == (200, "interrupted", "interrupted", "Par")
    assert (turn["error"], turn["last_seq"]) == (None, log[-1]["seq"])
    assert (log[-1]["type"], log[-1]["reason"], log[-1]["note"], log[-1]["text"]) == (
        "turn_interrupted",
        "user",
        "enough",
        "Par",
    )
    messages = (await service.client.get(f"{busy.path}/messages")).json()["messages"]
    shapes.assert_transcript(messages)
    assert messages[-1]["content"] == [{"type": "text", "text": "Par"}]
    assert messages[-1]["stop_reason"] == "interrupted"
    assert (await double.ended(1)).closed_by_client_at is not None


async def test_interrupt_without_a_reason_has_no_note(service: Service, busy: Desk) -> None:
    answer = await service.client.post(f"{busy.path}/interrupt")

    assert answer.status_code == 200
    assert "note" not in (await service.log_of(busy.id))[-1]


async def test_interrupt_before_the_first_word_leaves_no_empty_message(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    await double.play([scripts.hang()])
    await desk.start("Hello", ASYNC)
    await double.received(1)

    turn = (await service.client.post(f"{desk.path}/interrupt")).json()
    following = await desk.start("And now?")

    assert (turn["status"], turn["text"]) == ("interrupted", "")
    assert following.json()["status"] == "completed"
    messages = (await service.client.get(f"{desk.path}/messages")).json()["messages"]
    assert [message["role"] for message in messages] == ["user", "user", "assistant"]


async def test_interrupt_of_an_idle_session_is_refused(service: Service, desk: Desk) -> None:
    idle = await service.client.post(f"{desk.path}/interrupt")
    await desk.start("Hello")
    ended = await service.client.post(f"{desk.path}/interrupt", json={})

    for answer in (idle, ended):
        assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_NOT_RUNNING")
        assert answer.json()["session_id"] == desk.id


@pytest.mark.parametrize("turn_id", ["00000000-0000-7000-8000-000000000000", "x", "\0", ""])
async def test_interrupt_of_another_than_the_live_turn_is_refused_and_stops_nothing(
    service: Service, busy: Desk, turn_id: str
) -> None:
    answer = await service.client.post(f"{busy.path}/interrupt", json={"turn_id": turn_id})

    assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_NOT_RUNNING")
    assert (await service.client.get(busy.path)).json()["state"]["is_active"] is True
    await busy.interrupt()


async def test_interrupt_that_names_the_live_turn_stops_it(service: Service, busy: Desk) -> None:
    live = (await service.client.get(busy.path)).json()["state"]["current_turn_id"]

    answer = await service.client.post(f"{busy.path}/interrupt", json={"turn_id": live})

    assert (answer.status_code, answer.json()["turn_id"]) == (200, live)


async def test_interrupt_of_a_queued_turn_is_refused(service: Service, busy: Desk) -> None:
    queued = await busy.queue("Two")

    answer = await service.client.post(f"{busy.path}/interrupt", json={"turn_id": queued["turn_id"]})

    assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_NOT_RUNNING")
    await service.client.delete(f"{busy.path}/turns/{queued['turn_id']}")
    await busy.interrupt()


async def test_interrupts_at_once_share_one_answer_and_one_event(service: Service, busy: Desk) -> None:
    answers = await asyncio.gather(*(service.client.post(f"{busy.path}/interrupt") for _ in range(20)))

    taken = [answer.json() for answer in answers if answer.status_code == 200]
    refused = {(answer.status_code, answer.json()["code"]) for answer in answers if answer.status_code != 200}
    assert taken
    assert all(view == taken[0] for view in taken)
    assert refused <= {(409, "SESSION_NOT_RUNNING")}
    shapes.assert_log(await service.log_of(busy.id))


async def test_interrupt_and_end_at_once_leave_one_terminal_event(service: Service, desk: Desk, double: ProviderDouble) -> None:
    for _ in range(10):
        await double.play([scripts.text("a"), scripts.finish()])
        async with asyncio.TaskGroup() as tasks:
            turn = tasks.create_task(desk.start("Hello"))
            stop = tasks.create_task(service.client.post(f"{desk.path}/interrupt"))

        assert stop.result().status_code in {200, 409}
        if stop.result().status_code == 200:
            assert turn.result().json()["status"] == "interrupted"
    shapes.assert_log(await service.log_of(desk.id))


async def test_waiting_caller_and_stream_see_the_interrupt(service: Service, busy: Desk) -> None:
    live = (await service.client.get(busy.path)).json()["state"]["current_turn_id"]
    async with asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(service.frames(f"{busy.path}/turns/{live}/events"))
        await busy.interrupt()

    assert stream.result()[-1].event == "turn_interrupted"


async def test_interrupt_between_a_call_and_its_next_step_leaves_a_valid_transcript(
    service: Service, desk: Desk, double: ProviderDouble
) -> None:
    calls = [scripts.tool_call("datetime", {}, index=index) for index in range(3)]
    await double.play([*calls, scripts.finish("tool_calls")], [scripts.hang()])
    await desk.start("Hello", ASYNC)
    await double.received(2)

    await busy_interrupt(service, desk)
    following = await desk.start("And now?")

    assert following.json()["status"] == "completed"
    shapes.assert_transcript((await service.client.get(f"{desk.path}/messages")).json()["messages"])
    shapes.assert_log(await service.log_of(desk.id))


async def busy_interrupt(service: Service, desk: Desk) -> None:
    answer = await service.client.post(f"{desk.path}/interrupt")
    assert answer.json()["status"] == "interrupted"
