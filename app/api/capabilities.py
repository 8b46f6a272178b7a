"""The route that tells what this server has, for clients that adapt: for the caller's realm, without a secret."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import realms
from app.api import documents, schemas, views
from app.api.answers import as_json
from app.api.dependencies import House, Query, Rooms
from app.providers import models
from app.tools import builtin

router = APIRouter(tags=["service"])


@router.get(
    "/v1/capabilities",
    responses={200: {"model": views.Capabilities}, **documents.problems(422)},
    summary="What this server can do",
)
async def capabilities(request: Request, house: Rooms) -> Response:
    """Tell which providers, tools, options and ways of asking are on in the caller's realm, and the limits that hold."""
    Query(request)
    async with house.reading() as db:
        config = (await realms.get(db)).config
    defaults = house.defaults(config)
    return as_json({
        "providers": sorted(defaults.providers),
        "open_providers": [name for name in models.OPEN if name in defaults.providers],
        "default_model": defaults.model,
        "default_provider": defaults.served_by,
        "builtin_tools": [name for name in house.tools.names() if name in builtin.NAMES],
        "http_tools": [name for name in house.tools.names() if name not in builtin.NAMES],
        "mcp_servers": {source.name: [tool.spec.name for tool in source.tools()] for source in house.tools.sources},
        "tools": {"builtins": config.builtins is not False} | dict.fromkeys(schemas.Tools.later, False),
        "options": _options(schemas.CreateSession),
        "turn_options": _options(schemas.StartTurn),
        "hooks": [
            {"id": hook.id, "points": sorted(hook.points), "capability": hook.capability, "is_required": hook.is_required}
            for hook in house.hooks.hooks()
        ],
        "on_busy": ["reject", "queue", "steer", "interrupt"],
        "interrupt_modes": ["now", "after_step"],
        "compaction": config.compacts,
        "fork": True,
        "export": True,
        "limits": _limits(house),
    })


def _options(asked: type[schemas.Strict]) -> dict[str, bool]:
    """Return each field of a request, and whether this server has what it asks for."""
    return {name: name not in asked.later for name in asked.model_fields}


def _limits(house: House) -> dict[str, Any]:
    limits = asdict(house.limits)
    return {
        "max_body_bytes": house.max_body_bytes,
        "max_wait_seconds": house.max_wait_seconds,
        "max_labels": schemas.MOST_LABELS,
        **{name: limits[name] for name in views.TurnLimits.model_fields},
    }
