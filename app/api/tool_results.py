"""Routes by which callers answer what a turn waits for: results of their tools, and approvals."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from app import idempotency, sessions
from app.api import documents, schemas, views
from app.api.answers import as_json
from app.api.dependencies import House, Rooms, body, keyed
from app.journal.journal import Transaction
from app.sessions import Session
from app.turns import turn, waiting
from app.turns.waiting import Result

router = APIRouter(tags=["turns"])


@router.post(
    "/v1/sessions/{session_id}/tool_results",
    responses={200: {"model": views.TurnView}, **documents.problems(400, 404, 409, 413, 415, 422)},
    openapi_extra=documents.takes(schemas.ToolResults),
    summary="Answer calls of tools that the caller runs",
)
async def answer(
    session_id: str,
    request: Request,
    house: Rooms,
    asked: Annotated[schemas.ToolResults, Depends(body(schemas.ToolResults))],
) -> Response:
    """Answer calls that wait for their caller; with the last one the turn goes on."""
    results = [Result(one.tool_call_id, one.content, one.is_error) for one in asked.results]

    async def act(tx: Transaction, session: Session) -> str:
        return await waiting.answer(tx, session, results, house.claimant)

    return await _act(request, house, session_id, asked, act)


@router.post(
    "/v1/sessions/{session_id}/approvals/{tool_call_id}",
    responses={200: {"model": views.TurnView}, **documents.problems(400, 404, 409, 413, 415, 422)},
    openapi_extra=documents.takes(schemas.Decision),
    summary="Allow or deny a call",
)
async def decide(
    session_id: str,
    tool_call_id: str,
    request: Request,
    house: Rooms,
    asked: Annotated[schemas.Decision, Depends(body(schemas.Decision))],
) -> Response:
    """Allow a call that waits for approval, or deny it: the model gets an error result then."""

    async def act(tx: Transaction, session: Session) -> str:
        return await waiting.decide(
            tx,
            session,
            tool_call_id,
            is_allowed=asked.decision == "allow",
            message=asked.message,
            claimant=house.claimant,
        )

    return await _act(request, house, session_id, asked, act)


async def _act(
    request: Request,
    house: House,
    session_id: str,
    asked: BaseModel,
    act: Callable[[Transaction, Session], Awaitable[str]],
) -> Response:
    """Do one act on a live turn, once for each idempotency key, and answer with the turn."""
    key = keyed(request, asked)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None:
            return as_json(kept.response, headers={"Idempotency-Replayed": "true"})
        turn_id = await act(tx, await sessions.lock(tx, session_id))
        view: dict[str, Any] = turn.view(await turn.get(tx.db, session_id, turn_id))
        await idempotency.keep(tx, key, session_id=session_id, response=view)
    return as_json(view)
