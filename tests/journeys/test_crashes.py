"""kill -9 of the server, start again, read on: finished steps stay, nothing is lost or doubled, one end for each turn."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.api import shapes
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SESSIONS = 6
KILLS = 2
TOOL_STEPS = 5
ACKNOWLEDGED = 40
LEASE = {"SURICATE_LEASE_SECONDS": "1.5", "SURICATE_DELTA_INTERVAL_MS": "5"}


def tool_step() -> scripts.Script:
    """A step that takes a while and asks for two tools at once."""
    calls = [scripts.tool_call("datetime", {"timezone": zone}, index=index) for index, zone in enumerate(("UTC", "Asia/Tokyo"))]
    return [scripts.reasoning("hm"), scripts.tokens(20, rate=120), *calls, scripts.finish("tool_calls")]


async def test_turns_killed_at_twelve_random_points_go_on_to_their_one_end(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    settings = LEASE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    service = await serve(**settings)
    created = []
    for number in range(SESSIONS):
        await double.play(*[tool_step()] * TOOL_STEPS, match=f"No. {number};")
        created.append(await service.create(f"No. {number};", system_prompt="Be brief."))
    followers = [Follower(one["session_id"]) for one in created]

    for _ in range(KILLS):
        await killed_at_a_random_point(service, followers)
        service = await serve(**settings)
    await asyncio.gather(*(follower.follow(service, until=shapes.TERMINAL) for follower in followers))

    for one, follower in zip(created, followers, strict=True):
        log = await service.log_of(one["session_id"])
        follower.assert_saw_everything(log)
        await assert_finished_steps_stayed(service, one, log)


async def test_three_crashes_end_a_turn_and_an_orderly_stop_is_none(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    settings = LEASE | {"SURICATE_LEASE_SECONDS": "1", "SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    scripted: list[scripts.Script] = [[scripts.text("Par"), scripts.hang()] for _ in range(4)]
    await double.play(*scripted)
    service = await serve(**settings)
    created = await service.create("Hello")
    follower = Follower(created["session_id"])
    queued = await service.client.post(
        f"/v1/sessions/{created['session_id']}/turns",
        json={"prompt": "Next", "on_busy": "queue"},
        headers={"Prefer": "respond-async"},
    )

    for crashes in (1, 1, 0, 1):
        await follower.follow(service, until=["text_delta"])
        await (service.kill() if crashes else service.terminate())
        service = await serve(**settings)
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])
    following = await service.ended(created["session_id"], queued.json()["turn_id"])

    assert (view["status"], view["attempt"], view["text"]) == ("failed", 4, "Par")
    assert (view["error"]["code"], view["error"]["reason"]) == ("AGENT_ERROR", "RECOVERY_LIMIT")
    assert following["status"] == "completed"
    log = await service.log_of(created["session_id"])
    shapes.assert_log(log)
    own = [event for event in log if event["turn_id"] == created["turn"]["turn_id"]]
    assert [event["attempt"] for event in own if event["type"] == "turn_resumed"] == [2, 3, 4]
    messages = (await service.client.get(f"/v1/sessions/{created['session_id']}/messages")).json()["messages"]
    shapes.assert_transcript(messages)


async def test_step_that_was_cut_is_discarded_and_asked_again(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    settings = LEASE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    await double.play([scripts.text("Lon"), scripts.hang()], [scripts.text("Paris."), scripts.finish()])
    before = await serve(**settings)
    created = await before.create("Hello")
    follower = Follower(created["session_id"])
    await follower.follow(before, until=["text_delta"])
    [owner] = {(await before.client.get(f"/v1/sessions/{created['session_id']}")).json()["state"]["instance_id"]}
    await before.kill()

    after = await serve(**settings)
    await follower.follow(after, until=["turn_completed"])

    kinds = [frame.event for frame in follower.frames]
    assert kinds[1:] == ["turn_started", "step_started", "text_delta", "turn_resumed", "step_discarded", "step_started",
                         "text_delta", "text_complete", "step_completed", "turn_completed"]  # fmt: skip
    resumed, discarded = follower.data[4], follower.data[5]
    assert resumed["attempt"] == 2
    assert resumed["instance_id"] != owner
    assert (discarded["step"], discarded["reason"], discarded["from_seq"]) == (1, "resumed", 3)
    assert follower.data[-1]["text"] == "Paris."
    follower.assert_saw_everything(await after.log_of(created["session_id"]))


async def test_everything_acknowledged_before_a_kill_is_there_and_ends_after_it(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    settings = LEASE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    service = await serve(**settings)
    acknowledged: list[dict[str, Any]] = []

    async def create_for_ever() -> None:
        with suppress(httpx2.TransportError):
            while True:
                acknowledged.append(await service.create("Hello"))
                if len(acknowledged) == ACKNOWLEDGED:
                    await service.kill()

    await asyncio.gather(*(create_for_ever() for _ in range(10)))
    service = await serve(**settings)

    ended = [await service.ended(one["session_id"], one["turn"]["turn_id"]) for one in acknowledged]
    assert len(ended) >= ACKNOWLEDGED
    assert {view["status"] for view in ended} == {"completed"}
    for one in acknowledged:
        shapes.assert_log(await service.log_of(one["session_id"]))


async def killed_at_a_random_point(service: Service, followers: Sequence[Follower]) -> None:
    """Kill the server when one of its readers has seen a random number of events more."""
    async with asyncio.TaskGroup() as tasks:
        for follower in followers:
            tasks.create_task(follower.follow(service))
        async with asyncio.timeout(20):
            await random.choice(followers).saw(random.randint(12, 60))
        await service.kill()


async def assert_finished_steps_stayed(service: Service, created: dict[str, Any], log: Sequence[dict[str, Any]]) -> None:
    """Hold a turn's log and views against the promises of recovery."""
    path = f"/v1/sessions/{created['session_id']}"
    view = (await service.client.get(f"{path}/turns/{created['turn']['turn_id']}")).json()
    completed = [event["step"] for event in log if event["type"] == "step_completed"]
    assert (log[-1]["type"], view["status"]) == ("turn_completed", "completed")
    assert completed == list(range(1, view["steps"] + 1))
    for step in completed:
        end = next(event["seq"] for event in log if event["type"] == "step_completed" and event["step"] == step)
        assert not [event for event in log[end:] if event["type"] == "step_started" and event["step"] == step]
    for kind in ("tool_execution_completed", "tool_result_received", "tool_call_requested"):
        ids = [event["id"] for event in log if event["type"] == kind]
        assert len(ids) == len(set(ids)) == view["tool_calls"]
    assert view["attempt"] == 1 + sum(event["type"] == "turn_resumed" for event in log)
    shapes.assert_transcript((await service.client.get(f"{path}/messages")).json()["messages"])
    reported = sum(event["usage"]["output_tokens"] for event in log if event["type"] == "step_completed")
    billed = (await service.client.get(path)).json()["billing"]["usage"]["output_tokens"]
    assert reported == billed == view["usage"]["output_tokens"]
