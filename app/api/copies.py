"""Routes of copies: fork a session, and read all of it as one document."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import idempotency
from app.api import answers, documents, schemas, views
from app.api.answers import Accepted, as_json
from app.api.dependencies import Manner, Query, Rooms, body, keyed
from app.copies import exports, forks
from app.copies.document import SessionExportWithEvents

router = APIRouter(tags=["sessions"])


@router.post(
    "/v1/sessions/{session_id}/fork",
    status_code=201,
    responses={201: {"model": views.Created}, **documents.problems(400, 404, 409, 413, 415, 422, 501)},
    openapi_extra=documents.takes(schemas.Fork),
    summary="Copy a session up to a turn",
)
async def fork(
    session_id: str, request: Request, house: Rooms, asked: Annotated[schemas.Fork, Depends(body(schemas.Fork))]
) -> Response:
    """Make a new session with this one's history up to a turn; the new one goes its own way."""
    key = keyed(request, asked)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is None:
            await house.check_session(tx)
            fork_id = str((await forks.fork(tx, session_id, asked.through_turn)).id)
            await idempotency.keep(tx, key, session_id=fork_id)
        else:
            fork_id = kept.session_id
    at_once = Manner(is_stream=False, wait_seconds=0, applied=None)
    return await answers.tell(house, Accepted(fork_id, None, at_once, True, kept is not None))


@router.get(
    "/v1/sessions/{session_id}/export",
    responses={200: {"model": SessionExportWithEvents}, **documents.problems(404, 422, 501)},
    openapi_extra=documents.query(
        events={
            "type": "string",
            "enum": ["true", "false"],
            "default": "false",
            "description": "Whether the log is part of the document.",
        },
    ),
    summary="Read a whole session as one document",
)
async def export(session_id: str, request: Request, house: Rooms) -> Response:
    """Read a session, its finished turns and its history as one document, which `resume_session` takes."""
    has_events = Query(request, "events").choice("events", "true", "false") == "true"
    async with house.reading() as db:
        return as_json(await exports.export(db, session_id, has_events=has_events))
