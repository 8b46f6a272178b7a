"""Readers that come and go in the middle of a burst."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service, read_frames

pytestmark = pytest.mark.anyio

READERS = 4
RECONNECTS = 200
TOKENS_PER_SECOND = 1_000


async def test_readers_that_reconnect_200_times_in_a_burst_lose_and_double_nothing(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    service = await serve(SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url, SURICATE_DELTA_INTERVAL_MS="0")
    await double.play([scripts.endless(rate=TOKENS_PER_SECOND)])
    session_id = (await service.create("Hello"))["session_id"]
    followers = [Follower(session_id) for _ in range(READERS)]

    async def come_and_go(follower: Follower) -> None:
        for _ in range(RECONNECTS // READERS):
            await follower.follow(service, most=random.randint(1, 8))

    await asyncio.gather(*(come_and_go(follower) for follower in followers))
    await service.client.post(f"/v1/sessions/{session_id}/interrupt")
    await asyncio.gather(*(follower.follow(service, until=["turn_interrupted"]) for follower in followers))

    log = await service.log_of(session_id)
    assert len(log) > RECONNECTS
    for follower in followers:
        follower.assert_saw_everything(log)


async def test_reader_that_does_not_read_is_cut_off_and_comes_back_with_its_id(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    service = await serve(SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url, SURICATE_SSE_SEND_TIMEOUT_SECONDS="0.3")
    await double.play([scripts.text(*["word " * 200_000] * 10), scripts.hang()])
    session_id = (await service.create("Hello"))["session_id"]
    path = f"/v1/sessions/{session_id}/events"
    await service.frames(f"{path}?types=text_delta", until=["text_delta"])

    async with service.client.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        frames = read_frames(answer)
        first = await anext(frames)
        await cut_off(service)

    follower = Follower(session_id)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow_to_the_end(follower, service))
        await service.client.post(f"/v1/sessions/{session_id}/interrupt")
    assert first.event == "session_created"
    assert "reader_cut_off" in service.log.read_text()
    follower.assert_saw_everything(await service.log_of(session_id))


async def follow_to_the_end(follower: Follower, service: Service) -> None:
    """Read on until the turn has ended, coming back each time that this reader, too, was not quick enough."""
    async with asyncio.timeout(30):
        while not follower.count("turn_interrupted"):
            await follower.follow(service, until=["turn_interrupted"])


async def cut_off(service: Service) -> None:
    """Wait until the server has no stream open."""
    async with asyncio.timeout(10):
        while "\nsuricate_streams 0.0" not in (await service.client.get("/metrics")).text:
            pass
