"""Pages of the log after a cursor, straight from the table: what every reader falls back on.

A page and the session's head come from one snapshot, so that a filtered reader knows how far it has read even where nothing
matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.db.engine import Connection

PAGE_EVENTS = 500
PAGE_BYTES = 1024 * 1024  # what a reader who does not read can hold of it


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a reader wants.

    Args:
        types: event types; None is all.
        turn_id: events of one turn; None is all.
        scope: events of one scope; None is all.
    """

    types: frozenset[str] | None = None
    turn_id: str | None = None
    scope: str | None = None

    def wants(self, kind: str, turn_id: str | None) -> bool:
        """Tell whether an event passes; every event stands in scope `primary`."""
        return (
            (self.types is None or kind in self.types)
            and (self.turn_id is None or turn_id == self.turn_id)
            and (self.scope is None or self.scope == "primary")
        )


EVERYTHING = Filter()


@dataclass(frozen=True, slots=True)
class Stored:
    """One event as the table has it; `body` is the JSON text behind `{"seq":N,`."""

    seq: int
    turn_id: str | None
    type: str
    body: str


@dataclass(frozen=True, slots=True)
class Page:
    """Events after a cursor.

    Args:
        read_to: the cursor to go on from; beyond the last event where a filter left some out.
        is_last: whether nothing more was there.
        last_seq: the session's head when the page was read.
        archived_at: None while the session is open.
    """

    events: Sequence[Stored]
    read_to: int
    is_last: bool
    last_seq: int
    archived_at: datetime | None


_PAGE = """
SELECT s.last_seq, s.archived_at, e.seq, e.turn_id, e.type, e.payload, e.found
FROM sessions s LEFT JOIN LATERAL (
  SELECT *, count(*) OVER () AS found, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before
  FROM (
    SELECT seq, turn_id, type, payload FROM events
    WHERE session_id = s.id AND seq > $2
      AND ($3::text[] IS NULL OR type = ANY ($3)) AND ($4::uuid IS NULL OR turn_id = $4)
      AND ($5::text IS NULL OR scope_id = $5)
    ORDER BY seq LIMIT $6
  ) AS chosen
) e ON e.before < $7
WHERE s.id = $1 ORDER BY e.seq
"""


async def page(
    db: Connection,
    session_id: str,
    after: int,
    which: Filter = EVERYTHING,
    *,
    limit: int = PAGE_EVENTS,
    limit_bytes: int = PAGE_BYTES,
) -> Page | None:
    """Read the events of a session after a cursor, oldest first.

    Args:
        limit: most events.
        limit_bytes: the page ends with the event that reaches it.

    Returns:
        The page, or None where the session is gone.
    """
    types = None if which.types is None else list(which.types)
    rows = await db.fetch(_PAGE, session_id, after, types, which.turn_id, which.scope, max(limit, 1), limit_bytes)
    if not rows:
        return None
    head, archived_at, found = rows[0]["last_seq"], rows[0]["archived_at"], rows[0]["found"] or 0
    events = [
        Stored(row["seq"], str(row["turn_id"]) if row["turn_id"] is not None else None, row["type"], row["payload"])
        for row in rows[:limit]
        if row["seq"] is not None
    ]
    is_last = found < limit and len(events) == found
    read_to = max(after, head) if is_last else events[-1].seq if events else after
    return Page(events, read_to, is_last, head, archived_at)


_STEP_IN_PROGRESS = """
SELECT seq, turn_id, type, payload FROM events
WHERE session_id = $1 AND turn_id = $2 AND seq >= (
  SELECT seq FROM events WHERE session_id = $1 AND turn_id = $2 AND type = 'step_started' ORDER BY seq DESC LIMIT 1
) ORDER BY seq
"""


async def current_step(db: Connection, session_id: str, turn_id: str) -> Sequence[Stored]:
    """Read a turn's events from its last `step_started` on; empty where no step has started."""
    rows = await db.fetch(_STEP_IN_PROGRESS, session_id, turn_id)
    return [Stored(row["seq"], turn_id, row["type"], row["payload"]) for row in rows]


async def heads(db: Connection, session_ids: Sequence[str]) -> dict[str, int]:
    """Read the heads of many sessions; those that are gone are missing."""
    rows = await db.fetch("SELECT id, last_seq FROM sessions WHERE id = ANY ($1::uuid[])", session_ids)
    return {str(row["id"]): row["last_seq"] for row in rows}
