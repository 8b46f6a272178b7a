"""Postgres gone and back again, as clients see it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api import shapes
from tests.journal.cable import Cable, cable_to
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

ANSWER_SECONDS = 10.0
BACK_SECONDS = 20.0


@pytest.fixture
async def cable(database_url: str) -> AsyncIterator[Cable]:
    """The one way from the server to its database."""
    async with cable_to(database_url) as laid:
        yield laid


@pytest.fixture
async def service(cable: Cable, double: ProviderDouble, tmp_path: Path) -> AsyncIterator[Service]:
    """A server behind the cable."""
    settings = {"SURICATE_DATABASE_URL": cable.dsn, "SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url}
    async with Service.started(tmp_path, settings) as started:
        yield started


def cut(cable: Cable) -> None:
    """Take Postgres away."""
    cable.is_refusing = True
    cable.cut()


async def restored(cable: Cable, service: Service) -> None:
    """Give Postgres back and wait until the server is ready."""
    cable.is_refusing = False
    async with asyncio.timeout(BACK_SECONDS):
        while (await service.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_routes_answer_503_with_retry_after_while_postgres_is_gone(service: Service, cable: Cable) -> None:
    created = await service.create()
    path = f"/v1/sessions/{created['session_id']}"
    cut(cable)

    async with asyncio.timeout(ANSWER_SECONDS):
        answers = [
            await service.client.request(method, route, headers={"Accept": "application/json"}, json=body)
            for method, route, body in (
                ("GET", path, None),
                ("GET", "/v1/sessions", None),
                ("POST", "/v1/sessions", {"prompt": "Hello"}),
                ("POST", f"{path}/turns", {"prompt": "Hello"}),
                ("PATCH", path, {"title": "New"}),
                ("DELETE", path, None),
                ("POST", f"{path}/interrupt", None),
                ("GET", f"{path}/events", None),
            )
        ]
        ready, alive = await service.client.get("/readyz"), await service.client.get("/livez")
        metrics = await service.client.get("/metrics")

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "SESSION_STORE_ERROR")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, False)
    assert (alive.status_code, metrics.status_code) == (200, 200)
    await restored(cable, service)
    assert (await service.client.get(path)).json()["state"]["title"] is None
    assert len((await service.client.get("/v1/sessions")).json()["sessions"]) == 1


async def test_live_turn_and_its_reader_outlast_a_short_outage(service: Service, cable: Cable, double: ProviderDouble) -> None:
    await double.play([scripts.tokens(60, rate=60), scripts.finish()])
    created = await service.create("Hello")
    follower = Follower(created["session_id"])
    await follower.follow(service, most=8)

    cut(cable)
    await restored(cable, service)
    async with asyncio.timeout(BACK_SECONDS):
        while not follower.count("turn_completed"):
            await follower.follow(service, until=["turn_completed"])

    log = await service.log_of(created["session_id"])
    follower.assert_saw_everything(log)
    assert (await service.client.get(f"/v1/sessions/{created['session_id']}")).json()["state"]["is_active"] is False


async def test_broken_connections_alone_are_not_seen_by_readers(service: Service, cable: Cable, double: ProviderDouble) -> None:
    await double.play([scripts.tokens(180, rate=60), scripts.finish()])
    created = await service.create("Hello")
    follower = Follower(created["session_id"])

    async with asyncio.timeout(BACK_SECONDS), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follower.follow(service, until=shapes.TERMINAL))
        for _ in range(3):
            await follower.saw(3)  # few, since a busy node joins what waits for a commit
            cable.cut()
        await following
        while not follower.count("turn_completed"):
            await follower.follow(service, until=shapes.TERMINAL)

    follower.assert_saw_everything(await service.log_of(created["session_id"]))
