"""Sessions that go by themselves: ephemeral ones, and those that were archived long ago.

An ephemeral session goes some seconds after its last turn, so that whoever waits for the turn still gets its answer. The
database's clock judges. A sweep that finds such a session still writes down when it is to go and the fence that this holds
for: a turn that begins meanwhile raises the fence, and the time is set anew after its end. A session that has taken no turn
has fence 0, as `erase_fence` begins, and stays. One that webhooks are still to be told of stays until they
are, or are given up.
"""

from datetime import datetime

from app import sessions
from app.db.engine import Connection
from app.journal.journal import Transaction
from app.sessions import Session

GRACE_SECONDS = 5.0  # from the sweep that finds a session still to its erasure
BATCH = 100  # sessions of one sweep

_STILL = "is_ephemeral AND status = 'idle' AND queued_turns = 0"
_TOLD = """NOT EXISTS (SELECT FROM webhook_watches w WHERE w.session_id = sessions.id)
AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.session_id = sessions.id AND d.status = 'pending')"""
_IS_DUE = f"{_STILL} AND erase_fence = fence AND erase_at <= clock_timestamp() AND {_TOLD}"


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


async def due(db: Connection) -> list[tuple[str, str]]:
    """Return realms and ids of ephemeral sessions whose time has come."""
    rows = await db.fetch(f"SELECT realm_id, id FROM sessions WHERE {_IS_DUE} ORDER BY id LIMIT {BATCH}")
    return [(row["realm_id"], str(row["id"])) for row in rows]


async def erase(tx: Transaction, session_id: str) -> bool:
    """Erase an ephemeral session whose time has come; its idempotency keys go on telling repeats that it is gone.

    Returns:
        Whether it was done; not where another hand has the session, or it has begun a turn meanwhile.
    """
    return await _erase(tx, session_id, _IS_DUE, forgets_keys=False)


async def archived(db: Connection, *, before: datetime) -> list[tuple[str, str]]:
    """Return realms and ids of sessions that have been archived since before a moment, the first of them."""
    rows = await db.fetch(
        f"SELECT realm_id, id FROM sessions WHERE archived_at < $1 ORDER BY archived_at LIMIT {BATCH}", before
    )
    return [(row["realm_id"], str(row["id"])) for row in rows]


async def erase_archived(tx: Transaction, session_id: str, *, before: datetime) -> bool:
    """Erase a session that has been archived since before a moment.

    Returns:
        Whether it was done; not where another hand has the session, or it is not archived any more.
    """
    return await _erase(tx, session_id, "archived_at < $2", before)


async def _erase(tx: Transaction, session_id: str, condition: str, *args: object, forgets_keys: bool = True) -> bool:
    query = f"SELECT id FROM sessions WHERE id = $1 AND {condition} FOR UPDATE SKIP LOCKED"
    is_found = await tx.db.fetchval(query, session_id, *args) is not None
    if is_found:
        await sessions.erase(tx, await sessions.lock(tx, session_id), forgets_keys=forgets_keys)
    return is_found
