"""Who may what, from outside: every route of the OpenAPI document with every kind of credential, and with another realm's ids.

The routes are read off the document that the server itself gives, so that one that is added is tried too.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import pytest

from app import clock
from app.credentials import gate, keys
from app.credentials.keys import NewKey
from app.db.engine import Database
from tests.api import raw
from tests.api.databases import fresh_database
from tests.api.test_openapi import document
from tests.service import Service

pytestmark = pytest.mark.anyio

SCOPES = ("read", "write", "admin")
STREAM = {"Accept": "text/event-stream"}
MISSING = "0199c0de-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Walled:
    """A server that asks for credentials, and keys of two realms besides the operator's."""

    service: Service
    keys: Mapping[str, str]

    async def ask(self, key: str | None, method: str, path: str, **given: Any) -> Any:
        """Make a request with one of the keys, by its name."""
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys.get(key, key)}"}
        return await self.service.client.request(method, path, headers=headers | given.pop("headers", {}), **given)

    async def create(self, key: str, **fields: Any) -> dict[str, Any]:
        """Make a session, and return it."""
        answer = await self.ask(key, "POST", "/v1/sessions", json=fields)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created


@pytest.fixture(scope="module")
async def walled(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Walled]:
    """One such server for the module."""
    async with fresh_database(postgres) as url:
        database = Database(url, pool_size=2)
        await database.connect()
        made = {}
        for realm in ("acme", "rival", "default"):
            async with database.transaction(realm) as db:
                for scope in SCOPES:
                    made[f"{realm}:{scope}"] = (await keys.create(db, NewKey(scope, [scope], None), by="test"))["key"]  # type: ignore[list-item]
                ended = NewKey("ended", ["admin"], clock.now() - timedelta(seconds=1))
                made[f"{realm}:ended"] = (await keys.create(db, ended, by="test"))["key"]
        await database.aclose()
        settings = {"SURICATE_DATABASE_URL": url, "SURICATE_SCRIPTED_TOKENS_PER_SECOND": "0", "SURICATE_HOST": "127.0.0.1"}
        async with Service.started(tmp_path_factory.mktemp("walled"), settings) as service:
            yield Walled(service, made)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return method, path and operation of every route that needs a credential."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            if operation["security"]:
                yield method.upper(), path, operation


def need(operation: Mapping[str, Any]) -> str:
    """Return what a route needs, as the document says."""
    [allowed] = operation["security"][0]["bearer"]
    return str(allowed)


ROUTES = [pytest.param(method, path, need(operation), id=f"{method} {path}") for method, path, operation in operations()]


def filled(path: str, value: str = MISSING) -> str:
    """Put an id for each of a path's parameters."""
    return re.sub(r"\{\w+\}", value, path)


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
async def test_route_refuses_who_may_not(walled: Walled, method: str, path: str, needed: str) -> None:
    strangers = [None, "x", keys.make(), walled.keys["acme:admin"][:-1], "acme:ended", "sut_x", "e30.e30.e30"]
    unknown = [await walled.ask(key, method, filled(path)) for key in strangers]
    basic = await walled.service.client.request(method, filled(path), headers={"Authorization": "Basic YTpi"})
    held = SCOPES if needed == "operator" else SCOPES[: SCOPES.index(needed)]
    weak = [await walled.ask(f"acme:{scope}", method, filled(path)) for scope in held]

    assert [(answer.status_code, answer.json()["code"]) for answer in [*unknown, basic]] == [(401, "UNAUTHENTICATED")] * 8
    assert all(answer.headers["www-authenticate"] == "Bearer" for answer in unknown)
    assert [(answer.status_code, answer.json()["code"]) for answer in weak] == [(403, "FORBIDDEN")] * len(held)


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
async def test_route_lets_in_who_may(walled: Walled, method: str, path: str, needed: str) -> None:
    realm, scope = ("default", "admin") if needed == "operator" else ("acme", needed)
    answer = await walled.ask(f"{realm}:{scope}", method, filled(path))

    assert answer.status_code not in {401, 403, 500}


async def test_health_needs_no_credential(walled: Walled) -> None:
    for path in ("/livez", "/readyz", "/openapi.json", "/docs"):
        assert (await walled.ask(None, "GET", path)).status_code == 200


OWN = [parameter for parameter in ROUTES if "{session_id}" in str(parameter.values[1])]


