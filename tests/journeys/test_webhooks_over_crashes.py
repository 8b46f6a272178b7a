"""A server is killed between an event and its delivery: whoever comes next tells it, and nothing is told of what never was."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.api.databases import fetch
from tests.hooks.receiver import Received, receiving, whole
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SESSIONS = 12
INSIDE = {"SURICATE_OUTBOUND_TENANTS_INSIDE": '["127.0.0.1"]', "SURICATE_OUTBOUND_HTTP": "true", "SURICATE_LEASE_SECONDS": "3"}


async def test_every_end_is_told_though_servers_are_killed_before_and_while_they_tell_it(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble, database_url: str
) -> None:
    """The first server is killed as soon as turns have ended; the second while its receiver keeps it waiting."""
    is_asked, is_up = asyncio.Event(), asyncio.Event()

    def take(_: Received) -> bytes:
        is_asked.set()
        return whole(b"", status="204 No Content") if is_up.is_set() else b""

    settings = INSIDE | {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    async with receiving(take, hangs=True) as receiver, asyncio.timeout(55):
        first = await serve(**settings)
        made = (await first.client.post("/v1/webhooks", json={"url": receiver.url})).json()
        await double.play(*[(scripts.text("Paris."), scripts.finish())] * SESSIONS)
        begun = await asyncio.gather(*(first.create("Where?") for _ in range(SESSIONS)))
        await asyncio.gather(*(first.ended(one["session_id"], one["turn"]["turn_id"]) for one in begun))
        await first.kill()
        second = await serve(**settings)
        await is_asked.wait()
        await second.kill()
        is_up.set()
        await fetch(database_url, "UPDATE webhook_deliveries SET due_at = clock_timestamp()")  # its claims run out

        third = await serve(**settings)
        path = f"/v1/webhooks/{made['webhook_id']}/deliveries?status=delivered"
        while len((await third.client.get(path)).json()["deliveries"]) < SESSIONS:
            await asyncio.sleep(0.1)

    told = {request.headers["webhook-id"]: request.payload["data"]["session_id"] for request in receiver.requests}
    assert sorted(told.values()) == sorted(one["session_id"] for one in begun)
