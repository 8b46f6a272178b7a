"""What the door asks of turns: start, edit, cancel, interrupt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

from app import clock, ids, sessions
from app.errors import InvalidRequest, SessionArchived, SessionBusy, SessionNotRunning, TurnNotQueued
from app.journal.entry import Entry
from app.journal.journal import Transaction
from app.journal.types import TurnCancelled, TurnQueued
from app.sessions import Session
from app.turns import boundary, endings, opening, turn
from app.turns.claims import Claimant
from app.webhooks import outbox

OnBusy: TypeAlias = Literal["reject", "queue", "steer", "interrupt"]


@dataclass(frozen=True, slots=True)
class NewTurn:
    """What a caller wants answered.

    Args:
        prompt: JSON text: a string or blocks.
        overrides: options that hold for this turn alone.
    """

    prompt: str
    overrides: Mapping[str, Any]
    on_busy: OnBusy = "reject"


async def start(tx: Transaction, session: Session, new: NewTurn, claimant: Claimant) -> str:
    """Accept a turn: live at once where the session is idle, else queued or refused as the caller chose.

    Args:
        session: locked by this transaction.

    Returns:
        The turn's id; that of the live one where it was steered.

    Raises:
        SessionArchived: the session takes no turns.
        SessionBusy: a turn is live and the caller chose to be refused then.
        InvalidRequest: a live turn is to be steered, and options are given that it could not take any more.
    """
    if session.archived_at is not None:
        raise SessionArchived("The session is archived; unarchive it first.", session_id=session.id)
    turn_id = ids.turn_id()
    if session.current_turn_id is None:
        await _begin(tx, session, turn_id, new, claimant)
    elif new.on_busy == "queue":
        await _queue(tx, session, turn_id, new)
    elif new.on_busy == "steer":
        return await _steer(tx, session, new)
    elif new.on_busy == "interrupt":
        await endings.interrupt(tx, session, await turn.get(tx.db, session.id, session.current_turn_id), "superseded")
        await _begin(tx, await sessions.lock(tx, session.id), turn_id, new, claimant)
    else:
        raise SessionBusy(
            "A turn is live. Wait for its end, interrupt it, or send on_busy: queue, steer or interrupt.",
            session_id=session.id,
            turn_id=session.current_turn_id,
        )
    return turn_id


async def _begin(tx: Transaction, session: Session, turn_id: str, new: NewTurn, claimant: Claimant) -> None:
    begun = opening.Opening(turn_id, session.turn_count + 1, new.prompt, new.overrides)
    await opening.begin(tx, session, begun, claimant)


async def _steer(tx: Transaction, session: Session, new: NewTurn) -> str:
    if new.overrides:
        raise InvalidRequest.at(next(iter(new.overrides)), "The live turn's options cannot change; send the prompt alone.")
    assert session.current_turn_id is not None
    await boundary.steer(tx, session, await turn.get(tx.db, session.id, session.current_turn_id), new.prompt)
    return session.current_turn_id


async def edit(tx: Transaction, session: Session, turn_id: str, prompt: str) -> None:
    """Give a queued turn another prompt.

    Raises:
        TurnNotFound: the session has none of that id.
        TurnNotQueued: it has begun or is over.
    """
    await _queued(tx, session, turn_id)
    await tx.db.execute("UPDATE turns SET prompt = $3 WHERE session_id = $1 AND id = $2", session.id, turn_id, prompt)


async def cancel(tx: Transaction, session: Session, turn_id: str) -> None:
    """Take a queued turn out of the queue; it ends `cancelled`.

    Raises:
        TurnNotFound: the session has none of that id.
        TurnNotQueued: it has begun or is over.
    """
    await _queued(tx, session, turn_id)
    await _cancel(tx, session, turn_id, "user")


async def cancel_queued(tx: Transaction, session: Session) -> None:
    """Cancel every queued turn, because the session is archived."""
    for waiting in await turn.queued(tx.db, session.id):
        await _cancel(tx, session, waiting.id, "archived")


async def interrupt(
    tx: Transaction,
    session: Session,
    seen_turn_id: str,
    *,
    note: str | None,
    claimant: Claimant,
) -> None:
    """End the live turn now and keep what it has said; the next queued turn begins.

    Args:
        session: locked by this transaction.
        seen_turn_id: the turn that was live when the caller asked. If another interrupt has ended it since, its answer is
            shared and nothing is done.

    Raises:
        SessionNotRunning: that turn came to its own end first.
    """
    seen = await turn.get(tx.db, session.id, seen_turn_id)
    if session.current_turn_id == seen_turn_id:
        await endings.interrupt(tx, session, seen, "user", note)
        await endings.promote_next(tx, session.id, claimant)
    elif seen.status != "interrupted":
        raise SessionNotRunning("The turn has ended already.", session_id=session.id, turn_id=seen_turn_id)


async def stop_after_step(tx: Transaction, session: Session, seen_turn_id: str, *, note: str | None) -> None:
    """Have the live turn end at its next step boundary.

    Raises:
        SessionNotRunning: that turn came to its end first.
    """
    if session.current_turn_id != seen_turn_id:
        raise SessionNotRunning("The turn has ended already.", session_id=session.id, turn_id=seen_turn_id)
    await boundary.stop_after_step(tx, session, await turn.get(tx.db, session.id, seen_turn_id), note)


async def _queue(tx: Transaction, session: Session, turn_id: str, new: NewTurn) -> None:
    number, seq = session.turn_count + 1, session.last_seq + 1
    if session.is_watched:
        await outbox.mark(tx.db, session.id, turn_id)
    await tx.db.execute(
        """WITH counted AS (UPDATE sessions SET turn_count = $3, queued_turns = queued_turns + 1 WHERE id = $1)
           INSERT INTO turns (session_id, id, number, status, prompt, overrides, attempt, first_seq, last_seq, created_at,
                              credential)
           VALUES ($1, $2, $3, 'queued', $4, $5, 0, $6, $6, $7, $8)""",
        session.id,
        turn_id,
        number,
        new.prompt,
        orjson.dumps(new.overrides).decode(),
        seq,
        clock.now(),
        tx.credential,
    )
    await tx.append(Entry(session.id, session.fence, turn_id, [TurnQueued(number, orjson.loads(new.prompt))]))


async def _queued(tx: Transaction, session: Session, turn_id: str) -> None:
    found = await turn.get(tx.db, session.id, turn_id)
    if found.status != "queued":
        raise TurnNotQueued(f"The turn is {found.status}, no longer queued.", session_id=session.id, turn_id=turn_id)


async def _cancel(tx: Transaction, session: Session, turn_id: str, reason: Literal["user", "archived"]) -> None:
    appended = await tx.append(Entry(session.id, session.fence, turn_id, [TurnCancelled(reason)]))
    await tx.db.execute(
        """WITH counted AS (UPDATE sessions SET queued_turns = queued_turns - 1 WHERE id = $1)
           UPDATE turns SET status = 'cancelled', ended_at = $3, last_seq = $4 WHERE session_id = $1 AND id = $2""",
        session.id,
        turn_id,
        clock.now(),
        appended.last_seq,
    )