@pytest.mark.parametrize(("method", "path", "needed"), OWN)
async def test_foreign_session_answers_like_one_that_never_was(walled: Walled, method: str, path: str, needed: str) -> None:
    created = await walled.create("acme:write", prompt="hello")
    foreign = path.replace("{session_id}", created["session_id"]).replace("{turn_id}", created["turn"]["turn_id"])
    body = {"json": BODIES.get((method, path.rpartition("/")[2]), {})} if method in {"POST", "PATCH"} else {}

    seen = await walled.ask("rival:admin", method, filled(foreign), **body)
    never = await walled.ask("rival:admin", method, filled(path), **body)
    after = await walled.ask("acme:read", "GET", f"/v1/sessions/{created['session_id']}")

    assert (seen.status_code, seen.json()["code"]) == (404, "SESSION_NOT_FOUND"), seen.text
    assert (seen.status_code, seen.content) == (never.status_code, never.content)
    assert after.json()["state"]["last_seq"] == 1 + created["turn"]["last_seq"] - created["turn"]["first_seq"] + 1


BODIES: dict[tuple[str, str], Any] = {
    ("POST", "turns"): {"prompt": "x"},
    ("POST", "tool_results"): {"results": [{"tool_call_id": "x", "content": "y"}]},
    ("POST", "{tool_call_id}"): {"decision": "allow"},
    ("PATCH", "{turn_id}"): {"prompt": "x"},
    ("PATCH", "{session_id}"): {"title": "x"},
}
"""What requests need so that it is the session, not the body, that is refused."""


async def test_lists_and_settings_of_realms_are_apart(walled: Walled) -> None:
    mine = await walled.create("acme:write", title="only mine", labels={"a": "b"})
    await walled.ask("acme:admin", "PUT", "/v1/realm/config", json={"config": {"system_prompt": "acme's"}})

    for query in ("", "?q=only", "?label=a:b", "?archived=any", "?order=-created_at"):
        own, other = [await walled.ask(f"{realm}:read", "GET", f"/v1/sessions{query}") for realm in ("acme", "rival")]
        assert mine["session_id"] in {session["session_id"] for session in own.json()["sessions"]}
        assert mine["session_id"] not in {session["session_id"] for session in other.json()["sessions"]}
    assert (await walled.ask("rival:read", "GET", "/v1/realm/config")).json()["config"] == {}
    own, other = [(await walled.ask(f"{realm}:admin", "GET", "/v1/keys")).json()["keys"] for realm in ("acme", "rival")]
    assert not {key["key_id"] for key in own} & {key["key_id"] for key in other}


async def test_idempotency_keys_of_realms_are_apart(walled: Walled) -> None:
    headers = {"Idempotency-Key": "the-same"}
    one, other = [
        await walled.ask(f"{realm}:write", "POST", "/v1/sessions", json={"title": realm}, headers=headers)
        for realm in ("acme", "rival")
    ]

    assert (one.status_code, other.status_code) == (201, 201)
    assert one.json()["session_id"] != other.json()["session_id"]
    assert "idempotency-replayed" not in other.headers


async def test_ticket_opens_its_sessions_events_again_and_again_and_nothing_else(walled: Walled) -> None:
    mine, other = await walled.create("acme:write", prompt="hello"), await walled.create("acme:write")
    events, turn = f"/v1/sessions/{mine['session_id']}/events", mine["turn"]["turn_id"]
    made = await walled.ask("acme:read", "POST", f"/v1/sessions/{mine['session_id']}/stream-tickets", json={"seconds": 60})
    ticket = {"ticket": made.json()["ticket"], "follow": "false"}

    shown = [await walled.ask(None, "GET", events, params=ticket, headers=STREAM) for _ in range(3)]
    of_turn = await walled.ask(None, "GET", events.replace("/events", f"/turns/{turn}/events"), params=ticket, headers=STREAM)
    elsewhere = await walled.ask(None, "GET", f"/v1/sessions/{other['session_id']}/events", params=ticket)
    never = await walled.ask(None, "GET", f"/v1/sessions/{MISSING}/events", params=ticket)
    refused = [await walled.ask(None, "GET", path, params=ticket) for path in ("/v1/sessions", events.removesuffix("/events"))]

    assert made.status_code == 201
    assert [answer.status_code for answer in shown] == [200] * 3
    assert all("event: turn_completed" in answer.text for answer in [*shown, of_turn])
    assert (elsewhere.status_code, elsewhere.content) == (403, never.content)
    assert [answer.status_code for answer in refused] == [401, 401]


async def test_repeat_of_asking_for_a_ticket_gets_the_same_one_and_no_other_key_does(walled: Walled) -> None:
    mine = await walled.create("acme:write", prompt="hello")
    path, headers = f"/v1/sessions/{mine['session_id']}/stream-tickets", {"Idempotency-Key": "one-ticket"}

    first, again, other = [
        await walled.ask(key, "POST", path, headers=headers) for key in ("acme:read", "acme:read", "acme:write")
    ]
    tickets = [answer.json()["ticket"] for answer in (first, other)]
    shown = [
        await walled.ask(None, "GET", f"{path.rpartition('/')[0]}/events", params={"ticket": one, "follow": "false"})
        for one in tickets
    ]

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert tickets[0] != tickets[1]
    assert [answer.status_code for answer in shown] == [200, 200]


