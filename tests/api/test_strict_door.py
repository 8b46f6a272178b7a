"""No input breaks it: every bad request gets a typed refusal that repeats nothing of it, and nothing is stored."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.api import corpus, databases, raw
from tests.api.corpus import CANARY, Case
from tests.api.raw import Answer
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

PROBLEM = {"type", "title", "status", "code", "detail"}
HELPFUL = {"session_id", "turn_id", "errors", "field"}


@pytest.fixture(scope="module")
async def at_rest(shared_service: Service) -> dict[str, str]:
    """Make a session that has taken one turn."""
    created = await shared_service.create("Hello", model="scripted", provider="scripted")
    await shared_service.ended(created["session_id"], created["turn"]["turn_id"])
    session_id = created["session_id"]
    return {"{session}": session_id, "{turn}": created["turn"]["turn_id"], "{upper}": session_id.upper()}


@pytest.fixture(scope="module")
async def database(api_database_url: str) -> AsyncIterator[Any]:
    """Look into the shared server's database."""
    connection = await asyncpg.connect(api_database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("case", corpus.cases(), ids=lambda case: case.name)
async def test_bad_request_is_refused_with_its_code_and_stores_nothing(
    shared_service: Service, at_rest: dict[str, str], database: Any, case: Case
) -> None:
    before = await databases.counted(database)

    answer = await raw.ask(shared_service.base_url, *(_filled(piece, at_rest) for piece in case.pieces))

    assert (answer.status, answer.json()["code"]) == (case.status, case.code)
    assert_is_problem(answer)
    assert await databases.counted(database) == before
    assert (await shared_service.client.get("/livez")).status_code == 200


def test_corpus_is_as_large_as_it_was_and_names_each_case_once() -> None:
    names = [case.name for case in corpus.cases()]

    assert len(names) == len(set(names))
    assert len(names) > 550


def assert_is_problem(answer: Answer) -> None:
    """Hold an answer against RFC 9457 and the contract: all members, no value of the input, an id of the request."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem.keys() >= PROBLEM
    assert problem.keys() <= PROBLEM | HELPFUL
    assert problem["status"] == answer.status
    assert all(isinstance(problem[name], str) and problem[name] for name in PROBLEM - {"status"})
    assert CANARY.encode() not in answer.body
    assert uuid.UUID(answer.headers["x-request-id"]).version == 7
    for error in problem.get("errors", ()):
        assert error.keys() == {"loc", "msg"}
        assert len(error["loc"]) <= 100
    if answer.status == 405:
        assert answer.headers["allow"]


def _filled(piece: bytes, values: dict[str, str]) -> bytes:
    for name, value in values.items():
        piece = piece.replace(name.encode(), value.encode())
    return piece


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/sessions", "GET, POST"),
        ("/v1/sessions/{session}", "DELETE, GET, PATCH"),
        ("/v1/sessions/{session}/turns", "GET, POST"),
        ("/v1/sessions/{session}/turns/{turn}", "DELETE, GET, PATCH"),
        ("/v1/sessions/{session}/events", "GET, HEAD"),
        ("/v1/sessions/{session}/interrupt", "POST"),
        ("/livez", "GET, HEAD"),
    ],
)
async def test_wrong_method_is_told_every_right_one(
    shared_service: Service, at_rest: dict[str, str], path: str, methods: str
) -> None:
    answer = await raw.ask(shared_service.base_url, _filled(raw.request("PUT", path), at_rest))

    assert (answer.status, answer.headers["allow"]) == (405, methods)


async def test_unknown_and_foreign_ids_get_the_same_body_as_erased_ones(service: Service) -> None:
    erased = (await service.create(initial_turn="defer"))["session_id"]
    assert (await service.client.delete(f"/v1/sessions/{erased}")).status_code == 204

    never, gone, no_id = [
        await service.client.get(f"/v1/sessions/{name}") for name in ("00000000-0000-7000-8000-000000000000", erased, "x")
    ]

    assert never.status_code == 404
    assert never.content == gone.content == no_id.content


async def test_turn_of_another_session_is_not_found_with_the_same_body(service: Service) -> None:
    one, other = await service.create("Hello"), await service.create("Hello")
    for created in (one, other):
        await service.ended(created["session_id"], created["turn"]["turn_id"])

    foreign = await service.client.get(f"/v1/sessions/{other['session_id']}/turns/{one['turn']['turn_id']}")
    never = await service.client.get(f"/v1/sessions/{other['session_id']}/turns/00000000-0000-7000-8000-000000000000")

    assert (foreign.status_code, foreign.json()["code"]) == (404, "TURN_NOT_FOUND")
    assert foreign.content == never.content


async def test_deepest_allowed_json_is_read(service: Service) -> None:
    answer = await raw.ask(service.base_url, raw.request("POST", "/v1/sessions", corpus.nested(64)))

    assert (answer.status, answer.json()["code"]) == (422, "INVALID_REQUEST")


async def test_brackets_and_escapes_in_strings_are_not_depth(service: Service) -> None:
    prompt = '["' * 200 + "\\" + "}" * 200

    answer = await service.client.post("/v1/sessions", json={"prompt": prompt, "initial_turn": "defer"})

    assert answer.status_code == 201


async def test_largest_allowed_body_round_trips(service: Service, double: ProviderDouble) -> None:
    prompt = "a" * (4 * corpus.MEBIBYTE - 200)

    created = await service.create(prompt)
    await service.ended(created["session_id"], created["turn"]["turn_id"])

    asked = (await double.received(1)).body["messages"][-1]["content"]
    messages = (await service.client.get(f"/v1/sessions/{created['session_id']}/messages")).json()["messages"]
    assert asked == messages[0]["content"][0]["text"] == prompt


@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 0",
        b"content-length: 0\r\ncontent-type: text/plain",
        b"transfer-encoding: chunked",
        b"x-nothing: 1",
    ],
)
async def test_post_without_a_body_equals_an_empty_object_and_needs_no_content_type(service: Service, lines: bytes) -> None:
    end = b"0\r\n\r\n" if b"chunked" in lines else b""

    answer = await raw.ask(service.base_url, b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\n" + lines + b"\r\n\r\n" + end)

    assert (answer.status, answer.json()["turn"]) == (201, None)


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"']
)
async def test_json_in_utf8_is_taken_however_it_is_labelled(service: Service, kind: str) -> None:
    answer = await raw.ask(service.base_url, raw.request("POST", "/v1/sessions", b'{"title": "\xc3\xa9"}', kind=kind))

    assert answer.json()["session"]["state"]["title"] == "é"


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 128])
async def test_sane_request_id_is_given_back(service: Service, given: str) -> None:
    answer = await service.client.get("/v1/sessions?limit=0", headers={"X-Request-Id": given})

    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"caf\xc3\xa9", b"\xff", b"a b", b"a" * 129, b"", b"<script>", b'a"b'])
async def test_insane_request_id_is_replaced_and_not_repeated(service: Service, given: bytes) -> None:
    answer = await raw.ask(service.base_url, raw.request("GET", "/v1/sessions?limit=0", b"", b"x-request-id: " + given))

    assert answer.status == 200
    assert uuid.UUID(answer.headers["x-request-id"]).version == 7


@pytest.mark.parametrize("given", [b"Bearer \xff\xfe", "Bearer é".encode(), b"", b"Basic " + b"=" * 5_000])
async def test_authorization_of_any_bytes_is_no_mistake_of_the_server(service: Service, given: bytes) -> None:
    answer = await raw.ask(service.base_url, raw.request("GET", "/v1/sessions?limit=0", b"", b"authorization: " + given))

    assert answer.status == 200


async def test_every_fault_of_a_body_is_told_at_once_by_its_place(service: Service) -> None:
    body = {"max_tokens": 0, "title": 5, "labels": {"a": 1}, "n" * 100: CANARY}

    answer = await service.client.post("/v1/sessions", json=body)

    places = {error["loc"] for error in answer.json()["errors"]}
    assert places == {"max_tokens", "title", "labels.a", "n" * 64}


async def test_connection_lives_on_after_a_refusal(service: Service) -> None:
    async with raw.connection(service.base_url) as (reader, writer):
        for _ in range(3):
            writer.write(raw.request("POST", "/v1/sessions", b"{"))
            assert (await raw.read(reader)).status == 400

        writer.write(raw.request("GET", "/v1/sessions?limit=0"))
        assert (await raw.read(reader)).status == 200


async def test_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind(service: Service, database: Any) -> None:
    before = await databases.counted(database)

    async with raw.connection(service.base_url) as (_, writer):
        writer.write(raw.request("POST", "/v1/sessions", b'{"title": "a"}')[:-1])
        await writer.drain()

    assert (await service.client.get("/v1/sessions?limit=0")).status_code == 200
    assert await databases.counted(database) == before
