"""Between two steps: words of callers enter the live turn there, and one that was asked to stop after its step ends there.

Both stand on the turn's row and are marked on the session's. An entry that closes a step is refused while the mark is set, so
that nothing can pass it; its writer then comes here, under the session's lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson

from app.journal.entry import Entry
from app.journal.journal import Transaction
from app.messages import Message
from app.sessions import Session
from app.turns import endings, steering, turn
from app.turns.claims import Claimant
from app.turns.turn import Turn


@dataclass(frozen=True, slots=True)
class Crossing:
    """What came of a step boundary.

    Args:
        steered: what the model reads next.
        is_over: whether the turn has ended there.
    """

    steered: Sequence[Message] = field(default_factory=tuple)
    is_over: bool = False


async def steer(tx: Transaction, session: Session, live: Turn, prompt: str) -> None:
    """Leave words for the live turn's next step.

    Args:
        session: locked by this transaction.
        prompt: JSON text: a string or blocks.
    """
    await _leave(tx, session, live, "steering", f"[{','.join([*live.steering, prompt])}]")


async def stop_after_step(tx: Transaction, session: Session, live: Turn, note: str | None) -> None:
    """Have the live turn end at its next step boundary."""
    await _leave(tx, session, live, "stop_note", orjson.dumps({"note": note}).decode())


async def cross(tx: Transaction, session: Session, entry: Entry, claimant: Claimant) -> Crossing:
    """Write the entry that closes a step, with what waits for that moment.

    Args:
        session: locked by this transaction; its fence is the entry's.
    """
    assert entry.turn_id is not None
    live = await turn.get(tx.db, session.id, entry.turn_id)
    words = steering.words(live)
    if entry.ends and not words:
        await tx.append(replace(entry, is_settled=True))
        await endings.promote_next(tx, session.id, claimant)
        return Crossing(is_over=True)
    events = [*(entry.events[:-1] if entry.ends else entry.events), *steering.told(live)]
    change = replace(entry.change, ending=None) if entry.change is not None else None
    messages = [*entry.messages, *words]
    await tx.append(replace(entry, events=events, messages=messages, change=change, is_settled=True))
    await _forget(tx, live)
    if live.stop_note is None:
        return Crossing(words)
    await _stop(tx, session, live, claimant)
    return Crossing(is_over=True)


async def _stop(tx: Transaction, session: Session, live: Turn, claimant: Claimant) -> None:
    note = orjson.loads(live.stop_note or "{}").get("note")
    await endings.interrupt(tx, session, await turn.get(tx.db, session.id, live.id), "user", note)
    await endings.promote_next(tx, session.id, claimant)


async def _leave(tx: Transaction, session: Session, live: Turn, column: str, value: str) -> None:
    await tx.db.execute(
        f"""WITH marked AS (UPDATE sessions SET has_notes = true WHERE id = $1)
            UPDATE turns SET {column} = $3 WHERE session_id = $1 AND id = $2""",
        session.id,
        live.id,
        value,
    )


async def _forget(tx: Transaction, live: Turn) -> None:
    await tx.db.execute(
        """WITH cleared AS (UPDATE sessions SET has_notes = false WHERE id = $1)
           UPDATE turns SET steering = NULL, stop_note = NULL WHERE session_id = $1 AND id = $2""",
        live.session_id,
        live.id,
    )
