"""A turn that nobody holds goes on: the next attempt claims it like any other, or it ends where too many have crashed.

Taking over twice is harmless: the claim is made under the session's lock, and who comes second finds a lease in force.
"""

from collections.abc import Sequence
from functools import partial

from app import sessions
from app.agent import transcript
from app.db.engine import Row
from app.errors import AgentError, SessionNotFound
from app.journal import reader
from app.journal.entry import Entry
from app.journal.event import Event
from app.journal.journal import Transaction
from app.journal.types import StepDiscarded, TurnResumed
from app.sessions import Session
from app.turns import endings, turn
from app.turns.claims import LEASE_UNTIL, Claimant, Grant, claim_of
from app.turns.turn import Turn

MOST_RECOVERIES = 3  # attempts that may crash before the turn is given up


async def take_over(tx: Transaction, session_id: str, claimant: Claimant) -> bool:
    """Claim a session's live turn if nobody holds it.

    Returns:
        Whether anything was done; False where another was quicker or this node has no room.
    """
    free = await tx.db.fetchrow(_LOCK_IF_FREE, session_id)
    if free is None:
        return False
    try:
        session = await sessions.lock(tx, session_id)
    except SessionNotFound:
        return False
    if session.current_turn_id is None or not await _is_due(tx, session):
        return False
    live = await turn.get(tx.db, session_id, session.current_turn_id)
    recoveries = live.recoveries + (live.owner is not None)
    if recoveries >= MOST_RECOVERIES:
        await _give_up(tx, session, live, recoveries, claimant)
        return True
    grant = Grant.by(claimant)
    if grant.owner is None:
        return False
    await _claim(tx, session, live, recoveries, grant)
    claim = claim_of(session, live, grant, attempt=live.attempt + 1)
    tx.after_commit.append(partial(claimant.take, claim))
    return True


_LOCK_IF_FREE = "SELECT id FROM sessions WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"


async def _is_due(tx: Transaction, session: Session) -> bool:
    row: Row = await tx.db.fetchrow(
        """SELECT status = 'running' AND lease_expires_at <= clock_timestamp() AS is_due
           FROM turns WHERE session_id = $1 AND id = $2""",
        session.id,
        session.current_turn_id,
    )
    return bool(row["is_due"])


async def _give_up(tx: Transaction, session: Session, live: Turn, recoveries: int, claimant: Claimant) -> None:
    error = AgentError("RECOVERY_LIMIT", f"The turn was given up: {recoveries} attempts at it stopped without an end.")
    await endings.fail_live(tx, session, live, error)
    await endings.promote_next(tx, session.id, claimant)
    tx.after_commit.append(partial(claimant.gave_up, session, live, error))


async def _claim(tx: Transaction, session: Session, live: Turn, recoveries: int, grant: Grant) -> None:
    await tx.db.execute(
        f"""WITH taken AS (UPDATE sessions SET fence = fence + 1, append_number = 0 WHERE id = $1 RETURNING fence)
            UPDATE turns SET fence = taken.fence, owner = $3, lease_expires_at = {LEASE_UNTIL.format("$4::float8")},
              attempt = attempt + 1, recoveries = $5 FROM taken WHERE session_id = $1 AND id = $2""",
        session.id,
        live.id,
        grant.owner,
        grant.lease_seconds,
        recoveries,
    )
    events = await _told(tx, session, live, grant)
    if events:
        await tx.append(Entry(session.id, session.fence + 1, live.id, events))


async def _told(tx: Transaction, session: Session, live: Turn, grant: Grant) -> Sequence[Event]:
    """What the log says of the new attempt; nothing where it is the first."""
    if live.attempt == 0 or grant.owner is None:
        return []
    events: list[Event] = [TurnResumed(live.attempt + 1, grant.owner)]
    state = transcript.fold(await reader.current_step(tx.db, session.id, live.id))
    if state is not None and state.is_cut:
        events.append(StepDiscarded(state.step, "resumed", state.from_seq))
    return events
