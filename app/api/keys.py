"""Routes of API keys, of tickets for streams, and of the trail of what was done with them."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import audit, clock, idempotency, ids, sessions
from app.api import documents, key_schemas
from app.api.answers import as_json
from app.api.dependencies import House, Query, Rooms, body, keyed
from app.credentials import keys, tickets
from app.credentials.keys import NewKey
from app.errors import Forbidden, InvalidCursor

router = APIRouter(tags=["access"])

HTTP_CREATED = 201
_NO_KEY: dict[int | str, dict[str, Any]] = {404: documents.problems(404)[404] | {"description": "No such key."}}
_MADE: dict[int | str, dict[str, Any]] = {201: {"model": key_schemas.MadeKey}, **documents.problems(400, 409, 413, 415, 422)}


@router.post(
    "/v1/keys",
    status_code=201,
    responses=_MADE,
    openapi_extra=documents.takes(key_schemas.CreateKey),
    summary="Make an API key",
)
async def create(
    request: Request, house: Rooms, asked: Annotated[key_schemas.CreateKey, Depends(body(key_schemas.CreateKey))]
) -> Response:
    """Make a key; its secret is in this answer and nowhere else. An operator may make one for any realm."""
    realm = asked.realm or house.caller.realm
    if realm != house.caller.realm and not house.caller.is_operator:
        raise Forbidden("Only an operator makes keys for another realm.")
    new = NewKey(asked.name, asked.scopes, keys.in_days(asked.expires_in_days))
    return await _made(request, house.within(realm), asked, new, None)


@router.post(
    "/v1/keys/{key_id}/rotate",
    status_code=201,
    responses=_MADE | _NO_KEY,
    openapi_extra=documents.takes(key_schemas.RotateKey),
    summary="Replace an API key",
)
async def rotate(
    key_id: str,
    request: Request,
    house: Rooms,
    asked: Annotated[key_schemas.RotateKey, Depends(body(key_schemas.RotateKey))],
) -> Response:
    """Make a key of the same name and scopes; the old one ends after the overlap."""
    return await _made(request, house, asked, asked.overlap_seconds, key_id)


@router.get(
    "/v1/keys",
    responses={200: {"model": key_schemas.KeyList}, **documents.problems(422)},
    summary="List API keys",
)
async def find(request: Request, house: Rooms) -> Response:
    """List the realm's keys, the newest first, without their secrets."""
    Query(request)
    async with house.reading() as db:
        return as_json({"keys": await keys.find(db)})


@router.delete(
    "/v1/keys/{key_id}",
    responses={200: {"model": key_schemas.Key}, **documents.problems(404), **_NO_KEY},
    summary="Revoke an API key",
)
async def revoke(key_id: str, house: Rooms) -> Response:
    """Revoke a key: requests with it are refused within seconds, and its streams end within thirty."""
    async with house.transaction() as tx:
        tx.after_commit.append(house.gate.forget)
        return as_json(await keys.revoke(tx.db, key_id))


@router.post(
    "/v1/sessions/{session_id}/stream-tickets",
    status_code=201,
    responses={201: {"model": key_schemas.Ticket}, **documents.problems(400, 404, 409, 413, 415, 422)},
    openapi_extra=documents.takes(key_schemas.AskTicket),
    summary="Get a ticket for a browser's EventSource",
)
async def ticket(
    session_id: str,
    request: Request,
    house: Rooms,
    asked: Annotated[key_schemas.AskTicket, Depends(body(key_schemas.AskTicket))],
) -> Response:
    """Get a ticket that reads this session's events as `?ticket=`, again and again until it ends."""
    key, caller = keyed(request, asked), house.caller
    new, expires_at = tickets.make(), clock.now() + timedelta(seconds=asked.seconds)
    if key is not None and caller.is_known:
        new = tickets.derived(request.headers["authorization"], f"{key.path} {key.key}".encode() + key.body_hash)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None and not caller.is_known:
            return as_json(kept.response, HTTP_CREATED, {"Idempotency-Replayed": "true"})
        if kept is not None and kept.response is not None:
            expires_at = datetime.fromisoformat(kept.response["expires_at"])
        session = await sessions.pin(tx, session_id)
        made = await tickets.issue(tx.db, new, session.id, caller, expires_at=expires_at)
        if kept is None:
            await idempotency.keep(
                tx, key, session_id=session.id, response=made | ({"ticket": None} if caller.is_known else {})
            )
    return as_json(made, HTTP_CREATED, {} if kept is None else {"Idempotency-Replayed": "true"})


@router.get(
    "/v1/audit",
    responses={200: {"model": key_schemas.AuditPage}, **documents.problems(400, 422)},
    openapi_extra=documents.query(
        limit={"type": "integer", "minimum": 0, "maximum": 200, "default": 50},
        cursor={"type": "string", "description": "`next_cursor` of the page before."},
    ),
    summary="Read the audit trail",
)
async def trail(request: Request, house: Rooms) -> Response:
    """Read who did what in this realm, the newest first."""
    query = Query(request, "limit", "cursor")
    before, limit = query.text("cursor"), query.integer("limit", 50, most=200)
    if before is not None and not ids.is_id(before):
        raise InvalidCursor("This cursor is not one that the trail has returned.")
    async with house.reading() as db:
        found, next_cursor = await audit.find(db, before=before, limit=limit)
    return as_json({"entries": found, "next_cursor": next_cursor})


async def _made(request: Request, house: House, asked: Any, how: NewKey | float, key_id: str | None) -> Response:
    """Make a key, once for each idempotency key; a repeat gets the same answer without the secret, which is not kept."""
    repeated, by = keyed(request, asked), house.caller.credential
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, repeated)
        if kept is not None:
            return as_json(kept.response, HTTP_CREATED, {"Idempotency-Replayed": "true"})
        if isinstance(how, NewKey):
            made = await keys.create(tx.db, how, by=by)
        else:
            made = await keys.rotate(tx.db, key_id or "", overlap_seconds=how, by=by)
        await idempotency.keep(tx, repeated, session_id=None, response=made | {"key": None})
    return as_json(made, HTTP_CREATED)
