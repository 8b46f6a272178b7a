"""Two servers whose wake-ups go over NATS, and NATS killed in the middle of a turn."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median

import pytest

from tests import nats_server
from tests.api import shapes
from tests.journeys.follower import Follower
from tests.nats_server import NatsServer
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

LIVE_SECONDS = 0.25  # what comes by polling is half a second late in the middle
CHANGE_SECONDS = 20.0


@pytest.fixture
async def nats(nats_program: str) -> AsyncIterator[NatsServer]:
    """The one NATS of both servers."""
    async with nats_server.running(nats_program) as server:
        yield server


@pytest.fixture
async def nodes(serve: Callable[..., Awaitable[Service]], double: ProviderDouble, nats: NatsServer) -> tuple[Service, Service]:
    """Two servers that hear each other."""
    settings = {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url, "SURICATE_NATS_URL": nats.url}
    here, there = await asyncio.gather(serve(**settings), serve(**settings))
    await until_both((here, there), are_listening=True)
    return here, there


async def until_both(nodes: tuple[Service, Service], *, are_listening: bool) -> None:
    """Wait until both nodes say that wake-ups arrive, or that they do not."""
    wanted = "1.0" if are_listening else "0.0"
    async with asyncio.timeout(CHANGE_SECONDS):
        for node in nodes:
            while re.findall(r"^suricate_listening (\S+)$", (await node.client.get("/metrics")).text, re.MULTILINE) != [wanted]:
                await asyncio.sleep(0.05)


async def test_turn_is_followed_live_on_another_node(nodes: tuple[Service, Service], double: ProviderDouble) -> None:
    here, there = nodes
    await double.play([scripts.tokens(60, rate=30), scripts.finish()])
    follower = Follower((await here.create("Hello"))["session_id"])

    await follower.follow(there, until=shapes.TERMINAL)

    follower.assert_saw_everything(await here.log_of(follower.session_id))
    assert median(follower.lateness) < LIVE_SECONDS


@pytest.mark.slow
async def test_nothing_is_lost_while_nats_is_gone_and_turns_are_live_again_when_it_is_back(
    nodes: tuple[Service, Service], double: ProviderDouble, nats: NatsServer
) -> None:
    here, there = nodes
    await double.play([scripts.tokens(200, rate=40), scripts.finish()], [scripts.tokens(60, rate=30), scripts.finish()])
    session_id = (await here.create("Hello"))["session_id"]
    follower = Follower(session_id)

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follower.follow(there, until=shapes.TERMINAL))
        await follower.saw(8)
        await nats.kill()
        await follower.saw(8)
        await until_both(nodes, are_listening=False)
        ready = [(await node.client.get("/readyz")).status_code for node in nodes]
        await following
        await nats.start()
        await until_both(nodes, are_listening=True)
    again = Follower(session_id, frames=list(follower.frames))
    body, headers = {"prompt": "And now?"}, {"Prefer": "respond-async"}
    await here.client.post(f"/v1/sessions/{session_id}/turns", json=body, headers=headers)
    await again.follow(there, until=shapes.TERMINAL)

    assert ready == [200, 200]
    again.assert_saw_everything(await here.log_of(session_id))
    assert median(again.lateness) < LIVE_SECONDS


async def test_server_starts_and_serves_while_nats_is_not_there(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    service = await serve(
        SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url, SURICATE_NATS_URL="nats://node:canary@127.0.0.1:9"
    )

    answer = await service.client.post(
        "/v1/sessions", json={"model": "double", "provider": "openai_compatible", "prompt": "Hi"}
    )

    assert (answer.status_code, answer.json()["turn"]["status"]) == (201, "completed")
    assert (await service.client.get("/readyz")).json()["checks"] == {"database": True, "leases": True, "open": True}
    log = service.log.read_text()
    assert '"wakeups_lost"' in log
    assert "canary" not in log
    assert await service.terminate() == -15
