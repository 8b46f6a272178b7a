"""SIGTERM: readers are told, callers are answered, turns go on elsewhere; and all of it in under two seconds."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.api import raw
from tests.freezing import frozen
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EXIT_SECONDS = 2.0
IDLE_STREAMS = 20
QUESTIONS = 20


@pytest.fixture
def settings(double: ProviderDouble) -> dict[str, str]:
    """Settings of servers whose provider is the double."""
    return {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}


async def test_server_stops_in_time_with_idle_streams_a_waiting_caller_and_a_live_turn_which_goes_on(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble, settings: dict[str, str]
) -> None:
    before = await serve(**settings)
    await double.play([scripts.text("Lon"), scripts.endless(rate=50)], [scripts.text("Paris."), scripts.finish()])
    idle = (await before.create())["session_id"]
    live = (await before.create())["session_id"]
    readers = [Follower(idle) for _ in range(IDLE_STREAMS)] + [Follower(live)]

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(before.client.post(f"/v1/sessions/{live}/turns", json={"prompt": "Hello"}))
        await double.started(1)
        for reader in readers:
            tasks.create_task(reader.follow(before))
        async with asyncio.timeout(10):
            await asyncio.gather(*(reader.saw(1) for reader in readers))
        began = asyncio.get_running_loop().time()
        await before.terminate()
        took = asyncio.get_running_loop().time() - began

    assert took < EXIT_SECONDS
    assert all(reader.farewells == ["stream_draining"] for reader in readers)
    assert (waiting.result().status_code, waiting.result().json()["status"]) == (202, "running")
    assert (await double.ended(1)).closed_by_client_at is not None
    after = await serve(**settings)
    async with asyncio.timeout(10):
        await readers[-1].follow(after, until=["turn_completed"])
    readers[-1].assert_saw_everything(await after.log_of(live))
    assert readers[-1].count("turn_resumed") == 1
    assert readers[-1].data[-1]["text"] == "Paris."


async def test_caller_whose_request_outlasts_the_server_is_told_to_send_it_again(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble, settings: dict[str, str]
) -> None:
    service = await serve(**settings)
    said = (scripts.text("said " * 400), scripts.finish())
    await double.play(said, said, [scripts.hang()])
    path = f"/v1/sessions/{(await service.create())['session_id']}"
    for _ in range(2):
        await service.client.post(f"{path}/turns", json={"prompt": "Go on."})

    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(service.client.post(f"{path}/compact"))
        await double.received(3)
        await service.terminate()

    answer = asked.result()
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.headers["retry-after"]


async def test_farewell_has_no_id_and_the_body_ends_cleanly(
    serve: Callable[..., Awaitable[Service]], settings: dict[str, str]
) -> None:
    service = await serve(**settings)
    session_id = (await service.create())["session_id"]

    async with raw.connection(service.base_url) as (reader, writer), asyncio.timeout(10):
        writer.write(raw.request("GET", f"/v1/sessions/{session_id}/events", b"", b"accept: text/event-stream"))
        await reader.readuntil(b"session_created")
        await service.terminate()
        rest = await reader.read()

    assert b"event: stream_draining\ndata: {}\n\n" in rest
    assert rest.endswith(b"0\r\n\r\n")


async def test_turn_that_can_end_within_the_grace_ends_here(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble, settings: dict[str, str]
) -> None:
    before = await serve(**settings, SURICATE_SHUTDOWN_GRACE_SECONDS="5")
    await double.play([scripts.text("Par"), scripts.wait(0.3), scripts.text("is."), scripts.finish()])
    created = await before.create("Hello")
    await double.started(1)

    await before.terminate()

    after = await serve(**settings)
    view = await after.ended(created["session_id"], created["turn"]["turn_id"])
    assert (view["status"], view["text"], view["attempt"]) == ("completed", "Paris.", 1)


async def test_draining_server_says_that_it_is_not_ready(
    serve: Callable[..., Awaitable[Service]], settings: dict[str, str]
) -> None:
    service = await serve(**settings)
    before = await service.client.get("/readyz")

    async with raw.connection(service.base_url) as (reader, writer), asyncio.timeout(10):
        with frozen(service.process.pid):  # it stops behind its door for a moment alone: what it is asked then is there before
            writer.write(raw.request("GET", "/readyz") * QUESTIONS)
            await writer.drain()
            service.process.send_signal(signal.SIGTERM)
        while (answer := await raw.read(reader)).status == 200:
            pass
        status = await service.process.wait()

    assert (before.status_code, answer.status) == (200, 503)
    assert answer.json()["checks"] == before.json()["checks"] | {"open": False}
    assert status in {0, -signal.SIGTERM}


async def test_request_that_is_under_way_is_answered_before_the_door_closes(
    serve: Callable[..., Awaitable[Service]], settings: dict[str, str]
) -> None:
    service = await serve(**settings)
    follower = Follower((await service.create())["session_id"])
    async with raw.connection(service.base_url) as (reader, writer), asyncio.TaskGroup() as tasks:
        writer.write(raw.request("POST", "/v1/sessions", b"{}")[:-1])
        following = tasks.create_task(follower.follow(service))
        await follower.saw(1)
        tasks.create_task(service.terminate())
        await following

        writer.write(b"}")
        answered = await raw.read(reader)

    assert follower.farewells == ["stream_draining"]
    assert answered.status == 201
