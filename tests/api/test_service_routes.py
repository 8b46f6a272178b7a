"""The routes of the service itself."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
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

    async with asyncio.timeout(10):
        while 'suricate_turns_total{status="completed"} ' not in (answer := await service.client.get("/metrics")).text:
            await asyncio.sleep(0.01)

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
    assert (told["default_provider"], told["open_providers"]) == ("scripted", ["openai_compatible"])
    assert (told["http_tools"], told["mcp_servers"], told["hooks"]) == ([], {}, [])
    assert told["limits"] == {
        "max_body_bytes": 4 * 1024 * 1024, "max_wait_seconds": 2, "max_labels": 32, "step_limit": 100,
        "tool_timeout_seconds": 60, "answer_timeout_seconds": 3600, "turn_timeout_seconds": 3600,
        "turn_output_tokens": 1_000_000,
    }  # fmt: skip
    whole = (await service.client.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/Capabilities", "components": whole["components"]}
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)


async def test_options_that_are_off_are_told_as_such_and_refused(service: Service) -> None:
    told = (await service.client.get("/v1/capabilities")).json()

    off = [name for name, is_on in told["options"].items() if not is_on]
    assert {"preload_skills", "host_mode", "comms_name"} < set(off)
    assert {"output_schema", "external_tools", "resume_session", "ephemeral"} < set(told["options"]) - set(off)
    for name in off:
        answer = await service.client.post("/v1/sessions", json={name: "x"})
        assert (answer.status_code, answer.json()["code"]) == (501, "CAPABILITY_UNAVAILABLE")
    assert [name for name, is_on in told["turn_options"].items() if not is_on] == ["skill_references", "host_mode"]
    assert told["tools"] == {"builtins": True, "shell": False, "subagents": False, "memory": False, "mob": False}


async def test_capabilities_are_those_of_the_realm(service: Service) -> None:
    config = {"default_model": "llama", "default_provider": "openai_compatible", "builtins": False}
    await service.client.put("/v1/realm/config", json={"config": config | {"compaction": {"enabled": False}}})
    try:
        told = (await service.client.get("/v1/capabilities")).json()
    finally:
        await service.client.put("/v1/realm/config", json={"config": {}})

    assert (told["default_model"], told["default_provider"]) == ("llama", "openai_compatible")
    assert (told["tools"]["builtins"], told["compaction"]) == (False, False)


async def test_tools_and_hooks_of_the_operator_are_told_by_name_alone(serve: Callable[..., Any], tmp_path: Path) -> None:
    place = {"url": "https://127.0.0.1:9/canary", "headers": {"authorization": "canary"}}
    tool = {"name": "weather", "description": "Weather.", "input_schema": {"type": "object"}, **place}
    server = {"transport": "http", "connect_seconds": 0.1, **place}
    (tmp_path / "tools.json").write_text(json.dumps({"http_tools": [tool], "mcp_servers": {"search": server}}))
    hook = {
        "id": "watch",
        "points": ["turn_started"],
        "capability": "observe",
        "url": "https://127.0.0.1:9/canary",
        "required": True,
    }
    service: Service = await serve(
        SURICATE_TOOLS_FILE=str(tmp_path / "tools.json"), SURICATE_HOOKS=json.dumps({"hooks": [hook], "secret": "canary" * 3})
    )

    answer = await service.client.get("/v1/capabilities")

    told = answer.json()
    assert (told["http_tools"], told["mcp_servers"]) == (["weather"], {"search": []})
    assert told["hooks"] == [{"id": "watch", "points": ["turn_started"], "capability": "observe", "is_required": True}]
    assert "canary" not in answer.text


async def test_docs_and_openapi_are_served(service: Service) -> None:
    docs, document = await service.client.get("/docs"), await service.client.get("/openapi.json")

    assert docs.headers["content-type"].startswith("text/html")
    assert document.json()["info"]["title"] == "Suricate"


async def test_page_of_the_document_is_made_of_what_the_server_has_and_may_load_nothing_else(service: Service) -> None:
    docs = await service.client.get("/docs")

    [script] = re.findall(r"<script>(.*?)</script>", docs.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}'" in docs.headers["content-security-policy"]
    assert "unsafe" not in docs.headers["content-security-policy"]
    assert "//" not in docs.text
    for path in re.findall(r'(?:src|href)="\./([^"]+)"', docs.text):
        asset = await service.client.get(f"/{path}")
        assert (asset.status_code, len(asset.content) > 100_000, "max-age" in asset.headers["cache-control"]) == (
            200,
            True,
            True,
        )