@pytest.mark.parametrize("ticket", ["x", "sut_x", "", "%00", "%ff", "é"])
async def test_ticket_that_was_never_given_opens_nothing(walled: Walled, ticket: str) -> None:
    path = f"/v1/sessions/{MISSING}/events?ticket={ticket}"
    answer = await raw.ask(walled.service.base_url, raw.request("GET", path))

    assert answer.status in {400, 401}


async def test_long_lived_credentials_in_a_url_are_refused_and_no_log_has_them(walled: Walled) -> None:
    mine = await walled.create("acme:write", prompt="hello")
    key = walled.keys["acme:read"]
    for name in ("ticket", "key", "api_key", "token", "access_token"):
        answer = await walled.ask(None, "GET", f"/v1/sessions/{mine['session_id']}/events", params={name: key})
        assert answer.status_code == 401

    log = walled.service.log.read_text(encoding="utf-8")
    assert "/events" in log
    assert not any(secret in log for secret in walled.keys.values())


async def test_keys_are_made_used_and_revoked_and_their_streams_end(walled: Walled, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = await walled.create("acme:write")
    made = await walled.ask("acme:admin", "POST", "/v1/keys", json={"name": "for a while", "scopes": ["read"]})
    key, events = made.json(), f"/v1/sessions/{mine['session_id']}/events"

    async with asyncio.timeout(30):
        request = walled.service.client.stream("GET", events, headers=STREAM | {"Authorization": f"Bearer {key['key']}"})
        async with request as answer:
            revoked = await walled.ask("acme:admin", "DELETE", f"/v1/keys/{key['key_id']}")
            seen = [chunk async for chunk in answer.aiter_bytes()]
    later = await walled.ask(key["key"], "GET", "/v1/sessions")

    assert (made.status_code, answer.status_code, revoked.status_code) == (201, 200, 200)
    assert b"session_created" in b"".join(seen)
    assert later.status_code == 401
    assert gate.LOOK_SECONDS * 2 + gate.BELIEVED_SECONDS < 30


async def test_repeat_of_making_a_key_makes_none_and_shows_no_secret(walled: Walled) -> None:
    headers, body = {"Idempotency-Key": "make-one"}, {"name": "once", "scopes": ["read"]}
    first, again = [await walled.ask("acme:admin", "POST", "/v1/keys", json=body, headers=headers) for _ in range(2)]

    assert first.json()["key"].startswith("sur_")
    assert again.json() == first.json() | {"key": None}
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("realm", ["", "*", "Acme", "\u00cdacme", "a acme", "acme\n", "acme\u0000", "a" * 64])
async def test_realm_that_has_no_such_name_gets_no_key(walled: Walled, realm: str) -> None:
    answer = await walled.ask("default:admin", "POST", "/v1/keys", json={"name": "x", "scopes": ["read"], "realm": realm})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


async def test_only_an_operator_makes_keys_for_another_realm(walled: Walled) -> None:
    body = {"name": "x", "scopes": ["admin"], "realm": "rival"}

    assert (await walled.ask("acme:admin", "POST", "/v1/keys", json=body)).status_code == 403
    made = (await walled.ask("default:admin", "POST", "/v1/keys", json=body)).json()
    listed = (await walled.ask(made["key"], "GET", "/v1/keys")).json()["keys"]
    assert made["key_id"] in {key["key_id"] for key in listed}


async def test_trail_tells_who_did_what_and_no_more(walled: Walled) -> None:
    await walled.create("rival:write")
    made = await walled.create("rival:write", prompt="a secret thing", title="a secret title")
    await walled.ask("rival:write", "DELETE", f"/v1/sessions/{made['session_id']}")
    await walled.ask("rival:write", "DELETE", f"/v1/sessions/{made['session_id']}")
    answer = await walled.ask("rival:admin", "GET", "/v1/audit", params={"limit": "2"})
    erased, created = answer.json()["entries"]
    older = await walled.ask("rival:admin", "GET", "/v1/audit", params={"cursor": answer.json()["next_cursor"]})

    assert (erased["action"], created["action"]) == ("DELETE /v1/sessions/{session_id}", "POST /v1/sessions")
    assert erased["target"] == {"session_id": made["session_id"]}
    assert created["target"] == {"session_id": made["session_id"], "turn_id": made["turn"]["turn_id"]}
    assert created["credential"].startswith("key:")
    assert created["request_id"]
    assert not {erased["entry_id"], created["entry_id"]} & {entry["entry_id"] for entry in older.json()["entries"]}
    assert b"secret" not in answer.content + older.content
    assert b"acme" not in orjson.dumps(answer.json())
