"""Limits from outside: on two nodes at once, with a key, and what the answers say."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.credentials import keys
from app.credentials.keys import NewKey
from app.db.engine import Database
from tests.service import Service

pytestmark = pytest.mark.anyio

STREAM = {"Accept": "text/event-stream"}


async def key_of(database: Database, realm: str) -> dict[str, str]:
    """Make a key, and return the header that shows it."""
    async with database.transaction(realm) as db:
        made = await keys.create(db, NewKey("x", ["write"], None), by="test")
    return {"Authorization": f"Bearer {made['key']}"}


async def test_requests_are_counted_over_nodes_and_the_answers_say_so(
    serve: Callable[..., Awaitable[Service]], database: Database
) -> None:
    one, other = await key_of(database, "one"), await key_of(database, "other")
    here, there = [await serve(SURICATE_RATE_PER_CREDENTIAL="1", SURICATE_RATE_PER_REALM="2") for _ in range(2)]

    asked = [node.client.get("/v1/sessions", headers=one) for node in (here, there) * 5]
    answers = [await asked[0], *await asyncio.gather(*asked[1:5]), *await asyncio.gather(*asked[5:])]
    strangers = await here.client.get("/v1/sessions", headers=other)

    codes = [answer.status_code for answer in answers]
    assert codes[:5] == [200] * 5
    assert codes.count(429) >= 3
    assert answers[0].headers["ratelimit-policy"] == '"credential";q=5;w=5'
    assert answers[0].headers["ratelimit"] == '"credential";r=4;t=5'
    refused = answers[codes.index(429)]
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("RATE_LIMITED", "1")
    assert strangers.status_code == 200


async def test_realm_that_has_enough_gets_no_more_and_other_realms_do(
    serve: Callable[..., Awaitable[Service]], database: Database
) -> None:
    one, other = await key_of(database, "one"), await key_of(database, "other")
    service = await serve(SURICATE_REALM_LIVE_TURNS="1", SURICATE_REALM_STREAMS="1", SURICATE_SCRIPTED_TOKENS_PER_SECOND="1")
    asynchronous = {"Prefer": "respond-async"}

    first = await service.client.post("/v1/sessions", json={"prompt": "x"}, headers=one | asynchronous)
    events = f"/v1/sessions/{first.json()['session_id']}/events"
    turns = [
        await service.client.post("/v1/sessions", json={"prompt": "x"}, headers=key | asynchronous) for key in (one, other)
    ]
    async with service.client.stream("GET", events, headers=one | STREAM) as stream:
        streams = [
            await service.client.get(events, headers=one | STREAM),
            await service.client.post("/v1/sessions", json={"prompt": "x"}, headers=one | STREAM),
        ]
        page = await service.client.get(events, headers=one | {"Accept": "application/json"})

    assert [answer.status_code for answer in (first, *turns)] == [201, 429, 201]
    assert (stream.status_code, page.status_code) == (200, 200)
    for refused in (turns[0], *streams):
        assert (refused.status_code, refused.json()["code"]) == (429, "CAPACITY_EXCEEDED")
        assert int(refused.headers["retry-after"]) > 0
