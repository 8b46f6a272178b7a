"""Calls that callers answer: tools that they run, and approvals that they give.

What is pending stands on the turn's row; each answer is an event of the log and takes its call off that
row, under the session's lock, so that it is given once. A turn with nothing left to do but wait gives its claim back and holds
no worker; the last answer makes the next claim.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeAlias

import orjson

from app import clock, sessions
from app.db.engine import Connection
from app.errors import SessionNotFound, ToolCallNotPending
from app.journal.entry import Entry, TurnChange
from app.journal.journal import Transaction
from app.journal.types import ToolCallPending, ToolExecutionCompleted
from app.sessions import Session
from app.turns import turn
from app.turns.claims import LEASE_UNTIL, Claim, Claimant, Grant, claim_of
from app.turns.turn import Turn

Kind: TypeAlias = Literal["external", "approval"]
EXPIRED = {
    "external": "No result of this call came in time.",
    "approval": "Nobody decided in time whether this call may run; it was not run.",
}
DENIED = "The call was denied."


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that a caller is to answer.

    Args:
        seconds: how long it waits.
    """

    id: str
    name: str
    args: Any
    kind: Kind
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a caller's tool gave."""

    tool_call_id: str
    content: str
    is_error: bool


async def pend(tx: Transaction, session: Session, turn_id: str, wanted: Sequence[Wanted], *, number: int) -> None:
    """Let calls of a live turn wait for callers.

    Args:
        session: locked by this transaction.
        number: of the attempt's entry.
    """
    live = await turn.get(tx.db, session.id, turn_id)
    now = await _now(tx.db)
    told = [
        ToolCallPending(one.id, one.name, one.args, one.kind, clock.rfc3339(now + timedelta(seconds=one.seconds)))
        for one in wanted
    ]
    await tx.append(Entry(session.id, session.fence, turn_id, told, number=number))
    shown = [
        {
            "id": one.id,
            "name": one.name,
            "args": one.args,
            "kind": one.kind,
            "expires_at": one.expires_at,
            "since": clock.rfc3339(now),
        }
        for one in told
    ]
    await _write(tx, live, [*live.pending, *shown])


async def park(tx: Transaction, session: Session, turn_id: str, spent: TurnChange, *, number: int) -> bool:
    """Let a turn wait without a worker, if it has something to wait for.

    Args:
        spent: what the attempt has to count, whether it waits or not.
        number: of the attempt's entry.

    Returns:
        Whether it waits now; False where every call has been answered, and the attempt goes on.
    """
    await tx.append(Entry(session.id, session.fence, turn_id, (), change=spent, number=number))
    live = await turn.get(tx.db, session.id, turn_id)
    if not live.pending:
        return False
    await tx.db.execute(
        """WITH parked AS (UPDATE sessions SET status = 'waiting', fence = fence + 1 WHERE id = $1)
           UPDATE turns SET status = 'waiting', owner = NULL, lease_expires_at = NULL WHERE session_id = $1 AND id = $2""",
        session.id,
        turn_id,
    )
    return True


async def answer(tx: Transaction, session: Session, results: Sequence[Result], claimant: Claimant) -> str:
    """Take callers' results, all or none; with the last one that is waited for the turn goes on.

    Returns:
        The turn's id.

    Raises:
        ToolCallNotPending: one of them is for a call that no one waits for, or comes twice.
    """
    live = await _live(tx, session)
    pending = {call["id"]: call for call in live.pending if call["kind"] == "external"}
    for result in results:
        if pending.pop(result.tool_call_id, None) is None:
            raise _not_pending(session, live)
    by_id = {result.tool_call_id: (result.content, result.is_error) for result in results}
    await _conclude(tx, session, live, lambda call: by_id.get(call["id"]), claimant)
    return live.id


async def decide(
    tx: Transaction, session: Session, call_id: str, *, is_allowed: bool, message: str | None, claimant: Claimant
) -> str:
    """Take a decision on a call that waits for approval; once it is the last that is waited for, the turn goes on.

    Returns:
        The turn's id.

    Raises:
        ToolCallNotPending: no one waits for it.
    """
    live = await _live(tx, session)
    if not any(call["id"] == call_id and call["kind"] == "approval" for call in live.pending):
        raise _not_pending(session, live)
    if is_allowed:
        await tx.db.execute(
            "UPDATE turns SET allowed = $3 WHERE session_id = $1 AND id = $2",
            session.id,
            live.id,
            orjson.dumps([*live.allowed, call_id]).decode(),
        )
        await _take_off(tx, session, live, {call_id}, claimant)
    else:
        denied = (f"{DENIED} {message}" if message else DENIED, True)
        await _conclude(tx, session, live, lambda call: denied if call["id"] == call_id else None, claimant)
    return live.id


