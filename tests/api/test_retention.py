"""A log whose deltas are gone is read, followed and exported like any other; its numbers have gaps."""

from datetime import timedelta

import httpx2
import pytest

from app import clock
from app.db.engine import EVERY_REALM, Database
from app.journal import retention
from app.journal.types import DELTAS
from tests.api.desk import Desk
from tests.api.talk import export, fork, talked
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

STREAM = {"Accept": "text/event-stream"}
PAGE = {"Accept": "application/json"}


@pytest.fixture
async def talk(service: Service, double: ProviderDouble, api_database_url: str) -> Desk:
    """A session of two turns whose deltas are gone."""
    talk = await talked(service, double)
    database = Database(api_database_url, pool_size=2)
    await database.connect()
    async with database.transaction(EVERY_REALM) as db:
        assert (await retention.trim(db, before=clock.now() + timedelta(minutes=1), turns=10_000, events=10_000)).events >= 3
    await database.aclose()
    return talk


async def test_pages_and_streams_pass_over_what_is_gone(talk: Desk, service: Service) -> None:
    log = await service.log_of(talk.id)
    numbers, head = [event["seq"] for event in log], log[-1]["seq"]
    turn = (await talk.turns())["turns"][0]
    gone = next(seq for seq in range(1, head) if seq not in numbers)

    assert len(numbers) < head
    assert DELTAS.isdisjoint(event["type"] for event in log)
    for after in (0, gone - 1, gone, head - 1):
        rest = [seq for seq in numbers if seq > after]
        page = (await service.client.get(f"{talk.path}/events?after={after}&limit=2", headers=PAGE)).json()
        assert ([event["seq"] for event in page["events"]], page["last_seq"]) == (rest[:2], head)
        assert page["next_after"] == rest[:2][-1]
        frames = await service.frames(f"{talk.path}/events?follow=false", after=after)
        assert [frame.id for frame in frames] == rest
    only = (await service.client.get(f"{talk.path}/events?types=text_delta", headers=PAGE)).json()
    assert (only["events"], only["next_after"]) == ([], 0)
    shown = await service.frames(f"{talk.path}/turns/{turn['turn_id']}/events")
    assert [frame.id for frame in shown] == [seq for seq in numbers if turn["first_seq"] <= seq <= turn["last_seq"]]


async def test_head_and_the_end_of_reading_are_as_ever(talk: Desk, service: Service) -> None:
    head = (await service.client.get(talk.path)).json()["state"]["last_seq"]
    turn = (await talk.turns())["turns"][-1]
    answers = [await _asked(service, f"{talk.path}/events", head, method="HEAD")]
    answers += [await _asked(service, f"{talk.path}/turns/{turn['turn_id']}/events", turn["last_seq"])]
    reset = await service.frames(f"{talk.path}/events?follow=false", after=head + 5)
    await service.client.post(f"{talk.path}/archive")
    answers += [await _asked(service, f"{talk.path}/events", head + 1)]

    assert [answer.status_code for answer in answers] == [200, 204, 204]
    assert [(frame.id, frame.event, frame.data) for frame in reset] == [(None, "stream_reset", {"last_seq": head})]


async def test_copies_and_turns_to_come_are_as_ever(talk: Desk, service: Service, double: ProviderDouble) -> None:
    document = await export(talk, "events=true")
    copied = await fork(talk)
    before = await service.log_of(talk.id)
    later = (await talk.start("And now?")).json()

    assert document["events"] == before
    assert copied.status_code == 201
    assert (await service.log_of(talk.id))[: len(before)] == before
    assert later["first_seq"] == before[-1]["seq"] + 1


async def _asked(service: Service, path: str, after: int, method: str = "GET") -> httpx2.Response:
    return await service.client.request(method, f"{path}?after={after}", headers=STREAM)
