"""The log as Server-Sent Events, down to the bytes."""

import asyncio
import re

import pytest

from tests.api import raw, shapes
from tests.api.conftest import PING_SECONDS
from tests.api.desk import ASYNC, Desk
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Frame, Service, read_frames

pytestmark = pytest.mark.anyio

SSE = {"Accept": "text/event-stream"}
SECONDS = 5.0


@pytest.fixture
async def desk(service: Service) -> Desk:
    """A session that has taken one turn."""
    desk = Desk(service, (await service.create())["session_id"])
    await desk.start("Hello")
    return desk


async def opened(service: Service, path: str, *lines: bytes) -> tuple[dict[str, str], bytes]:
    """Open a stream over a socket of its own; return its headers and the first bytes of its body."""
    async with raw.connection(service.base_url) as (reader, writer), asyncio.timeout(SECONDS):
        writer.write(raw.request("GET", path, b"", *lines))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        size = int(await reader.readuntil(b"\r\n"), 16)
        return dict(line.split(": ", 1) for line in head[1:-2]), await reader.readexactly(size)
    raise AssertionError


@pytest.mark.parametrize("accept", [b"accept: text/event-stream", b"accept: */*", b"x-no-accept: 1"])
async def test_stream_opens_at_once_with_retry_and_a_comment(service: Service, desk: Desk, accept: bytes) -> None:
    headers, first = await opened(service, f"{desk.path}/events?after=999999", accept)

    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert shapes.is_id(headers["x-request-id"])
    match = re.match(rb"retry: (\d+)\n: .*\n\n", first)
    assert match
    assert 1000 <= int(match[1]) <= 3000


async def test_retry_is_jittered(service: Service, desk: Desk) -> None:
    times = {re.findall(rb"retry: (\d+)", (await opened(service, f"{desk.path}/events"))[1])[0] for _ in range(10)}

    assert len(times) > 1


async def test_frames_have_id_event_and_one_line_of_data(service: Service, desk: Desk) -> None:
    answer = await service.client.get(f"{desk.path}/events?follow=false", headers=SSE)

    log = await service.log_of(desk.id)
    blocks = answer.text.split("\n\n")
    frames = [block.split("\n") for block in blocks if block.startswith("id:")]
    assert blocks[-1] == ""
    assert len(frames) == len(log)
    for lines, event in zip(frames, log, strict=True):
        assert lines[0] == f"id: {event['seq']}"
        assert lines[1] == f"event: {event['type']}"
        assert lines[2].startswith(f'data: {{"seq":{event["seq"]},"session_id":"{desk.id}"')
        assert len(lines) == 3


async def test_silent_stream_is_kept_alive_by_comments(service: Service, desk: Desk) -> None:
    began = asyncio.get_running_loop().time()
    comments = 0

    async with service.client.stream("GET", f"{desk.path}/events", headers=SSE) as answer, asyncio.timeout(SECONDS):
        async for line in answer.aiter_lines():
            comments += line == ": ping"
            if comments == 3:
                break

    assert asyncio.get_running_loop().time() - began >= 2 * PING_SECONDS


async def test_stream_stays_open_across_turns(service: Service, desk: Desk) -> None:
    async with service.client.stream("GET", f"{desk.path}/events", headers=SSE) as answer, asyncio.timeout(SECONDS):
        frames = read_frames(answer)
        seen: list[Frame] = []
        for turns in (1, 2, 3):
            while sum(frame.event == "turn_completed" for frame in seen) < turns:
                seen.append(await anext(frames))
            await desk.start("Next", ASYNC)

    await desk.log_at_rest()
    assert [frame.id for frame in seen] == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_stream_resumes_behind_the_cursor(service: Service, desk: Desk, how: str) -> None:
    log = await service.log_of(desk.id)
    headers = {} if how == "query" else {"Last-Event-ID": "3"}
    query = {"header": "", "query": "&after=3", "both": "&after=1"}[how]

    frames = await service.frames(f"{desk.path}/events?follow=false{query}", headers=headers)

    assert [frame.data for frame in frames] == log[3:]


async def test_every_cut_of_the_log_resumes_without_loss_or_double(service: Service, desk: Desk) -> None:
    log = await service.log_of(desk.id)

    for after in range(len(log) + 1):
        frames = await service.frames(f"{desk.path}/events?follow=false", after=after)

        assert [frame.data for frame in frames] == log[after:]


@pytest.mark.parametrize("beyond", [1, 1000, 10**17])
async def test_cursor_beyond_the_head_is_reset_to_the_head(service: Service, desk: Desk, beyond: int) -> None:
    head = (await service.log_of(desk.id))[-1]["seq"]
    after = {"Last-Event-ID": str(head + beyond)}
    async with service.client.stream("GET", f"{desk.path}/events", headers=SSE | after) as answer:
        frames = read_frames(answer)
        reset = await anext(frames)
        await desk.start("Next", ASYNC)
        following = await anext(frames)

    await desk.log_at_rest()
    assert (reset.id, reset.event, reset.data) == (None, "stream_reset", {"last_seq": head})
    assert (following.id, following.event) == (head + 1, "turn_started")