async def expire(tx: Transaction, session_id: str, claimant: Claimant) -> bool:
    """Answer what has waited too long with an error result.

    Returns:
        Whether there was something.
    """
    try:
        session = await sessions.lock(tx, session_id)
    except SessionNotFound:
        return False
    if session.current_turn_id is None:
        return False
    live, now = await turn.get(tx.db, session_id, session.current_turn_id), clock.rfc3339(await _now(tx.db))
    late = {call["id"]: EXPIRED[call["kind"]] for call in live.pending if call["expires_at"] <= now}
    if late:
        await _conclude(tx, session, live, lambda call: (late[call["id"]], True) if call["id"] in late else None, claimant)
    return bool(late)


async def overdue(db: Connection, limit: int) -> list[tuple[str, str]]:
    """Return realms and ids of sessions whose turn has a call that has waited too long."""
    rows = await db.fetch(
        "SELECT realm_id, session_id FROM turns WHERE waits_until <= clock_timestamp() ORDER BY waits_until LIMIT $1", limit
    )
    return [(row["realm_id"], str(row["session_id"])) for row in rows]


async def _live(tx: Transaction, session: Session) -> Turn:
    if session.current_turn_id is None:
        raise ToolCallNotPending("No turn is live, so no call is waited for.", session_id=session.id)
    return await turn.get(tx.db, session.id, session.current_turn_id)


def _not_pending(session: Session, live: Turn) -> ToolCallNotPending:
    return ToolCallNotPending(
        "No one waits for that call: it was answered, has expired, or never was.", session_id=session.id, turn_id=live.id
    )


async def _conclude(
    tx: Transaction,
    session: Session,
    live: Turn,
    outcome: Callable[[Mapping[str, Any]], tuple[str, bool] | None],
    claimant: Claimant,
) -> None:
    """Put outcomes on the log, where there are some for pending calls."""
    found = {call["id"]: (call, given) for call in live.pending if (given := outcome(call)) is not None}
    now = await _now(tx.db)
    events = [
        ToolExecutionCompleted(call["id"], call["name"], *given, _duration_ms(call, now)) for call, given in found.values()
    ]
    await tx.append(Entry(session.id, session.fence, live.id, events))
    await _take_off(tx, session, live, set(found), claimant)


def _duration_ms(call: Mapping[str, Any], now: datetime) -> int:
    """Return how long a caller's tool took; a call that only waited for leave has not run."""
    if call["kind"] == "approval":
        return 0
    return round((now - datetime.fromisoformat(call["since"])).total_seconds() * 1000)


async def _take_off(tx: Transaction, session: Session, live: Turn, done: set[str], claimant: Claimant) -> None:
    left = [call for call in live.pending if call["id"] not in done]
    await _write(tx, live, left)
    if not left and live.status == "waiting":
        await _resume(tx, session, live, claimant)


async def _write(tx: Transaction, live: Turn, pending: Sequence[Mapping[str, Any]]) -> None:
    first = min((datetime.fromisoformat(call["expires_at"]) for call in pending), default=None)
    await tx.db.execute(
        "UPDATE turns SET pending = $3, waits_until = $4 WHERE session_id = $1 AND id = $2",
        live.session_id,
        live.id,
        orjson.dumps(pending).decode() if pending else None,
        first,
    )


async def _resume(tx: Transaction, session: Session, live: Turn, claimant: Claimant) -> None:
    """Claim a turn that waited; without room here any node takes it."""
    grant = Grant.by(claimant)
    await tx.db.execute(
        f"""WITH taken AS (UPDATE sessions SET status = 'running', fence = fence + 1, append_number = 0 WHERE id = $1
                           RETURNING fence)
            UPDATE turns SET status = 'running', fence = taken.fence, owner = $3,
              lease_expires_at = {LEASE_UNTIL.format("$4::float8")} FROM taken WHERE session_id = $1 AND id = $2""",
        session.id,
        live.id,
        grant.owner,
        grant.lease_seconds,
    )
    if grant.owner is not None:
        claim: Claim = claim_of(session, live, grant, attempt=live.attempt)
        tx.after_commit.append(partial(claimant.take, claim))


async def _now(db: Connection) -> datetime:
    now: datetime = await db.fetchval("SELECT clock_timestamp()")
    return now
