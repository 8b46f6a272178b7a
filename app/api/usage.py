"""The route that tells what a realm has used."""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final, get_args

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import clock, usage
from app.api import documents, views
from app.api.answers import as_json
from app.api.dependencies import Query, Rooms
from app.errors import InvalidRequest
from app.usage import GROUPS, Group

router = APIRouter(tags=["service"])

MOST_DAYS: Final = 366
MOST_GROUPS: Final = 10_000
USUAL_DAYS: Final = 30
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")

_DAYS: Final[dict[str, Any]] = {"type": "string", "format": "date"}
_QUERY: Final[dict[str, Mapping[str, Any]]] = {
    "from": _DAYS | {"description": f"First day, in UTC; default {USUAL_DAYS} days up to the last."},
    "to": _DAYS | {"description": "Last day, in UTC; default today."},
    "group_by": {
        "type": "string",
        "default": "day",
        "examples": ["day,model"],
        "description": f"What sums are made by: some of {', '.join(GROUPS)}, with commas between.",
    },
}


@router.get(
    "/v1/usage",
    openapi_extra=documents.query(**_QUERY),
    responses={200: {"model": views.UsageReport}, **documents.problems(422)},
    summary="What was used",
)
async def find(request: Request, house: Rooms) -> Response:
    """Sum up the calls and tokens of the caller's realm, also of sessions that are gone, as the providers reported them."""
    query = Query(request, *_QUERY)
    groups = _groups(query.text("group_by") or "day")
    last = _day(query, "to") or clock.now().date()
    first = _day(query, "from") or last - timedelta(days=min(USUAL_DAYS - 1, last.toordinal() - 1))
    if not 0 <= (last - first).days < MOST_DAYS:
        raise InvalidRequest.at("query.from", f"Not after the last day, and at most {MOST_DAYS} days in all.")
    async with house.reading() as db:
        found = await usage.find(db, (first, last), groups, limit=MOST_GROUPS + 1)
    if len(found) > MOST_GROUPS:
        raise InvalidRequest.at("query.group_by", f"More than {MOST_GROUPS} sums; ask for fewer days, or fewer names.")
    named = {"from": first.isoformat(), "to": last.isoformat(), "group_by": groups}
    return as_json({**named, "sums": found, "total": usage.total(found)})


def _day(query: Query, name: str) -> date | None:
    text = query.text(name)
    if text is None:
        return None
    try:
        if _DAY.match(text):
            return date.fromisoformat(text)
    except ValueError:
        pass  # a day that no month has
    raise InvalidRequest.at(f"query.{name}", "A day such as 2026-03-01.")


def _groups(text: str) -> list[Group]:
    words = text.split(",")
    if len(set(words)) < len(words) or not set(words) <= set(get_args(Group)):
        raise InvalidRequest.at("query.group_by", f"Some of {', '.join(GROUPS)}, each once, with commas between.")
    return [group for group in GROUPS if group in words]
