"""Two servers on one database."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.db.engine import Database
from tests.api import shapes
from tests.api.test_waiting import CALL, SUNNY, WEATHER
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

INTERRUPT_SECONDS = 2.0


@pytest.fixture
async def nodes(serve: Callable[..., Awaitable[Service]], double: ProviderDouble) -> tuple[Service, Service]:
    """Two servers with the default lease."""
    settings = {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    one, other = await asyncio.gather(serve(**settings), serve(**settings))
    return one, other


async def test_turn_is_read_and_interrupted_from_another_node(nodes: tuple[Service, Service], double: ProviderDouble) -> None:
    here, there = nodes
    await double.play([scripts.text("Par"), scripts.endless(rate=50)])
    created = await here.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"

    async with asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(there.frames(f"{path}/events", until=["turn_interrupted"]))
        await there.frames(f"{path}/events", until=["text_delta"])
        async with asyncio.timeout(INTERRUPT_SECONDS):
            answer = await there.client.post(f"{path}/interrupt")
            closed = await double.ended(1)

    log = await here.log_of(created["session_id"])
    assert (answer.status_code, answer.json()["status"]) == (200, "interrupted")
    assert closed.closed_by_client_at is not None
    assert [frame.data for frame in stream.result()] == log
    shapes.assert_log(log)
    shown = "".join(event["delta"] for event in log if event["type"] == "text_delta")
    assert answer.json()["text"] == shown
    assert (await here.client.post(f"{path}/turns", json={"prompt": "And now?"})).json()["status"] == "completed"


async def test_turn_whose_node_was_killed_is_interrupted_from_another_at_once(
    nodes: tuple[Service, Service], double: ProviderDouble
) -> None:
    here, there = nodes
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await here.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await here.frames(f"{path}/events", until=["text_delta"])
    await here.kill()

    async with asyncio.timeout(INTERRUPT_SECONDS):
        answer = await there.client.post(f"{path}/interrupt")

    assert (answer.status_code, answer.json()["status"], answer.json()["text"]) == (200, "interrupted", "Par")
    following = await there.client.post(f"{path}/turns", json={"prompt": "And now?"})
    assert following.json()["status"] == "completed"
    shapes.assert_log(await there.log_of(created["session_id"]))
    shapes.assert_transcript((await there.client.get(f"{path}/messages")).json()["messages"])


async def test_of_fifty_turns_started_on_both_nodes_at_once_one_is_taken(
    nodes: tuple[Service, Service], double: ProviderDouble
) -> None:
    session_id = (await nodes[0].create())["session_id"]
    for _ in range(5):
        await double.play([scripts.hang()])
        body, headers = {"prompt": "Hello"}, {"Prefer": "respond-async"}
        started = [nodes[n % 2].client.post(f"/v1/sessions/{session_id}/turns", json=body, headers=headers) for n in range(50)]

        answers = await asyncio.gather(*started)

        assert sorted(answer.status_code for answer in answers) == [202] + [409] * 49
        await nodes[0].client.post(f"/v1/sessions/{session_id}/interrupt")


async def test_queued_turn_goes_on_when_the_node_that_took_it_is_gone(
    nodes: tuple[Service, Service], double: ProviderDouble
) -> None:
    here, there = nodes
    await double.play([scripts.hang()])
    created = await here.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    body = {"prompt": "Next", "on_busy": "queue"}
    queued = (await here.client.post(f"{path}/turns", json=body, headers={"Prefer": "respond-async"})).json()
    await double.received(1)
    await here.kill()

    await there.client.post(f"{path}/interrupt")

    assert (await there.ended(created["session_id"], queued["turn_id"]))["status"] == "completed"


PAUSED = (scripts.text("I look."), scripts.hang(), scripts.tool_call("datetime", {}), scripts.finish("tool_calls"))
SLOW = (scripts.text("Par"), scripts.hang(), scripts.text("is."), scripts.finish())
ROME = (scripts.text("Rome."), scripts.finish())


async def followed(service: Service, session_id: str, until: Sequence[str]) -> list[dict[str, Any]]:
    """Follow a session from its beginning, and return its log, which is what was seen."""
    reader = Follower(session_id)
    async with asyncio.timeout(10):
        await reader.follow(service, until=until)
    log = await service.log_of(session_id)
    reader.assert_saw_everything(log[: len(reader.frames)])
    return log


async def test_turn_is_steered_from_another_node(nodes: tuple[Service, Service], double: ProviderDouble) -> None:
    here, there = nodes
    await double.play(PAUSED, ROME)
    created = await here.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await there.frames(f"{path}/events", until=["text_delta"])

    answer = await there.client.post(f"{path}/turns", json={"prompt": "And in Rome?", "on_busy": "steer"})
    await double.go_on()
    log = await followed(there, created["session_id"], ["turn_completed"])

    assert (answer.status_code, answer.json()["turn_id"]) == (202, created["turn"]["turn_id"])
    assert [(event["type"], event.get("prompt")) for event in log if event["type"] == "turn_steered"] == [
        ("turn_steered", "And in Rome?")
    ]
    assert (log[-1]["text"], log[-1]["steps"]) == ("Rome.", 2)
    assert "turn_resumed" not in {event["type"] for event in log}


async def test_turn_that_was_queued_from_another_node_follows_the_live_one(
    nodes: tuple[Service, Service], double: ProviderDouble
) -> None:
    here, there = nodes
    await double.play(SLOW, ROME)
    created = await here.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await there.frames(f"{path}/events", until=["text_delta"])

    async with asyncio.TaskGroup() as tasks:
        body = {"prompt": "And Italy?", "on_busy": "queue"}
        asked = tasks.create_task(there.client.post(f"{path}/turns", json=body))
        await there.frames(f"{path}/events", until=["turn_queued"])
        await double.go_on()

    answer = asked.result()
    log = await here.log_of(created["session_id"])
    shapes.assert_log(log)
    types = [event["type"] for event in log]
    assert (answer.status_code, answer.json()["text"], answer.json()["attempt"]) == (200, "Rome.", 1)
    assert types.index("turn_queued") < types.index("turn_completed") < len(types) - types[::-1].index("turn_started")


async def test_session_is_archived_from_another_node_and_its_turn_stops(
    nodes: tuple[Service, Service], double: ProviderDouble
) -> None:
    here, there = nodes
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await here.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(here.frames(f"{path}/events"))
        await here.frames(f"{path}/events", until=["text_delta"])
        async with asyncio.timeout(INTERRUPT_SECONDS):
            answer = await there.client.post(f"{path}/archive")
            closed = await double.ended(1)

    assert (answer.status_code, answer.json()["state"]["status"]) == (200, "archived")
    assert closed.closed_by_client_at is not None
    log = await there.log_of(created["session_id"])
    assert [frame.data for frame in stream.result()] == log
    assert [(event["type"], event.get("reason")) for event in log[-2:]] == [
        ("turn_interrupted", "archived"), ("session_archived", None)
    ]  # fmt: skip


async def test_call_that_waits_for_its_caller_is_answered_on_another_node(
    nodes: tuple[Service, Service], double: ProviderDouble
) -> None:
    here, there = nodes
    await double.play([CALL, scripts.finish("tool_calls")], ROME)
    created = await here.create("Hello", external_tools=[WEATHER])
    session_id, turn_id = created["session_id"], created["turn"]["turn_id"]
    await there.frames(f"/v1/sessions/{session_id}/events", until=["tool_call_pending"])

    answer = await there.client.post(f"/v1/sessions/{session_id}/tool_results", json={"results": [SUNNY]})
    log = await followed(here, session_id, ["turn_completed"])

    assert (answer.status_code, answer.json()["pending_tool_calls"]) == (200, [])
    assert (log[-1]["turn_id"], log[-1]["text"], log[-1]["tool_calls"]) == (turn_id, "Rome.", 1)
    [result] = [event for event in log if event["type"] == "tool_execution_completed"]
    assert (result["result"], result["is_error"]) == (SUNNY["content"], False)


async def test_turn_is_followed_and_interrupted_while_every_wakeup_is_lost(
    nodes: tuple[Service, Service], double: ProviderDouble, database: Database
) -> None:
    here, there = nodes
    await double.play([scripts.text("Par"), scripts.endless(rate=50)])
    session_id = (await here.create("Hello"))["session_id"]
    reader = Follower(session_id)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(no_wakeups(database))
        following = tasks.create_task(reader.follow(there, until=["turn_interrupted"]))
        await reader.saw(60)
        answer = await there.client.post(f"/v1/sessions/{session_id}/interrupt")
        closed = await double.ended(1)
        await following
        killing.cancel()

    assert (answer.status_code, answer.json()["status"]) == (200, "interrupted")
    assert closed.closed_by_client_at is not None
    reader.assert_saw_everything(await here.log_of(session_id))
    assert "wakeups_lost" in here.log.read_text()
    assert "wakeups_lost" in there.log.read_text()


async def no_wakeups(database: Database) -> None:
    """End the connections that carry wake-ups, again and again, as soon as they are there."""
    async with database.dedicated("test", role="none") as db:
        while True:
            await db.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'suricate wakeups' AND datname = current_database()"""
            )
            await asyncio.sleep(0.01)
