"""Browsers are told what they may do with each answer, and pages of elsewhere get nothing done."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import browsers
from app.api.browsers import Policy
from app.errors import HostNotAllowed, MalformedRequest, OriginNotAllowed
from tests.api import raw
from tests.service import Service

pytestmark = pytest.mark.anyio

APP = "https://app.example.org"


def refused(policy: Policy, method: str = "GET", version: str = "1.1", **headers: str) -> type[Exception] | None:
    """Ask a policy about a request."""
    fields = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    refusal = policy.refusal({"type": "http", "method": method, "http_version": version, "headers": fields})
    return None if refusal is None else type(refusal)


def assert_secured(headers: Any) -> None:
    """Hold an answer's headers against what each must have."""
    for name, value in browsers.HEADERS:
        if name not in {b"cache-control", b"content-security-policy"}:
            assert headers[name.decode()] == value.decode()
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"]
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    "sent",
    [
        raw.request("GET", "/v1/sessions"),
        raw.request("POST", "/v1/sessions", b"{}"),
        raw.request("POST", "/v1/sessions", b"{"),
        raw.request("POST", "/v1/sessions", b'{"title": 5}'),
        raw.request("GET", "/v1/sessions/none"),
        raw.request("GET", "/no/such/route"),
        raw.request("PUT", "/v1/sessions"),
        raw.request("HEAD", "/livez"),
        raw.request("GET", "/metrics"),
        raw.request("GET", "/openapi.json"),
        raw.request("GET", "/docs"),
        raw.request("GET", "/docs/swagger-ui.css"),
        raw.request("GET", "/livez", b"", b"x-long: " + b"a" * 40_000),
        raw.request("GET", "/livez", b"", b"host: evil.example"),
        raw.request("POST", "/v1/sessions", b"{}", b"origin: https://evil.example"),
        b"no request\r\n\r\n",
    ],
    ids=["list", "created", "no JSON", "invalid", "no session", "no route", "no method", "head", "metrics", "openapi", "docs",
         "asset", "large head", "host", "origin", "no HTTP"],
)  # fmt: skip
async def test_every_kind_of_answer_bears_the_headers(service: Service, sent: bytes) -> None:
    async with raw.connection(service.base_url) as (reader, writer):
        writer.write(sent)
        assert_secured((await raw.read_head(reader)).headers)


async def test_streams_and_empty_answers_bear_the_headers(service: Service) -> None:
    session_id = (await service.create())["session_id"]
    path = f"/v1/sessions/{session_id}"

    async with service.client.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert_secured(stream.headers)
    assert stream.headers["cache-control"] == "no-store"
    gone = await service.client.delete(path)

    assert gone.status_code == 204
    assert_secured(gone.headers)


@pytest.mark.parametrize(
    ("host", "listening", "hosts", "is_answered"),
    [
        ("localhost", "127.0.0.1", [], True),
        ("LOCALHOST:8000", "127.0.0.1", [], True),
        ("app.localhost:1", "127.0.0.1", [], True),
        ("127.0.0.1:8000", "127.0.0.1", [], True),
        ("127.9.9.9", "localhost", [], True),
        ("[::1]:8000", "127.0.0.1", [], True),
        ("evil.example", "127.0.0.1", [], False),
        ("localhost.evil.example", "127.0.0.1", [], False),
        ("evil-localhost", "127.0.0.1", [], False),
        ("0.0.0.0:8000", "127.0.0.1", [], False),
        ("10.0.0.1", "127.0.0.1", [], False),
        ("[::ffff:10.0.0.1]", "::1", [], False),
        ("localhost@evil.example", "127.0.0.1", [], False),
        ("localhost:8000:1", "127.0.0.1", [], False),
        ("localhost/", "127.0.0.1", [], False),
        ("", "127.0.0.1", [], False),
        ("ｌocalhost", "127.0.0.1", [], False),
        ("api.example.org", "127.0.0.1", ["api.example.org"], True),
        ("api.example.org.evil.example", "127.0.0.1", ["api.example.org"], False),
        ("a.example.org", "127.0.0.1", ["*.example.org"], True),
        ("example.org", "127.0.0.1", ["*.example.org"], False),
        ("evilexample.org", "127.0.0.1", ["*.example.org"], False),
        ("anything.example", "127.0.0.1", ["*"], True),
        ("anything.example", "10.0.0.1", [], True),
        ("no host", "10.0.0.1", [], False),
        ("10.0.0.1", "10.0.0.1", ["api.example.org"], True),
        ("10.7.7.7", "0.0.0.0", ["api.example.org"], True),
        ("evil.example", "0.0.0.0", ["api.example.org"], False),
        ("localhost", "0.0.0.0", ["api.example.org"], True),
    ],
)  # fmt: skip
def test_host_is_answered_if_it_is_the_servers_own(host: str, listening: str, hosts: list[str], is_answered: bool) -> None:
    assert refused(Policy(listening, hosts), host=host) == (None if is_answered else HostNotAllowed)


