"""Routes of events: a session's log and a turn's part of it, as a stream or as a page."""

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import sessions
from app.api import documents, streams
from app.api.dependencies import Query, Rooms, read_cursor
from app.api.streams import Reading
from app.errors import InvalidRequest
from app.journal import reader
from app.journal.frames import envelope
from app.journal.reader import Filter, Page
from app.journal.types import EVENTS, RESERVED
from app.turns import turn

router = APIRouter(tags=["events"])

MOST_EVENTS = 1000
MOST_BYTES = 16 * 1024 * 1024  # of a JSON page; `next_after` below `last_seq` tells that there is more
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SCOPE = re.compile(r"[\x21-\x7e]{1,200}")
_PARAMETERS = documents.query(
    documents.LAST_EVENT_ID,
    after={"type": "integer", "minimum": 0, "default": 0, "description": "Number to read from behind."},
    types={"type": "string", "description": "Event types, separated by commas."},
    turn_id={"type": "string", "description": "Events of one turn."},
    scope={"type": "string", "description": "Events of one scope."},
    limit={"type": "integer", "minimum": 0, "maximum": MOST_EVENTS, "default": 100, "description": "JSON only."},
    follow={"type": "string", "enum": ["true", "false"], "description": "SSE: `false` ends at the head."},
    ticket={"type": "string", "description": "A stream ticket, where no Authorization header can be sent."},
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: documents.stream("Events after the cursor: SSE, or one page of JSON where that is accepted."),
    204: {"description": "Nothing will ever come after this cursor."},
    **documents.problems(400, 404, 422),
}


@router.head("/v1/sessions/{session_id}/events", include_in_schema=False)
@router.get(
    "/v1/sessions/{session_id}/events",
    responses=_RESPONSES,
    openapi_extra=_PARAMETERS,
    summary="Read or follow a session's events",
)
async def of_session(session_id: str, request: Request, house: Rooms) -> Response:
    """Read a session's log from behind a cursor, and follow it."""
    asked = _Asked(request)
    async with house.reading() as db:
        session = await sessions.get(db, session_id)
        if asked.wants_page:
            page = await reader.page(db, session.id, asked.after, asked.which, limit=asked.limit, limit_bytes=MOST_BYTES)
            return _page(page, asked.after)
    if session.archived_at is not None and asked.after == session.last_seq:
        return Response(status_code=204)
    house.check_stream()
    reading = Reading(session.id, asked.after, asked.which, head=session.last_seq, follow=asked.follow)
    return streams.respond(house, reading)


@router.head("/v1/sessions/{session_id}/turns/{turn_id}/events", include_in_schema=False)
@router.get(
    "/v1/sessions/{session_id}/turns/{turn_id}/events",
    responses=_RESPONSES,
    openapi_extra=_PARAMETERS,
    summary="Read or follow a turn's events",
)
async def of_turn(session_id: str, turn_id: str, request: Request, house: Rooms) -> Response:
    """Read a turn's part of the log from behind a cursor; the stream ends after the turn's terminal event."""
    asked = _Asked(request)
    async with house.reading() as db:
        session = await sessions.get(db, session_id)
        found = await turn.get(db, session.id, turn_id)
        which = Filter(asked.which.types, found.id, asked.which.scope)
        if asked.wants_page:
            page = await reader.page(db, session.id, asked.after, which, limit=asked.limit, limit_bytes=MOST_BYTES)
            return _page(page, asked.after)
    if found.is_over and found.last_seq <= asked.after <= session.last_seq:
        return Response(status_code=204)
    house.check_stream()
    reading = Reading(
        session.id,
        asked.after if asked.after > session.last_seq else max(asked.after, found.first_seq - 1),
        which,
        head=session.last_seq,
        follow=asked.follow and not found.is_over,
        ends_with_turn=True,
    )
    return streams.respond(house, reading)


class _Asked:
    """What a reader asks for; the same query for streams and pages."""

    def __init__(self, request: Request) -> None:
        query = Query(request, "after", "types", "turn_id", "scope", "limit", "follow", "ticket")
        accept = request.headers.get("accept", "*/*")
        self.wants_page = "application/json" in accept and "text/event-stream" not in accept
        self.after = read_cursor(request.headers.get("last-event-id") or query.text("after") or "0")
        self.which = Filter(_types(query), _matching(query, "turn_id", _ID), _matching(query, "scope", _SCOPE))
        self.limit = query.integer("limit", 100, most=MOST_EVENTS)
        self.follow = query.choice("follow", "true", "false") != "false"
        if query.text("limit") is not None and not self.wants_page:
            raise InvalidRequest.at("query.limit", "Only a JSON page has a limit; send Accept: application/json.")


def _matching(query: Query, name: str, form: re.Pattern[str]) -> str | None:
    text = query.text(name)
    if text is not None and not form.fullmatch(text):
        raise InvalidRequest.at(f"query.{name}", f"Not of the form of a {name}.")
    return text


def _types(query: Query) -> frozenset[str] | None:
    text = query.text("types")
    if text is None:
        return None
    types = frozenset(text.split(","))
    if not types <= EVENTS.keys() | RESERVED:
        raise InvalidRequest.at("query.types", "Not a type of event; the types are listed in /openapi.json.")
    return types


def _page(page: Page | None, after: int) -> Response:
    events = page.events if page else []
    last_seq = page.last_seq if page else 0
    joined = ",".join([envelope(event.seq, event.body) for event in events])
    next_after = events[-1].seq if events else after
    text = f'{{"events":[{joined}],"next_after":{next_after},"last_seq":{last_seq}}}'
    return Response(text.encode(), media_type="application/json")
