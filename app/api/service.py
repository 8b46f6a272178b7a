"""Routes of the service itself: is it alive, is it ready, what does it measure, which models does it know."""

from dataclasses import asdict

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

from app import realms, telemetry
from app.api import documents, views
from app.api.answers import as_json
from app.api.dependencies import Query, Rooms
from app.providers import models

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
    """Tell whether the database, its wake-ups and the leases work; 503 while one of them does not, or while draining."""
    database = house.journal.database
    checks = dict(house.is_ready()) | {"database": await database.is_answering(DATABASE_SECONDS)}
    is_ready = all(checks.values())
    return as_json({"status": "ok" if is_ready else "unavailable", "checks": checks}, 200 if is_ready else 503)


@router.get("/metrics", response_class=PlainTextResponse, summary="Metrics for Prometheus")
async def metrics(house: Rooms) -> Response:
    """Show this process's metrics in Prometheus' text format."""
    telemetry.READER_LAG_EVENTS.set(house.journal.subscriptions.lag())
    telemetry.LISTENING.set(house.journal.wakeups.is_listening)
    telemetry.POOL_IN_USE.set(house.journal.database.pool_in_use)
    telemetry.POOL_SIZE.set(house.pool_size)
    return Response(generate_latest(telemetry.REGISTRY), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/v1/models",
    responses={200: {"model": views.ModelList}, **documents.problems(422)},
    summary="Models that sessions may name",
)
async def list_models(request: Request, house: Rooms) -> Response:
    """List the models of the configured providers and what is known of them; no provider is asked."""
    Query(request)
    async with house.reading() as db:
        config = (await realms.get(db)).config
    defaults = house.defaults(config)
    provider = defaults.served_by
    default = None if provider is None else (provider, defaults.model)
    listed: list[tuple[str, str]] = [*models.current(defaults.providers)]
    if default is not None and default not in listed:
        listed.append(default)
    return as_json({
        "models": [
            {
                "id": model,
                "provider": provider,
                **asdict(models.known(provider, model)),
                "is_default": (provider, model) == default,
            }
            for provider, model in listed
        ],
        "open_providers": [name for name in models.OPEN if name in defaults.providers],
    })
