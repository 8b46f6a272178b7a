"""Two servers and a worker on one database, as their operator sees and moves them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.api import shapes
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 2
HAND_OVER_SECONDS = 2.5  # far below the lease of 15: the grace of 1, and how long finding the turn may take
WAIT_SECONDS = 10.0
SLOW = (scripts.text("Par"), scripts.endless(rate=20))
PARIS = (scripts.text("Paris."), scripts.finish())

Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
def settings(double: ProviderDouble) -> dict[str, str]:
    """Settings of nodes whose provider is the double."""
    return {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}


async def listed(service: Service) -> dict[int, dict[str, Any]]:
    """Read the list of nodes, by process."""
    found = (await service.client.get("/v1/nodes")).json()["nodes"]
    for node in found:
        shapes.assert_shaped(node, shapes.NODE)
    return {node["pid"]: node for node in found}


async def until(service: Service, of: Service, **wanted: Any) -> dict[str, Any]:
    """Wait until the list shows a node so."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (node := (await listed(service))[of.process.pid]) | wanted != node:
            await asyncio.sleep(0.02)
    return node


async def ready(service: Service, status: int) -> None:
    """Wait until a node is ready, or is not."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (await service.client.get("/readyz")).status_code != status:
            await asyncio.sleep(0.01)


async def told(service: Service, act: str, of: Service, **headers: str) -> Any:
    """Tell a node to drain or to work again, by way of a server."""
    instance_id = (await listed(service))[of.process.pid]["instance_id"]
    return await service.client.post(f"/v1/nodes/{instance_id}/{act}", headers=headers)


async def holder(service: Service, session_id: str) -> str | None:
    """Read which node runs a session's live turn."""
    instance_id: str | None = (await service.client.get(f"/v1/sessions/{session_id}")).json()["state"]["instance_id"]
    return instance_id


@asynccontextmanager
async def following(follower: Follower, service: Service, **more: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """Follow beside the block, from the first event on."""
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follower.follow(service, **more))
        await follower.saw(1)
        yield task


async def test_list_shows_every_process_and_what_it_holds(
    serve: Serve, double: ProviderDouble, settings: dict[str, str]
) -> None:
    here, there, worker = await asyncio.gather(serve(**settings), serve(**settings), serve("worker", **settings))
    await double.play(SLOW)
    created = await here.create("Hello")
    await double.started(1)

    found = await listed(there)

    pids = [node.process.pid for node in (here, there, worker)]
    assert sorted(found) == sorted(pids)
    assert [found[pid]["kind"] for pid in pids] == ["serve", "serve", "worker"]
    assert [found[pid]["live_turns"] for pid in pids] == [1, 0, 0]
    assert {node["status"] for node in found.values()} == {"ready"}
    assert await holder(there, created["session_id"]) == found[pids[0]]["instance_id"]
    await worker.terminate()
    assert sorted(await listed(there)) == sorted(pids[:2])


async def test_node_that_was_killed_is_lost_after_its_lease_and_its_turn_goes_on_elsewhere(
    serve: Serve, double: ProviderDouble, settings: dict[str, str]
) -> None:
    settings |= {"SURICATE_LEASE_SECONDS": str(LEASE_SECONDS)}
    here, there, _ = await asyncio.gather(serve(**settings), serve(**settings), serve("worker", **settings))
    await double.play(SLOW, [scripts.text("Paris"), scripts.hang()])
    created = await here.create("Hello")
    await double.started(1)
    await here.kill()

    lost = await until(there, here, status="lost")
    await double.started(2)
    async with asyncio.timeout(WAIT_SECONDS):
        while (now := await holder(there, created["session_id"])) is None:
            await asyncio.sleep(0.02)

    assert lost["lease_age_seconds"] >= LEASE_SECONDS
    assert now != lost["instance_id"]
    assert [node["live_turns"] for node in (await listed(there)).values() if node["instance_id"] == now] == [1]
    assert (await until(there, here, live_turns=0))["status"] == "lost"


async def test_drained_node_hands_its_turn_over_at_once_and_sends_its_readers_elsewhere(
    serve: Serve, double: ProviderDouble, settings: dict[str, str]
) -> None:
    here, there = await asyncio.gather(serve(**settings), serve(**settings))
    await double.play(SLOW, PARIS)
    created = await here.create("Hello")
    reader = Follower(created["session_id"])
    loop = asyncio.get_running_loop()

    async with following(reader, here) as reading:
        await double.started(1)
        began = loop.time()
        answer = await told(there, "drain", here)
        await reading
        await double.started(2)
        took = loop.time() - began
    unready = await here.client.get("/readyz")
    await reader.follow(there, until=["turn_completed"])

    assert (answer.status_code, answer.json()["status"]) == (202, "draining")
    assert took < HAND_OVER_SECONDS
    assert reader.farewells == ["stream_draining"]
    assert (unready.status_code, unready.json()["checks"]["open"]) == (503, False)
    reader.assert_saw_everything(await here.log_of(created["session_id"]))
    assert reader.count("turn_resumed") == 1
    assert reader.data[-1]["text"] == "Paris."
    assert (await until(there, here, live_turns=0))["status"] == "draining"


async def test_drained_node_leaves_new_turns_to_others_until_it_works_again(
    serve: Serve, double: ProviderDouble, settings: dict[str, str]
) -> None:
    here, there = await asyncio.gather(serve(**settings), serve(**settings))
    own = (await listed(here))[here.process.pid]["instance_id"]
    await told(there, "drain", here)
    await ready(here, 503)
    await double.play(SLOW, SLOW)

    left = (await here.create("Hello"))["session_id"]
    await double.started(1)
    elsewhere = await holder(here, left)
    answer = await told(there, "undrain", here)
    await ready(here, 200)
    taken = (await here.create("Hello"))["session_id"]

    assert elsewhere not in {None, own}
    assert (answer.status_code, answer.json()["status"]) == (202, "ready")
    assert await holder(there, taken) == own


async def test_lone_node_that_drains_keeps_what_it_accepts_until_it_works_again(
    serve: Serve, double: ProviderDouble, settings: dict[str, str]
) -> None:
    only = await serve(**settings)
    await double.play(PARIS)
    await told(only, "drain", only, **{"Idempotency-Key": "once"})
    await ready(only, 503)
    created = await only.create()
    session_id = created["session_id"]

    waited = await only.client.post(f"/v1/sessions/{session_id}/turns", json={"prompt": "Hello"})
    unheld = await holder(only, session_id)
    await told(only, "undrain", only)
    await ready(only, 200)
    view = await only.ended(session_id, waited.json()["turn_id"])
    again = await told(only, "drain", only, **{"Idempotency-Key": "once"})

    assert (waited.status_code, waited.json()["status"], unheld) == (202, "running", None)
    assert (view["status"], view["text"], view["attempt"]) == ("completed", "Paris.", 1)
    assert (again.status_code, again.json()["status"], again.headers["idempotency-replayed"]) == (202, "draining", "true")
    assert (await until(only, only, live_turns=0))["status"] == "ready"
