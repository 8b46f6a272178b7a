"""The four ways of answering a turn: at once, after a while, at its end, as a stream."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from app import sessions
from app.api import streams
from app.api.dependencies import House, Manner
from app.api.streams import Reading
from app.journal.reader import Filter
from app.journal.types import TERMINAL
from app.turns import turn

HTTP_CREATED = 201


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a POST has made durable, and how its caller wants to hear of it.

    Args:
        turn_id: the turn to tell of; None where there is only a session.
        is_new_session: whether the answer is that of a creation.
        is_replayed: whether an earlier request with the same key has made it.
        after: the session's last number before the turn; None where this request did not start it.
    """

    session_id: str
    turn_id: str | None
    manner: Manner
    is_new_session: bool
    is_replayed: bool
    after: int | None = None


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make a JSON answer."""
    return Response(orjson.dumps(value), status, dict(headers or {}), "application/json")


async def tell(house: House, accepted: Accepted) -> Response:
    """Answer a POST that started a turn, or made a session."""
    if accepted.turn_id is None:
        return await _tell_session(house, accepted)
    after = accepted.after
    if after is None:
        after = (await _turn(house, accepted.session_id, accepted.turn_id)).first_seq - 1
    if accepted.manner.is_stream:
        status = HTTP_CREATED if accepted.is_new_session else 200
        reading = Reading(accepted.session_id, after, Filter(turn_id=accepted.turn_id), ends_with_turn=True)
        return streams.respond(house, reading, status=status, headers=_headers(accepted))
    if accepted.manner.wait_seconds > 0:
        await _wait(house, accepted.session_id, accepted.turn_id, after, accepted.manner.wait_seconds)
    if accepted.is_new_session:
        return await _tell_session(house, accepted)
    found = await _turn(house, accepted.session_id, accepted.turn_id)
    return as_json(turn.view(found), 200 if found.is_over else 202, _headers(accepted))


async def _turn(house: House, session_id: str, turn_id: str) -> turn.Turn:
    async with house.reading() as db:
        return await turn.get(db, session_id, turn_id)


async def _tell_session(house: House, accepted: Accepted) -> Response:
    async with house.reading() as db:
        first = None if accepted.turn_id is None else await turn.get(db, accepted.session_id, accepted.turn_id)
        session = await sessions.get(db, accepted.session_id)
    created = {
        "session_id": session.id,
        "session": sessions.view(session),
        "turn": None if first is None else turn.view(first),
    }
    return as_json(created, HTTP_CREATED, _headers(accepted))


async def _wait(house: House, session_id: str, turn_id: str, after: int, seconds: float) -> None:
    """Return when a turn is over, when the time is up, or when this node drains."""
    which = Filter(types=TERMINAL, turn_id=turn_id)
    with house.journal.subscriptions.open(house.caller.realm, session_id, after=after, which=which) as subscription:
        try:
            async with asyncio.timeout(seconds), aclosing(subscription.read()) as batches:
                async for _ in batches:
                    return
        except TimeoutError:
            return


def _headers(accepted: Accepted) -> dict[str, str]:
    headers = {"Location": f"/v1/sessions/{accepted.session_id}"}
    if not accepted.is_new_session:
        headers["Location"] += f"/turns/{accepted.turn_id}"
    if accepted.manner.applied is not None:
        headers["Preference-Applied"] = accepted.manner.applied
    if accepted.is_replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers
