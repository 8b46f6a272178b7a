"""An attacker with a read-only key of another realm, who knows every id there is, over every route that the server names."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx2
import orjson
import pytest

from app.credentials import keys
from app.credentials.caller import Scope
from app.credentials.keys import NewKey
from app.db.engine import EVERY_REALM, Database
from tests.api.databases import TABLES
from tests.service import Service

pytestmark = pytest.mark.anyio

SECRET = "the-plans-of-the-victim"
MISSING = "0199c0de-0000-7000-8000-000000000000"
ACCEPTS = ("application/json", "text/event-stream")
BODIES: tuple[Any, ...] = ({}, {"prompt": "x"}, {"title": "x"}, {"decision": "allow"}, {"config": {}})
QUERIES = ("", "?follow=false", "?limit=1", "?q=plans", "?label=a:b", "?after=0", "?archived=any", "?events=true")


async def key_of(database: Database, realm: str, scope: Scope) -> dict[str, str]:
    """Make a key, and return the header that shows it."""
    async with database.transaction(realm) as db:
        return {"Authorization": f"Bearer {(await keys.create(db, NewKey(SECRET, [scope], None), by='test'))['key']}"}


async def victim(service: Service, key: Mapping[str, str]) -> dict[str, str]:
    """Live in a realm, and return the ids that an attacker may have heard of, by parameter."""
    ask = service.client.post
    started = await ask(
        "/v1/sessions", json={"prompt": SECRET, "title": SECRET, "labels": {"a": "b", "plan": SECRET}}, headers=key
    )
    session_id = started.json()["session_id"]
    hook = await ask("/v1/webhooks", json={"url": f"https://1.1.1.1/{SECRET}", "types": ["turn_completed"]}, headers=key)
    await service.client.put("/v1/realm/config", json={"config": {"system_prompt": SECRET}}, headers=key)
    own = (await service.client.get("/v1/keys", headers=key)).json()["keys"][0]
    assert (started.status_code, hook.status_code) == (201, 201), hook.text
    return {
        "session_id": session_id,
        "turn_id": started.json()["turn"]["turn_id"],
        "webhook_id": hook.json()["webhook_id"],
        "key_id": own["key_id"],
    }


def attempts(document: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, URL and body of all that is tried: each route, the victim's ids in each place."""
    for path, item in document["paths"].items():
        url = re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], MISSING), path)
        for method in item:
            if method == "get":
                yield from (("GET", url + query, {"headers": {"Accept": kind}}) for query in QUERIES for kind in ACCEPTS)
                yield "HEAD", url, {}
            elif method == "delete":
                yield "DELETE", url, {}
            else:
                yield from ((method.upper(), url, {"json": body}) for body in BODIES)


async def counted(database: Database) -> list[int]:
    """Count the rows of every table."""
    async with database.transaction(EVERY_REALM) as db:
        return [await db.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES if table != "stream_tickets"]


async def test_attacker_of_another_realm_learns_and_changes_nothing(
    serve: Callable[..., Awaitable[Service]], database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(
        SURICATE_RATE_PER_CREDENTIAL="0", SURICATE_RATE_PER_REALM="0", SURICATE_SCRIPTED_TOKENS_PER_SECOND="0"
    )
    known = await victim(service, await key_of(database, "victim", "admin"))
    attacker = await key_of(database, "attacker", "read")
    document, before, codes = (await service.client.get("/openapi.json")).json(), await counted(database), Counter[int]()

    for method, url, given in attempts(document, known):
        asked = {"headers": attacker | given.get("headers", {})} | {
            name: one for name, one in given.items() if name != "headers"
        }
        answer = await service.client.request(method, url, timeout=10, **asked)
        codes[answer.status_code] += 1
        assert_tells_nothing(answer, method, url)

    assert await counted(database) == before
    assert codes[500] == 0
    assert {code for code in codes if code >= 400} <= {400, 401, 403, 404, 405, 409, 422}
    with capsys.disabled():
        print(f"\n{codes.total():,} attempts over {len(document['paths'])} paths by an attacker of another realm, leaks 0")


def assert_tells_nothing(answer: httpx2.Response, method: str, url: str) -> None:
    """Hold one answer against what may not be in it."""
    told = answer.content + orjson.dumps(dict(answer.headers))
    assert SECRET.encode() not in told, (method, url)
    if answer.is_success:  # a list of the attacker's own, who has nothing
        assert not re.search(rb'"(session_id|turn_id|webhook_id|key_id)"', answer.content), (method, url)
