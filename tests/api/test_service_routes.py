"""The routes of the service itself."""

import re

import pytest

from tests.service import Service

pytestmark = pytest.mark.anyio

METRICS = {
    "suricate_streams", "suricate_reader_lag_events", "suricate_live_turns", "suricate_lease_age_seconds",
    "suricate_pool_connections_in_use", "suricate_pool_connections_max", "suricate_journal_batch_entries",
    "suricate_journal_commit_seconds", "suricate_provider_first_chunk_seconds", "suricate_provider_call_seconds",
    "suricate_turns_total", "suricate_turns_recovered_total", "suricate_http_requests_total", "suricate_http_request_seconds",
}  # fmt: skip


async def test_livez_answers(service: Service) -> None:
    answer = await service.client.get("/livez")

    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_readyz_tells_each_thing_that_must_be_so(service: Service) -> None:
    answer = await service.client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": {"leases": True, "listener": True, "open": True, "database": True}}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_may_ask_for_the_head_alone(service: Service, path: str) -> None:
    answer = await service.client.head(path)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_metrics_are_there_with_names_types_and_meanings(service: Service) -> None:
    created = await service.create("Hello")
    await service.ended(created["session_id"], created["turn"]["turn_id"])

    answer = await service.client.get("/metrics")

    text = answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) >= METRICS
    assert re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE)
    assert re.search(r'^suricate_turns_total\{status="completed"\} \d', text, re.MULTILINE)
    assert re.search(r'^suricate_http_requests_total\{method="POST",route="/v1/sessions",status="201"\}', text, re.MULTILINE)
    assert re.search(r'^suricate_provider_call_seconds_count\{outcome="ok",provider="openai_compatible"\}', text, re.MULTILINE)
    assert created["session_id"] not in text


async def test_metrics_have_no_label_of_the_callers_making(service: Service) -> None:
    await service.client.get("/no/such/route/canaryvalue")
    await service.client.get("/v1/sessions/canaryvalue")

    assert "canaryvalue" not in (await service.client.get("/metrics")).text


async def test_capabilities_tell_what_is_on(service: Service) -> None:
    answer = await service.client.get("/v1/capabilities")

    told = answer.json()
    assert told["providers"] == ["openai_compatible", "scripted"]
    assert told["default_model"] == "scripted"
    assert told["builtin_tools"] == ["datetime", "wait", "tasks"]
    assert (told["on_busy"], told["interrupt_modes"]) == (["reject", "queue", "steer", "interrupt"], ["now", "after_step"])


async def test_docs_and_openapi_are_served(service: Service) -> None:
    docs, document = await service.client.get("/docs"), await service.client.get("/openapi.json")

    assert docs.headers["content-type"].startswith("text/html")
    assert document.json()["info"]["title"] == "Suricate"
