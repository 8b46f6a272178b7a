"""Routes of turns: start, list, read, edit, cancel, interrupt."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import idempotency, realms, sessions
from app.api import answers, documents, options, schemas, views
from app.api.answers import Accepted, as_json
from app.api.dependencies import House, Manner, Query, Rooms, body, keyed, manner
from app.errors import SessionNotRunning
from app.sessions import Session
from app.turns import desk, turn
from app.turns.desk import NewTurn

router = APIRouter(tags=["turns"])


@router.post(
    "/v1/sessions/{session_id}/turns",
    responses={
        200: {"model": views.TurnView},
        202: {"model": views.TurnView, "description": "Accepted and still live."},
        **documents.problems(400, 404, 409, 413, 415, 422, 501),
    },
    openapi_extra=documents.takes(schemas.StartTurn, documents.PREFER),
    summary="Start a turn",
)
async def start(
    session_id: str,
    request: Request,
    house: Rooms,
    asked: Annotated[schemas.StartTurn, Depends(body(schemas.StartTurn))],
) -> Response:
    """Start a turn, answered in the way that is asked for (`Prefer`, `Accept`); it runs on when the caller leaves."""
    how, key, after = manner(request), keyed(request, asked), None
    await options.check_schema(asked.output_schema)
    if how.is_stream:
        house.check_stream()
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is None:
            session = await sessions.lock(tx, session_id)
            await house.check_turn(tx)
            after = session.last_seq
            defaults = house.defaults((await realms.get(tx.db)).config)
            new = NewTurn(
                schemas.prompt_text(asked.prompt), options.overrides(defaults, session, asked), asked.on_busy or "reject"
            )
            turn_id = await desk.start(tx, session, new, house.claimant)
            is_steered = turn_id == session.current_turn_id
            await idempotency.keep(tx, key, session_id=session.id, turn_id=turn_id, response=is_steered or None)
        else:
            turn_id, is_steered = kept.turn_id or "", kept.response is True
    if is_steered:
        how = how.at_once()
    return await answers.tell(house, Accepted(session_id, turn_id, how, False, kept is not None, after))


@router.get(
    "/v1/sessions/{session_id}/turns",
    responses={200: {"model": views.TurnPage}, **documents.problems(400, 404, 422)},
    openapi_extra=documents.query(
        status={"type": "string", "enum": list(turn.STATUSES)},
        limit={"type": "integer", "minimum": 0, "maximum": 200, "default": 50},
        cursor={"type": "string", "description": "`next_cursor` of the page before."},
    ),
    summary="List a session's turns",
)
async def find(session_id: str, request: Request, house: Rooms) -> Response:
    """List a session's turns, oldest first; the cursor is the number of the last one read."""
    query = Query(request, "status", "limit", "cursor")
    status: Any = query.choice("status", *turn.STATUSES)
    limit, after = query.integer("limit", 50, most=200), min(query.cursor("cursor"), 2**31 - 1)
    async with house.reading() as db:
        session = await sessions.get(db, session_id)
        found, next_number = await turn.find(db, session.id, status=status, after=after, limit=limit)
    next_cursor = None if next_number is None else str(next_number)
    return as_json({"turns": [turn.view(one) for one in found], "next_cursor": next_cursor})


@router.get(
    "/v1/sessions/{session_id}/turns/{turn_id}",
    responses={200: {"model": views.TurnView}, **documents.problems(404)},
    summary="Read a turn",
)
async def get(session_id: str, turn_id: str, request: Request, house: Rooms) -> Response:
    """Read a turn; never waits for it."""
    Query(request)
    async with house.reading() as db:
        session = await sessions.get(db, session_id)
        return as_json(turn.view(await turn.get(db, session.id, turn_id)))


@router.patch(
    "/v1/sessions/{session_id}/turns/{turn_id}",
    responses={200: {"model": views.TurnView}, **documents.problems(400, 404, 409, 413, 415, 422, 501)},
    openapi_extra=documents.takes(schemas.EditTurn),
    summary="Edit a queued turn",
)
async def edit(
    session_id: str, turn_id: str, house: Rooms, asked: Annotated[schemas.EditTurn, Depends(body(schemas.EditTurn))]
) -> Response:
    """Give a queued turn another prompt."""
    async with house.transaction() as tx:
        session = await sessions.lock(tx, session_id)
        await desk.edit(tx, session, turn_id, schemas.prompt_text(asked.prompt))
        return as_json(turn.view(await turn.get(tx.db, session.id, turn_id)))


@router.delete(
    "/v1/sessions/{session_id}/turns/{turn_id}",
    responses={200: {"model": views.TurnView}, **documents.problems(404, 409)},
    summary="Cancel a queued turn",
)
async def cancel(session_id: str, turn_id: str, house: Rooms) -> Response:
    """Take a queued turn out of the queue."""
    async with house.transaction() as tx:
        session = await sessions.lock(tx, session_id)
        await desk.cancel(tx, session, turn_id)
        return as_json(turn.view(await turn.get(tx.db, session.id, turn_id)))


@router.post(
    "/v1/sessions/{session_id}/interrupt",
    responses={200: {"model": views.TurnView}, **documents.problems(400, 404, 409, 413, 415, 422, 501)},
    openapi_extra=documents.takes(schemas.Interrupt),
    summary="Stop the live turn",
)
async def interrupt(
    session_id: str,
    request: Request,
    house: Rooms,
    asked: Annotated[schemas.Interrupt, Depends(body(schemas.Interrupt))],
) -> Response:
    """Stop the live turn now; what it has said is kept. Answers with the ended turn."""
    key = keyed(request, asked)
    seen_turn_id = await _live_turn(house, session_id)
    if asked.mode == "after_step":
        return await _stop_after_step(house, session_id, seen_turn_id, asked, key)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None:
            return as_json(kept.response, headers={"Idempotency-Replayed": "true"})
        session = await sessions.lock(tx, session_id)
        seen_turn_id = _to_stop(session, seen_turn_id, asked)
        await desk.interrupt(tx, session, seen_turn_id, note=asked.reason, claimant=house.claimant)
        view = turn.view(await turn.get(tx.db, session.id, seen_turn_id))
        await idempotency.keep(tx, key, session_id=session.id, turn_id=None, response=view)
    return as_json(view)


async def _stop_after_step(
    house: House, session_id: str, seen_turn_id: str | None, asked: schemas.Interrupt, key: idempotency.Request | None
) -> Response:
    """Have the live turn end at its next step boundary, and answer when it has."""
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is None:
            session = await sessions.lock(tx, session_id)
            turn_id = _to_stop(session, seen_turn_id, asked)
            await desk.stop_after_step(tx, session, turn_id, note=asked.reason)
            await idempotency.keep(tx, key, session_id=session.id, turn_id=turn_id)
        else:
            turn_id = kept.turn_id or ""
    how = Manner(is_stream=False, wait_seconds=house.max_wait_seconds, applied=None)
    return await answers.tell(house, Accepted(session_id, turn_id, how, False, kept is not None))


async def _live_turn(house: House, session_id: str) -> str | None:
    """Return the turn that is live now, before anything is locked: what this caller means to stop."""
    async with house.reading() as db:
        return (await sessions.get(db, session_id)).current_turn_id


def _to_stop(session: Session, seen_turn_id: str | None, asked: schemas.Interrupt) -> str:
    wanted = seen_turn_id if asked.turn_id is None else asked.turn_id
    if seen_turn_id is None or wanted != seen_turn_id:
        raise SessionNotRunning("There is no such live turn to interrupt.", session_id=session.id)
    return seen_turn_id