async def test_stream_without_follow_ends_at_the_head_also_while_a_turn_is_live(
    service: Service, double: ProviderDouble
) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"
    await service.frames(f"{path}/events", until=["text_delta"])

    async with asyncio.timeout(SECONDS):
        whole = await service.frames(f"{path}/events?follow=false")
        turn = await service.frames(f"{path}/turns/{created['turn']['turn_id']}/events?follow=false")

    assert [frame.event for frame in whole] == ["session_created", "turn_started", "step_started", "text_delta"]
    assert [frame.event for frame in turn] == ["turn_started", "step_started", "text_delta"]
    await service.client.post(f"{path}/interrupt")


async def test_filtered_stream_shows_what_passes_as_it_happens(service: Service, desk: Desk) -> None:
    query = "types=turn_started,text_complete"
    async with service.client.stream("GET", f"{desk.path}/events?{query}", headers=SSE) as answer, asyncio.timeout(SECONDS):
        frames = read_frames(answer)
        replayed = [await anext(frames), await anext(frames)]
        turn_id = (await desk.start("Next")).json()["turn_id"]
        live = [await anext(frames), await anext(frames)]

    assert [frame.event for frame in replayed + live] == ["turn_started", "text_complete"] * 2
    assert {frame.data["turn_id"] for frame in live} == {turn_id}


async def test_stream_of_one_turn_by_query_shows_that_turn_alone(service: Service, desk: Desk) -> None:
    turn_id = (await desk.start("Next")).json()["turn_id"]

    frames = await service.frames(f"{desk.path}/events?follow=false&turn_id={turn_id}&scope=primary")

    assert {frame.data["turn_id"] for frame in frames} == {turn_id}
    assert await service.frames(f"{desk.path}/events?follow=false&scope=mob:nobody") == []


async def test_stream_of_a_turn_ends_after_its_terminal_event(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.wait(0.2), scripts.finish()])
    turn_id = (await desk.start("Next", ASYNC)).json()["turn_id"]

    async with asyncio.timeout(SECONDS):
        live = await service.frames(f"{desk.path}/turns/{turn_id}/events")
        after = await service.frames(f"{desk.path}/turns/{turn_id}/events")
        filtered = await service.frames(f"{desk.path}/turns/{turn_id}/events?types=text_delta")

    assert live == after
    assert (live[0].event, live[-1].event) == ("turn_started", "turn_completed")
    assert [frame.event for frame in filtered] == ["text_delta"]


async def test_filtered_stream_of_a_live_turn_ends_with_the_turn(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.wait(0.2), scripts.finish()])
    turn_id = (await desk.start("Next", ASYNC)).json()["turn_id"]

    async with asyncio.timeout(SECONDS):
        filtered = await service.frames(f"{desk.path}/turns/{turn_id}/events?types=text_delta")

    assert [frame.event for frame in filtered] == ["text_delta"]


async def test_reader_that_has_everything_of_an_ended_turn_gets_204(service: Service, desk: Desk) -> None:
    view = (await desk.start("Next")).json()
    path = f"{desk.path}/turns/{view['turn_id']}/events"

    done = await service.client.get(path, headers=SSE | {"Last-Event-ID": str(view["last_seq"])})
    rest = await service.frames(path, after=view["last_seq"] - 1)

    assert (done.status_code, done.content) == (204, b"")
    assert [frame.event for frame in rest] == ["turn_completed"]


async def test_head_answers_the_headers_of_the_stream_and_of_the_page(service: Service, desk: Desk) -> None:
    turn_id = (await desk.turns())["turns"][0]["turn_id"]

    async with asyncio.timeout(SECONDS):
        for path in (f"{desk.path}/events", f"{desk.path}/turns/{turn_id}/events"):
            stream = await service.client.head(path, headers=SSE)
            page = await service.client.head(path, headers={"Accept": "application/json"})

            assert (stream.status_code, stream.content, page.status_code, page.content) == (200, b"", 200, b"")
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
            assert page.headers["content-type"] == "application/json"
        assert (await service.client.head(f"/v1/sessions/{turn_id}/events")).status_code == 404


async def test_hundred_readers_of_one_turn_see_the_same(service: Service, desk: Desk, double: ProviderDouble) -> None:
    await double.play([scripts.tokens(50, rate=500), scripts.finish()])
    turn_id = (await desk.start("Next", ASYNC)).json()["turn_id"]
    path = f"{desk.path}/turns/{turn_id}/events"

    seen = await asyncio.gather(*(service.frames(path) for _ in range(100)))

    assert all(frames == seen[0] for frames in seen)
    assert [frame.data for frame in seen[0]] == [
        event for event in await service.log_of(desk.id) if event["turn_id"] == turn_id
    ]


async def test_connection_serves_the_next_request_after_a_stream_has_ended(service: Service, desk: Desk) -> None:
    async with raw.connection(service.base_url) as (reader, writer), asyncio.timeout(SECONDS):
        writer.write(raw.request("GET", f"{desk.path}/events?follow=false", b"", b"accept: text/event-stream"))
        await reader.readuntil(b"\r\n0\r\n\r\n")

        writer.write(raw.request("GET", "/livez"))
        assert (await raw.read(reader)).status == 200