@given(host=st.text() | st.from_regex(r"[a-z0-9.:\[\]-]+", fullmatch=True))
def test_no_other_text_is_a_host_of_a_server_on_loopback(host: str) -> None:
    name = host.lower().rpartition(":")[0] or host.lower()
    is_own = name in {"localhost", "[::1]"} or name.endswith(".localhost") or name.startswith("127.") or "[" in name

    assert is_own or refused(Policy("127.0.0.1"), host=host) == HostNotAllowed


def test_request_has_one_host_and_only_an_old_one_has_none() -> None:
    policy = Policy("127.0.0.1")
    two = [(b"host", b"localhost"), (b"host", b"localhost")]

    assert refused(policy) == MalformedRequest
    assert refused(policy, version="1.0") is None
    assert isinstance(
        policy.refusal({"type": "http", "method": "GET", "http_version": "1.1", "headers": two}), MalformedRequest
    )


@pytest.mark.parametrize(
    ("method", "origin", "origins", "is_taken"),
    [
        ("POST", "http://localhost:8000", [], True),
        ("POST", "https://localhost:8000", [], True),
        ("POST", "http://localhost", [], False),
        ("POST", "http://localhost:9000", [], False),
        ("POST", "null", [], False),
        ("POST", "", [], False),
        ("POST", APP, [], False),
        ("PUT", APP, [], False),
        ("PATCH", APP, [], False),
        ("DELETE", APP, [], False),
        ("GET", APP, [], True),
        ("HEAD", APP, [], True),
        ("POST", APP, [APP], True),
        ("POST", "https://app.example.org.evil.example", [APP], False),
        ("POST", "http://app.example.org", [APP], False),
        ("POST", "null", ["*"], True),
        ("BREW", APP, [], False),
    ],
)  # fmt: skip
def test_change_is_taken_from_pages_of_its_own_and_of_allowed_origins(
    method: str, origin: str, origins: list[str], is_taken: bool
) -> None:
    policy = Policy("127.0.0.1", origins=origins)

    assert refused(policy, method, host="localhost:8000", origin=origin) == (None if is_taken else OriginNotAllowed)


async def test_refused_page_changes_nothing_and_gets_a_problem(service: Service) -> None:
    session_id = (await service.create(title="kept"))["session_id"]

    answers = [
        await service.client.request(method, f"/v1/sessions/{session_id}{path}", json=body, headers={"Origin": APP})
        for method, path, body in [("PATCH", "", {"title": "x"}), ("DELETE", "", None), ("POST", "/archive", {})]
    ]
    kept = await service.client.get(f"/v1/sessions/{session_id}", headers={"Origin": APP})

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "ORIGIN_NOT_ALLOWED")}
    assert kept.json()["state"]["title"] == "kept"
    assert not [name for name in kept.headers if name.startswith("access-control")]


async def test_rebound_name_is_refused_with_a_problem(service: Service) -> None:
    answer = await service.client.get("/v1/sessions", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json()["code"]) == (421, "HOST_NOT_ALLOWED")
    assert "evil" not in answer.text


async def test_preflight_without_origins_that_are_allowed_is_no_method(service: Service) -> None:
    answer = await service.client.options("/v1/sessions", headers={"Origin": APP, "Access-Control-Request-Method": "POST"})

    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_pages_of_an_allowed_origin_may_use_everything(serve: Callable[..., Any]) -> None:
    service: Service = await serve(SURICATE_CORS_ORIGINS=f'["{APP}"]', SURICATE_MAX_HEADER_BYTES="1024")
    here, elsewhere = {"Origin": APP}, {"Origin": "https://evil.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}

    yes = await service.client.options("/v1/sessions", headers=here | asked)
    no = await service.client.options("/v1/sessions", headers=elsewhere | asked)
    odd = await service.client.options("/v1/sessions", headers=here | asked | {"Access-Control-Request-Headers": "x-other"})
    created = await service.client.post("/v1/sessions", json={}, headers=here)
    refusal = await service.client.post("/v1/sessions", json={"title": 5}, headers=here)
    large = await service.client.get("/v1/sessions", headers=here | {"X-Long": "a" * 2_000})
    foreign = await service.client.get("/v1/sessions", headers=elsewhere)
    path = f"/v1/sessions/{created.json()['session_id']}/events"
    async with service.client.stream("GET", path, headers=here | {"Accept": "text/event-stream"}) as stream:
        pass

    assert (yes.status_code, yes.headers["access-control-allow-origin"], yes.content) == (204, APP, b"")
    assert {"POST", "PATCH", "DELETE"} <= set(yes.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in yes.headers
    assert [(one.status_code, one.json()["code"]) for one in (no, odd)] == [(403, "ORIGIN_NOT_ALLOWED")] * 2
    assert "access-control-allow-origin" not in {*no.headers, *foreign.headers}
    assert [one.status_code for one in (created, refusal, large, stream)] == [201, 422, 431, 200]
    for answer in (created, refusal, large, stream):
        assert answer.headers["access-control-allow-origin"] == APP
        assert {"X-Request-Id", "Location", "Retry-After"} <= set(answer.headers["access-control-expose-headers"].split(", "))
        assert "Origin" in answer.headers["vary"]
        assert_secured(answer.headers)
