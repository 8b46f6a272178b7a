"""Ephemeral sessions: each goes some seconds after its last turn, so that whoever waits for the turn still gets its answer.

The database's clock judges. A sweep that finds such a session still writes down when it is to go and the fence that this holds
for: a turn that begins meanwhile raises the fence, and the time is set anew after its end. A session that has taken no turn has
fence 0, as `erase_fence` begins, and stays.
"""

from app import sessions
from app.db.engine import Connection
from app.journal.journal import Transaction
from app.sessions import Session

GRACE_SECONDS = 5.0  # from the sweep that finds a session still to its erasure
BATCH = 100  # sessions of one sweep

_STILL = "is_ephemeral AND status = 'idle' AND queued_turns = 0"


async def mark(tx: Transaction, session: Session) -> None:
    """Let a session go after its last turn."""
    await tx.db.execute("UPDATE sessions SET is_ephemeral = true WHERE id = $1", session.id)


async def announce(db: Connection, *, grace_seconds: float) -> None:
    """Write down when ephemeral sessions go that have come to rest since."""
    await db.execute(
        f"""UPDATE sessions SET erase_fence = fence, erase_at = clock_timestamp() + make_interval(secs => $1)
            WHERE id IN (SELECT id FROM sessions WHERE {_STILL} AND erase_fence <> fence
                         ORDER BY id LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED)""",
        grace_seconds,
    )


async def erase_next(tx: Transaction) -> str | None:
    """Erase one ephemeral session whose time has come; its idempotency keys go on telling repeats that it is gone.

    Returns:
        Its id, or None where there is none.
    """
    session_id = await tx.db.fetchval(
        f"""SELECT id FROM sessions WHERE {_STILL} AND erase_fence = fence AND erase_at <= clock_timestamp()
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"""
    )
    if session_id is None:
        return None
    await sessions.erase(tx, await sessions.lock(tx, str(session_id)), forgets_keys=False)
    return str(session_id)
