"""Two servers on one database."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.api import shapes
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

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
    await here.kill()

    await there.client.post(f"{path}/interrupt")

    assert (await there.ended(created["session_id"], queued["turn_id"]))["status"] == "completed"
