"""A server that sends its spans to a collector, as the collector sees it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.provider_double.client import ProviderDouble
from tests.service import Service
from tests.tools.endpoint import Endpoint, answer, listening

pytestmark = pytest.mark.anyio

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
CANARY = "canary-of-content"


def spans_of(collector: Endpoint) -> dict[str, Span]:
    """Return the spans that a collector was sent, by their names."""
    requests = [ExportTraceServiceRequest.FromString(body) for body in collector.bodies]
    sent = [scope.spans for request in requests for resource in request.resource_spans for scope in resource.scope_spans]
    return {span.name: span for spans in sent for span in spans}


async def test_turn_is_followed_from_its_caller_to_the_model(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble
) -> None:
    async with listening(Endpoint(answer(kind="application/x-protobuf"))) as collector:
        service = await serve(
            SURICATE_OPENAI_COMPATIBLE_BASE_URL=double.base_url,
            SURICATE_OTLP="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=ours",
            OTEL_SERVICE_NAME="renamed",
        )
        body = {"prompt": CANARY, "model": "double", "provider": "openai_compatible"}
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        created = (await service.client.post("/v1/sessions", json=body, headers=headers)).json()
        await service.client.get(f"/v1/sessions?q={CANARY}")
        await service.client.get("/livez")
        await service.terminate()

    spans = spans_of(collector)
    assert created["turn"]["status"] == "completed"
    assert sorted(spans) == ["GET /v1/sessions", "POST /v1/sessions", "chat double", "invoke_agent"]
    request, attempt, call = (spans[name] for name in ("POST /v1/sessions", "invoke_agent", "chat double"))
    assert {span.trace_id.hex() for span in (request, attempt, call)} == {TRACE}
    assert request.parent_span_id.hex() == CALLER
    assert (attempt.parent_span_id, call.parent_span_id) == (request.span_id, attempt.span_id)
    assert (b"renamed" in collector.bodies[0], CANARY.encode() in b"".join(collector.bodies)) == (True, False)
    assert all("x-tenant: ours" in head.lower() for head in collector.heads)


async def test_collector_that_does_not_answer_holds_nothing_up(serve: Callable[..., Awaitable[Service]]) -> None:
    async with listening(Endpoint(None)) as collector:
        service = await serve(SURICATE_OTLP="true", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}")
        created = await service.client.post("/v1/sessions", json={"prompt": "Hello"})
        async with asyncio.timeout(5):
            await service.terminate()

    assert created.json()["turn"]["status"] == "completed"
