"""Routes of sessions: create, read, list, change, archive, erase, and their messages."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import catalog, expiry, history, idempotency, realms, sessions
from app.api import answers, documents, options, schemas, views
from app.api.answers import Accepted, as_json
from app.api.defaults import Defaults
from app.api.dependencies import House, Query, Rooms, body, keyed, manner
from app.copies import imports
from app.errors import InvalidRequest, SessionPersistenceDisabled
from app.journal.journal import Transaction
from app.realms import FallbackModel
from app.sessions import Session
from app.turns import desk, endings, turn
from app.turns.desk import NewTurn

router = APIRouter(tags=["sessions"])

_OPTIONS = ("model", "provider", "system_prompt", "max_tokens", "provider_params", "tools")
_LIST = documents.query(
    limit={"type": "integer", "minimum": 0, "maximum": 200, "default": 50},
    cursor={"type": "string", "description": "`next_cursor` of the page before."},
    offset={"type": "integer", "minimum": 0, "description": "For small lists; prefer `cursor`."},
    order={"type": "string", "enum": ["-updated_at", "-created_at"], "default": "-updated_at"},
    label={"type": "array", "items": {"type": "string"}, "description": "`key:value`; may repeat, all must match."},
    status={"type": "string", "enum": ["idle", "running", "waiting", "archived"]},
    archived={"type": "string", "enum": ["false", "true", "any"], "default": "false"},
    q={"type": "string", "description": "Part of the title."},
)


@router.post(
    "/v1/sessions",
    status_code=201,
    responses={201: {"model": views.Created}, **documents.problems(400, 409, 413, 415, 422, 501)},
    openapi_extra=documents.takes(schemas.CreateSession, documents.PREFER),
    summary="Open a session, and run its first turn",
)
async def create(
    request: Request, house: Rooms, asked: Annotated[schemas.CreateSession, Depends(body(schemas.CreateSession))]
) -> Response:
    """Open a session; with a prompt its first turn runs, answered in the way that is asked for (`Prefer`, `Accept`)."""
    how, key, after = manner(request), keyed(request, asked), None
    await options.check_schema(asked.output_schema)
    if asked.resume_session is not None:
        await options.check_schema(asked.resume_session.session.options.output_schema)
    if how.is_stream:
        house.check_stream()
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is None:
            await house.check_session(tx)
            session = await _open(tx, house, asked)
            turn_id, after = await _start_first(tx, house, session, asked), session.last_seq
            session_id = str(session.id)
            await idempotency.keep(tx, key, session_id=session_id, turn_id=turn_id)
        else:
            session_id, turn_id = kept.session_id, kept.turn_id
    return await answers.tell(house, Accepted(session_id, turn_id, how, True, kept is not None, after))


@router.get(
    "/v1/sessions",
    responses={200: {"model": views.SessionPage}, **documents.problems(400, 422)},
    openapi_extra=_LIST,
    summary="List sessions",
)
async def find(request: Request, house: Rooms) -> Response:
    """List sessions, the one changed last first."""
    async with house.reading() as db:
        found, next_cursor = await catalog.find(db, _query(request))
    return as_json({"sessions": [sessions.summary(session) for session in found], "next_cursor": next_cursor})


@router.get(
    "/v1/sessions/{session_id}",
    responses={200: {"model": views.SessionView}, **documents.problems(404)},
    summary="Read a session",
)
async def get(session_id: str, request: Request, house: Rooms) -> Response:
    """Read a session; never waits for a running turn."""
    Query(request)
    async with house.reading() as db:
        return as_json(sessions.view(await sessions.get(db, session_id)))


@router.patch(
    "/v1/sessions/{session_id}",
    responses={200: {"model": views.SessionView}, **documents.problems(400, 404, 413, 415, 422, 501)},
    openapi_extra=documents.takes(schemas.ChangeSession),
    summary="Change a session",
)
async def change(
    session_id: str, house: Rooms, asked: Annotated[schemas.ChangeSession, Depends(body(schemas.ChangeSession))]
) -> Response:
    """Change a session by a merge patch; what its model is told takes effect from the next turn."""
    await options.check_schema(asked.output_schema)
    async with house.transaction() as tx:
        session = await sessions.lock(tx, session_id)
        realm = await realms.get(tx.db)
        new = options.changed(house.defaults(realm.config), session, asked)
        changes = options.changes(session, new, asked)
        changed = await sessions.update(tx, session, new, changes, config_generation=realm.generation)
    return as_json(sessions.view(changed))


@router.post(
    "/v1/sessions/{session_id}/archive",
    responses={200: {"model": views.SessionView}, **documents.problems(400, 404, 409, 413, 415, 422)},
    summary="Archive a session",
)
async def archive(
    session_id: str, request: Request, house: Rooms, asked: Annotated[schemas.Nothing, Depends(body(schemas.Nothing))]
) -> Response:
    """Archive a session: its live turn is interrupted, queued ones are cancelled, streams end."""

    async def act(tx: Transaction, session: Session) -> Session:
        if session.current_turn_id is not None:
            await endings.interrupt(tx, session, await turn.get(tx.db, session.id, session.current_turn_id), "archived")
            session = await sessions.lock(tx, session.id)
        await desk.cancel_queued(tx, session)
        return await sessions.archive(tx, session)

    return await _act(request, house, session_id, asked, act)


@router.post(
    "/v1/sessions/{session_id}/unarchive",
    responses={200: {"model": views.SessionView}, **documents.problems(400, 404, 409, 413, 415, 422)},
    summary="Let an archived session take turns again",
)
async def unarchive(
    session_id: str, request: Request, house: Rooms, asked: Annotated[schemas.Nothing, Depends(body(schemas.Nothing))]
) -> Response:
    """Let an archived session take turns again."""
    return await _act(request, house, session_id, asked, sessions.unarchive)


@router.delete(
    "/v1/sessions/{session_id}",
    status_code=204,
    responses=documents.problems(404),
    summary="Erase a session",
)
async def erase(session_id: str, house: Rooms) -> Response:
    """Erase everything of a session; a live turn of it stops."""
    async with house.transaction() as tx:
        session = await sessions.lock(tx, session_id)
        await sessions.erase(tx, session)
        tx.after_commit.append(lambda: house.journal.forget(session.id))
    return Response(status_code=204)


@router.get(
    "/v1/sessions/{session_id}/messages",
    responses={200: {"model": views.MessagePage}, **documents.problems(400, 404, 422)},
    openapi_extra=documents.query(
        after={"type": "integer", "minimum": 0, "description": "Ordinal to read from behind."},
        limit={"type": "integer", "minimum": 0, "maximum": 200, "default": 50},
    ),
    summary="Read a session's messages",
)
async def messages(session_id: str, request: Request, house: Rooms) -> Response:
    """Read the whole history, oldest first."""
    query = Query(request, "after", "limit")
    after, limit = query.cursor("after"), query.integer("limit", 50, most=200)
    async with house.reading() as db:
        session = await sessions.get(db, session_id)
        found = await history.messages(db, session.id, after=min(after, 2**31 - 1), limit=limit)
    return as_json({"messages": found, "next_after": found[-1]["ordinal"] if found else after})


async def _open(tx: Transaction, house: House, asked: schemas.CreateSession) -> Session:
    realm = await realms.get(tx.db)
    kept_prompt = schemas.kept_blocks(asked.prompt) if asked.is_deferred and asked.prompt is not None else None
    if asked.resume_session is not None:
        session = await _resume(tx, house.defaults(realm.config), asked, realm.generation)
        return session if kept_prompt is None else await sessions.keep_prompt(tx, session, kept_prompt)
    session = await sessions.create(
        tx,
        options.chosen(house.defaults(realm.config), asked),
        title=asked.title,
        labels=asked.labels or {},
        kept_prompt=kept_prompt,
        config_generation=realm.generation,
    )
    if asked.ephemeral:
        await expiry.mark(tx, session)
    return session


async def _resume(tx: Transaction, defaults: Defaults, asked: schemas.CreateSession, generation: int) -> Session:
    """Open a session from a document; what is given beside it changes it as a patch would, where it is not null."""
    if asked.ephemeral:
        raise SessionPersistenceDisabled
    assert asked.resume_session is not None
    session = await imports.resume(tx, asked.resume_session, config_generation=generation)
    given = {name: getattr(asked, name, None) for name in schemas.ChangeSession.model_fields}
    patch = schemas.ChangeSession(**{name: value for name, value in given.items() if value is not None})
    if patch.model is None and patch.provider is None:
        defaults.providers.choose(session.options.model, session.options.provider)
    new = options.changed(defaults, session, patch)
    defaults.fallbacks([FallbackModel.model_validate(named) for named in new.fallback_models])
    defaults.providers.check_params(new.provider, new.provider_params)
    defaults.hooks.hooks(new.hooks_override)
    return await sessions.update(tx, session, new, options.changes(session, new, patch))


async def _start_first(tx: Transaction, house: House, session: Session, asked: schemas.CreateSession) -> str | None:
    if asked.is_deferred or asked.prompt is None:
        return None
    await house.check_turn(tx)
    return await desk.start(tx, session, NewTurn(schemas.prompt_text(asked.prompt), {}), house.claimant)


async def _act(request: Request, house: House, session_id: str, asked: schemas.Nothing, act: Any) -> Response:
    """Do one act on a session, once for each idempotency key, and answer with its view."""
    key = keyed(request, asked)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None:
            return as_json(kept.response, headers={"Idempotency-Replayed": "true"})
        view = sessions.view(await act(tx, await sessions.lock(tx, session_id)))
        await idempotency.keep(tx, key, session_id=session_id, response=view)
    return as_json(view)


def _query(request: Request) -> catalog.Query:
    names = ("limit", "cursor", "offset", "order", "label", "status", "archived", "q")
    query = Query(request, *names, repeatable=frozenset({"label"}))
    order: Any = query.choice("order", "-updated_at", "-created_at") or "-updated_at"
    status: Any = query.choice("status", "idle", "running", "waiting", "archived")
    archived: Any = query.choice("archived", "false", "true", "any") or ("any" if status == "archived" else "false")
    labels = query.texts("label")
    if not all(":" in label for label in labels):
        raise InvalidRequest.at("query.label", "A label is key:value.")
    cursor = query.text("cursor")
    return catalog.Query(
        limit=query.integer("limit", 50, most=200),
        offset=query.integer("offset", 0, most=2**31 - 1),
        order=order,
        labels=labels,
        status=status,
        archived=archived,
        text=query.text("q"),
        after=None if cursor is None else catalog.read_cursor(cursor, order),
    )
