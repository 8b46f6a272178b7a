"""What operators see: logs that name sessions and turns and give nothing away, metrics that count."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service, read_frames

pytestmark = pytest.mark.anyio

CANARY = "canary-7f3a"
SECRET = "sk-secret-canary-91bc"


def lines_of(service: Service) -> list[dict[str, Any]]:
    """Read the log; every line must be JSON."""
    return [json.loads(line) for line in service.log.read_text().splitlines()]


@pytest.fixture
async def service(serve: Callable[..., Awaitable[Service]], double: ProviderDouble) -> Service:
    """A server that holds a secret."""
    return await serve(
        SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url,
        SURICATE_OPENAI_COMPATIBLE_API_KEY=SECRET,
        SURICATE_LOG_LEVEL="info",
    )


async def test_log_is_json_with_session_and_turn_ids_and_without_words_or_secrets(
    service: Service, double: ProviderDouble
) -> None:
    call = scripts.tool_call("datetime", {"timezone": CANARY})
    await double.play(
        [scripts.reasoning(CANARY), scripts.text(CANARY), call, scripts.finish("tool_calls")],
        [scripts.status(500, message=CANARY)],
        [scripts.status(401, message=CANARY)],
    )
    words = {"system_prompt": CANARY, "title": CANARY, "labels": {CANARY: CANARY}}
    created = await service.create(CANARY, **words)
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])
    path = f"/v1/sessions/{created['session_id']}"
    await service.client.patch(path, json={"title": CANARY * 2})
    await service.client.post(f"{path}/turns", json={"prompt": CANARY, "no_such": CANARY})
    await service.client.get(f"/v1/sessions/{CANARY}")
    await service.client.get(f"/v1/sessions?q={CANARY}&label={CANARY}:{CANARY}")
    await service.client.get(f"/{CANARY}")
    await service.client.get(path, headers={"Authorization": f"Bearer {CANARY}", "Idempotency-Key": CANARY})
    await service.terminate()

    text, lines = service.log.read_text(), lines_of(service)
    assert view["error"]["reason"] == "PROVIDER_AUTH"
    assert CANARY not in text
    assert SECRET not in text
    own = [line for line in lines if line.get("turn_id") == created["turn"]["turn_id"]]
    assert any(line["event"] == "turn_failed" and line["session_id"] == created["session_id"] for line in own)
    requests = [line for line in lines if line["event"] == "request"]
    assert {"method", "route", "status", "ms", "request_id", "level", "timestamp"} <= requests[0].keys()
    assert any(line.get("session_id") == created["session_id"] for line in requests)


async def test_vendors_words_and_the_key_stay_out_of_answers_and_events(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.status(400, message=f"{CANARY} {SECRET}")])
    created = await service.create("Hello")
    view = await service.ended(created["session_id"], created["turn"]["turn_id"])

    told = json.dumps([view, await service.log_of(created["session_id"])])
    assert view["error"]["reason"] == "PROVIDER_REFUSED_REQUEST"
    assert CANARY not in told
    assert SECRET not in told
    assert (await double.received(1)).headers["authorization"] == f"Bearer {SECRET}"


async def test_metrics_follow_streams_and_turns(service: Service, double: ProviderDouble) -> None:
    await double.play([scripts.text("Par"), scripts.hang()])
    created = await service.create("Hello")
    path = f"/v1/sessions/{created['session_id']}"

    async def metric(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", (await service.client.get("/metrics")).text, re.MULTILINE)
        assert found
        return float(found[1])

    async with service.client.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
        frames = read_frames(stream)
        await anext(frames)
        during = await metric("suricate_streams"), await metric("suricate_live_turns")
    await service.client.post(f"{path}/interrupt")

    assert during == (1, 1)
    while await metric("suricate_live_turns") or await metric("suricate_streams"):
        pass
    assert await metric("suricate_journal_commit_seconds_count") >= 1
    assert await metric("suricate_pool_connections_max") == 16
    assert await metric("suricate_lease_age_seconds") < 15
