"""Requests with anything in them, made of the bad requests that are known: each is answered or closed, and none breaks it."""

import asyncio
import random
import re
from contextlib import suppress

import pytest

from tests.api import corpus, raw
from tests.fuzz.mutation import inputs
from tests.service import Service

pytestmark = pytest.mark.anyio

COUNT = 1_000
AT_ONCE = 24
MOST_BYTES = 4_096
SECONDS = 5.0
UNKNOWN = "00000000-0000-7000-8000-000000000000"
NOT_BROKEN = {501}  # a capability that this server does not have


async def test_no_bytes_get_a_mistake_of_the_server(impatient: Service) -> None:
    seeds = [raw.request("POST", "/v1/sessions", b'{"title": "a"}'), raw.request("GET", "/v1/sessions?limit=5&q=a")]
    seeds += [b"".join(case.pieces)[:MOST_BYTES].replace(b"{session}", UNKNOWN.encode()) for case in corpus.cases()]
    random.Random(1).shuffle(seeds)
    sent = iter(list(inputs(seeds, COUNT, seed=1)))
    statuses: list[int] = []

    async def client() -> None:
        for data in sent:
            statuses.extend(await answers(impatient, data))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(client())

    assert {status for status in statuses if status >= 500} <= NOT_BROKEN
    assert len(statuses) > COUNT / 2
    log = impatient.log.read_text()
    assert "request_crashed" not in log
    assert "Traceback" not in log
    assert (await impatient.client.get("/readyz")).status_code == 200


async def answers(service: Service, data: bytes) -> list[int]:
    """Send bytes and no more, and return the statuses of all that is answered before the server closes."""
    async with raw.connection(service.base_url) as (reader, writer), asyncio.timeout(SECONDS):
        got = b""
        with suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            got = await reader.read()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]
