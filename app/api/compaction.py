"""The route by which a caller has a session's transcript summed up."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import history, idempotency, realms, sessions
from app.agent import compaction
from app.agent.budget import Budget, meters
from app.agent.compaction import Unsummed
from app.api import documents, schemas, views
from app.api.answers import as_json
from app.api.dependencies import House, Rooms, body, keyed
from app.errors import AgentError, SessionArchived, SessionBusy, SessionCompactionDisabled
from app.journal.asides import CompactionFailed, CompactionStarted
from app.journal.entry import Entry, Model, TurnChange
from app.journal.event import Event
from app.journal.journal import Transaction
from app.messages import NO_USAGE
from app.providers.base import Provider
from app.sessions import Session
from app.turns import compacting
from app.turns.claims import session_used

router = APIRouter(tags=["sessions"])


@router.post(
    "/v1/sessions/{session_id}/compact",
    responses={200: {"model": views.SessionView}, **documents.problems(400, 404, 409, 413, 415, 422, 501)},
    summary="Sum up what the model reads",
)
async def compact(
    session_id: str, request: Request, house: Rooms, asked: Annotated[schemas.Nothing, Depends(body(schemas.Nothing))]
) -> Response:
    """Have the model sum up the older messages of an idle session; the history keeps them all."""
    key = keyed(request, asked)
    async with house.transaction() as tx:
        if await idempotency.begin(tx, key) is not None:
            return as_json(sessions.view(await sessions.get(tx.db, session_id)), headers={"Idempotency-Replayed": "true"})
        config = (await realms.get(tx.db)).config
        if config.compacts is False:
            raise SessionCompactionDisabled
        session = _still(await sessions.lock(tx, session_id))
        providers = house.vendors.of(config.brought, realm=tx.db.realm)
        provider = providers[providers.choose(session.options.model, session.options.provider)]
        messages = await history.transcript(tx.db, session.id, summed_up_to=session.summed_up_to)
        parts = compaction.cut(messages)
        if parts is None:
            await idempotency.keep(tx, key, session_id=session.id)
            return as_json(sessions.view(session))
        await _tell(tx, session, CompactionStarted(compaction.tokens_of(messages), len(messages)))
    outcome = await _sum_up(house, provider, session, parts)
    async with house.transaction() as tx:
        await _conclude(tx, session, parts, outcome)
        # With the summary: where the server dies before it, a repeat makes one.
        await idempotency.keep(tx, key, session_id=session.id)
        return as_json(sessions.view(await sessions.get(tx.db, session_id)))


async def _sum_up(
    house: House, provider: Provider, session: Session, parts: compaction.Cut
) -> compaction.Summary | CompactionFailed:
    options = session.options
    try:
        Budget(meters(options.budget_limits, session_used(session))).check()
        return await compaction.sum_up(provider, options.model, parts, context_tokens=house.context_tokens(options))
    except AgentError as error:
        return CompactionFailed(error.detail, error.usage if isinstance(error, Unsummed) else NO_USAGE)


async def _conclude(
    tx: Transaction, before: Session, parts: compaction.Cut, outcome: compaction.Summary | CompactionFailed
) -> None:
    now = await sessions.lock(tx, before.id)
    if now.message_count != before.message_count:
        outcome = CompactionFailed("The transcript has changed meanwhile.", outcome.usage)
    if isinstance(outcome, CompactionFailed):
        counted = TurnChange.of(outcome.usage, _model(before))
        await _tell(tx, now, outcome, replace(counted, credential=tx.credential))
    else:
        await compacting.keep(tx, _still(now), None, compaction.Compacted.of(parts, outcome, _model(before)))


def _still(session: Session) -> Session:
    if session.archived_at is not None:
        raise SessionArchived("The session is archived; unarchive it first.", session_id=session.id)
    if session.current_turn_id is not None:
        raise SessionBusy("A turn is live. Wait for its end, or interrupt it.", session_id=session.id)
    return session


async def _tell(tx: Transaction, session: Session, event: Event, change: TurnChange | None = None) -> None:
    await tx.append(Entry(session.id, session.fence, None, [event], change=change))


def _model(session: Session) -> Model:
    return Model(session.options.provider, session.options.model)
