"""From the log to deliveries: what is to be told is found by looking at turns that were marked before they said anything.

A turn that is accepted in a realm with webhooks gets a mark in that transaction. So the log's own statements know nothing of
webhooks, and realms without any pay for a look at an empty index. The mark holds how far its turn's log has been read; it goes
when the turn has ended and all of it is written down as deliveries. Whoever dies in between leaves it to another node.
"""

from collections.abc import Sequence
from typing import Any, Final

from app import ids
from app.db.engine import Connection
from app.webhooks.webhook import KINDS

BATCH: Final = 200  # turns of one look

IS_WATCHED: Final = """EXISTS (SELECT FROM webhooks h WHERE h.realm_id = s.realm_id AND h.is_enabled
 AND (h.session_id IS NULL OR h.session_id = s.id))"""
"""Whether the session `s` is one that webhooks are told of."""

_DUE = """
SELECT w.realm_id, w.session_id, w.turn_id, w.seq, s.last_seq, t.ended_at IS NOT NULL AS is_over
FROM webhook_watches w JOIN turns t ON t.session_id = w.session_id AND t.id = w.turn_id JOIN sessions s ON s.id = w.session_id
WHERE t.ended_at IS NOT NULL OR t.waits_until IS NOT NULL AND s.last_seq > w.seq
ORDER BY w.session_id, w.turn_id LIMIT $1 FOR UPDATE OF w SKIP LOCKED
"""
_FOUND = """
SELECT h.realm_id, h.id AS webhook_id, e.session_id, e.turn_id, e.seq, e.type
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[]) AS d(realm_id, session_id, turn_id, after, upto)
JOIN events e ON e.session_id = d.session_id AND e.seq > d.after AND e.seq <= d.upto AND e.turn_id = d.turn_id
  AND e.type = ANY ($6::text[])
JOIN webhooks h ON h.realm_id = d.realm_id AND h.is_enabled AND e.type = ANY (h.types)
  AND (h.session_id IS NULL OR h.session_id = e.session_id)
ORDER BY e.session_id, e.seq
"""
_WRITE = """
INSERT INTO webhook_deliveries (id, realm_id, webhook_id, session_id, turn_id, seq, type, created_at, due_at)
SELECT d.*, clock_timestamp(), clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[], $7::text[])
  AS d(id, realm_id, webhook_id, session_id, turn_id, seq, type)
ON CONFLICT (webhook_id, session_id, seq) DO NOTHING
"""


async def mark(db: Connection, session_id: str, turn_id: str) -> None:
    """Mark a turn that is about to be accepted, in the transaction that accepts it."""
    await db.execute(
        """INSERT INTO webhook_watches (realm_id, session_id, turn_id, seq)
           SELECT realm_id, id, $2, last_seq FROM sessions WHERE id = $1""",
        session_id,
        turn_id,
    )


async def collect(db: Connection) -> int:
    """Write down as deliveries what marked turns have come to since the last look; in the caller's transaction.

    Returns:
        How many turns there was something to look at of; `BATCH` where there may be more.
    """
    due = await db.fetch(_DUE, BATCH)
    if not due:
        return 0
    columns = [[row[name] for row in due] for name in ("realm_id", "session_id", "turn_id", "seq", "last_seq")]
    await _write(db, await db.fetch(_FOUND, *columns, list(KINDS)))
    over, waiting = ([row for row in due if row["is_over"] is is_over] for is_over in (True, False))
    await db.execute(
        """DELETE FROM webhook_watches w USING unnest($1::uuid[], $2::uuid[]) AS d(session_id, turn_id)
           WHERE w.session_id = d.session_id AND w.turn_id = d.turn_id""",
        *([row[name] for row in over] for name in ("session_id", "turn_id")),
    )
    await db.execute(
        """UPDATE webhook_watches w SET seq = d.seq
           FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS d(session_id, turn_id, seq)
           WHERE w.session_id = d.session_id AND w.turn_id = d.turn_id""",
        *([row[name] for row in waiting] for name in ("session_id", "turn_id", "last_seq")),
    )
    return len(due)


async def announce(db: Connection, session_id: str, seq: int, kind: str) -> None:
    """Write down as deliveries an event that belongs to no turn, in the transaction that appends it."""
    await _write(
        db,
        await db.fetch(
            """SELECT h.realm_id, h.id AS webhook_id, s.id AS session_id, NULL::uuid AS turn_id, $2::bigint AS seq,
                 $3::text AS type
               FROM sessions s JOIN webhooks h ON h.realm_id = s.realm_id AND h.is_enabled AND $3 = ANY (h.types)
                 AND (h.session_id IS NULL OR h.session_id = s.id)
               WHERE s.id = $1""",
            session_id,
            seq,
            kind,
        ),
    )


async def _write(db: Connection, found: Sequence[Any]) -> None:
    if found:
        names = ("realm_id", "webhook_id", "session_id", "turn_id", "seq", "type")
        await db.execute(_WRITE, [ids.uuid7() for _ in found], *([row[name] for row in found] for name in names))
