"""Clients that owe: nothing waits for them longer than it should, and nothing else is hurt by that."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app import clock
from tests.api import raw
from tests.api.conftest import REQUEST_SECONDS as LIMIT
from tests.api.raw import Answer
from tests.service import Service

pytestmark = pytest.mark.anyio

LATE = 5.0  # a machine that is busy is slower than the limit; none is so slow
HEAD = b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


async def owed(service: Service, *pieces: bytes, pause: float = 0.05) -> tuple[Answer | None, float]:
    """Send pieces with pauses, the last again and again, until the server has had enough; its answer and after how long."""
    began = clock.monotonic()
    async with raw.connection(service.base_url) as (reader, writer), asyncio.timeout(LATE):
        async with asyncio.TaskGroup() as tasks:
            dripping = tasks.create_task(_drip(writer, pieces, pause))
            whole = await reader.read()
            dripping.cancel()
        took = clock.monotonic() - began
    if not whole:
        return None, took
    ready = asyncio.StreamReader()
    ready.feed_data(whole)
    ready.feed_eof()
    return await raw.read(ready), took


async def _drip(writer: asyncio.StreamWriter, pieces: Sequence[bytes], pause: float) -> None:
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    while pieces and not writer.is_closing():
        writer.write(pieces[-1])
        await asyncio.sleep(pause)


async def test_client_that_says_nothing_is_closed_without_a_word(impatient: Service) -> None:
    answers = await asyncio.gather(*(owed(impatient) for _ in range(20)))

    assert {answer for answer, _ in answers} == {None}
    assert min(took for _, took in answers) >= LIMIT * 0.9


async def test_head_and_body_that_trickle_get_408_and_store_nothing(impatient: Service) -> None:
    before = (await impatient.client.get("/v1/sessions")).json()["sessions"]

    answers = await asyncio.gather(
        owed(impatient, b"GET /", b"a"),
        owed(impatient, HEAD, b"x-a: b\r\n"),
        owed(impatient, HEAD + b"x-a: ", b"b"),
        owed(impatient, HEAD + b"content-length: 99\r\n\r\n", b""),
        owed(impatient, HEAD + b"content-length: 99\r\n\r\n{}", b" "),
        owed(impatient, HEAD + b"content-length: 999999\r\n\r\n{" + b" " * 100_000, b" "),
        owed(impatient, HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        owed(impatient, HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b""),
        owed(impatient, HEAD + b"expect: 100-continue\r\ncontent-length: 9\r\nx-no: answer-to-it\r\n", b""),
    )

    for answer, took in answers:
        assert answer is not None
        assert (answer.status, answer.json()["code"]) == (408, "REQUEST_TIMEOUT")
        assert (answer.headers["content-type"], answer.headers["connection"]) == ("application/problem+json", "close")
        assert LIMIT * 0.9 <= took < LATE
    assert (await impatient.client.get("/v1/sessions")).json()["sessions"] == before
    assert "request_crashed" not in impatient.log.read_text()
    assert impatient.log.read_text().count('"REQUEST_TIMEOUT"') >= len(answers)


async def test_body_that_takes_long_but_comes_is_read(impatient: Service) -> None:
    pieces = [b'{"title": "long"', *[b" " * 32_768] * 12, b"}"]

    async with raw.connection(impatient.base_url) as (reader, writer), asyncio.timeout(LATE * 2):
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % sum(map(len, pieces)))
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(LIMIT / 5)
        answer = await raw.read(reader)

    assert (answer.status, answer.json()["session"]["state"]["title"]) == (201, "long")


async def test_who_owes_nothing_may_wait(impatient: Service) -> None:
    slow = {"model": "scripted", "prompt": "Hello", "provider_params": {"tokens": 200}}

    async def between_requests() -> int:
        async with raw.connection(impatient.base_url) as (reader, writer):
            for _ in range(2):
                writer.write(raw.request("GET", "/v1/sessions?limit=0"))
                assert (await raw.read(reader)).status == 200
                await asyncio.sleep(LIMIT * 2)
            writer.write(raw.request("GET", "/livez"))
            return (await raw.read(reader)).status

    async def for_an_answer() -> str:
        turn: str = (await impatient.client.post("/v1/sessions", json=slow)).json()["turn"]["status"]
        return turn

    async def on_a_stream() -> str:
        headers = {"Accept": "text/event-stream"}
        return (await impatient.frames("/v1/sessions", method="POST", json=slow, headers=headers))[-1].event

    status, turn, last = await asyncio.gather(between_requests(), for_an_answer(), on_a_stream())
    assert (status, turn, last) == (200, "completed", "turn_completed")


@pytest.mark.parametrize(
    ("rest", "status"),
    [(b"GET /livez HT", 408), (b"\r\n", 408), (raw.request("POST", "/none", b"{}")[:-1], 404)],
    ids=["half a head", "line ends", "half a body that nobody wants"],
)
async def test_next_request_of_a_connection_is_owed_once_it_has_begun(impatient: Service, rest: bytes, status: int) -> None:
    async with raw.connection(impatient.base_url) as (reader, writer), asyncio.timeout(LATE):
        writer.write(raw.request("GET", "/livez"))
        assert (await raw.read(reader)).status == 200

        writer.write(rest)
        answer = await raw.read(reader)

        assert answer.status == status
        assert await reader.read() == b""


async def test_half_a_request_behind_one_that_waits_gets_no_answer_of_its_own(impatient: Service) -> None:
    created = await impatient.create(model="scripted", provider="scripted", provider_params={"tokens": 100_000})
    path = f"/v1/sessions/{created['session_id']}"

    async with raw.connection(impatient.base_url) as (reader, writer), asyncio.timeout(LATE):
        writer.write(raw.request("POST", f"{path}/turns", b'{"prompt": "Hello"}') + b"GET /livez")
        assert await reader.read() == b""

    assert (await impatient.client.post(f"{path}/interrupt")).status_code == 200


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        (b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-a: ", b"a"),
        (b"GET /livez HTTP/1.1\r\nhost: localhost\r\n", b"x-a: b\r\n"),
        (b"GET /", b"a"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x-a: b\r\n"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1;", b"a"),
    ],
    ids=["one header", "headers", "a path", "trailers", "a chunk's extension"],
)
async def test_head_without_an_end_is_refused_before_the_server_has_kept_much(
    service: Service, begun: bytes, endless: bytes
) -> None:
    answer = await raw.ask(service.base_url, begun, endless * (700_000 // len(endless)))

    assert (answer.status, answer.json()["code"]) == (431, "HEADERS_TOO_LARGE")


async def test_client_that_leaves_in_the_middle_of_a_body_is_no_mistake_of_the_server(
    impatient: Service,
) -> None:
    async with raw.connection(impatient.base_url) as (_, writer):
        writer.write(HEAD + b"content-length: 9\r\n\r\n{")
        await writer.drain()
    async with asyncio.timeout(LATE):
        while '"status": 408' not in (told := impatient.log.read_text()) and '"status":408' not in told:
            await asyncio.sleep(0.02)

    assert "request_crashed" not in told
    assert "Traceback" not in told


async def test_house_that_is_full_says_so_and_takes_the_next_when_one_has_left(serve: Callable[..., Any]) -> None:
    service: Service = await serve(SURICATE_MAX_CONNECTIONS="5")
    alive = raw.request("GET", "/livez")

    async with AsyncExitStack() as stack, asyncio.timeout(LATE):
        for _ in range(6):
            await stack.enter_async_context(raw.connection(service.base_url))
        refused = await raw.ask(service.base_url, raw.request("POST", "/v1/sessions", b"{}"))
        await stack.aclose()
        while (answer := await raw.ask(service.base_url, alive)).status != 200:
            await asyncio.sleep(0.02)

    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (429, "CAPACITY_EXCEEDED", "1")
    assert answer.status == 200
