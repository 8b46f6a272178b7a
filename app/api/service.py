"""Routes of the service itself: is it alive, is it ready, what does it measure, what can it do."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from app import telemetry
from app.api import documents
from app.api.answers import as_json
from app.api.dependencies import Query, Rooms
from app.errors import CapabilityUnavailable

router = APIRouter(tags=["service"])

DATABASE_SECONDS = 2.0  # a database that takes longer is not ready


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Is the process alive")
async def livez() -> Response:
    """Answer as long as the event loop turns."""
    return as_json({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Should traffic come here")
async def readyz(house: Rooms) -> Response:
    """Tell whether the database answers, leases are renewed and wake-ups arrive; 503 while any does not, or while draining."""
    database = house.journal.database
    checks = dict(house.is_ready()) | {"database": await database.is_answering(DATABASE_SECONDS)}
    is_ready = all(checks.values())
    return as_json({"status": "ok" if is_ready else "unavailable", "checks": checks}, 200 if is_ready else 503)


@router.get("/metrics", response_class=PlainTextResponse, summary="Metrics for Prometheus")
async def metrics(house: Rooms) -> Response:
    """Show this process's metrics in Prometheus' text format."""
    telemetry.READER_LAG_EVENTS.set(house.journal.subscriptions.lag())
    telemetry.POOL_IN_USE.set(house.journal.database.pool_in_use)
    telemetry.POOL_SIZE.set(house.pool_size)
    return Response(generate_latest(telemetry.REGISTRY), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/capabilities", summary="What this server can do")
async def capabilities(request: Request, house: Rooms) -> Response:
    """Tell which providers, tools and ways of asking are on."""
    Query(request)
    return as_json({
        "providers": sorted(house.providers),
        "default_model": house.default_model,
        "builtin_tools": list(house.tools.names()),
        "on_busy": ["reject", "queue", "steer", "interrupt"],
        "interrupt_modes": ["now", "after_step"],
        "limits": {"max_body_bytes": house.max_body_bytes, "max_wait_seconds": house.max_wait_seconds},
    })


@router.post(
    "/v1/sessions/{session_id}/compact", status_code=501, responses=documents.problems(501), summary="Not in this version"
)
@router.get("/v1/models", status_code=501, responses=documents.problems(501), summary="Not in this version")
async def not_yet(request: Request) -> Response:
    """Refuse a route of the contract whose feature this version does not have."""
    raise CapabilityUnavailable(f"This server does not have {request.scope['route'].path} yet.")
