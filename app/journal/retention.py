"""Deltas whose time is over: taken off the logs of turns that ended long ago.

Only those go that another event has made needless: `step_completed` (the step's words stand in its `…_complete`) or
`step_discarded` (they are void). A step that was cut off keeps its own. All other events keep their numbers, so that a reader
finds gaps and nothing else is new to it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.db.engine import Connection
from app.journal.types import DELTAS

TURNS: Final = 100  # of one batch, at most
EVENTS: Final = 2_000  # likewise; they keep one commit short

_TRIM = """
WITH ended AS (
  SELECT t.session_id, t.id, t.first_seq, t.last_seq FROM turns t JOIN sessions s ON s.id = t.session_id
  WHERE t.has_deltas AND t.ended_at < $1 AND s.current_turn_id IS NULL
  ORDER BY t.ended_at LIMIT $2 FOR NO KEY UPDATE OF s SKIP LOCKED
), finished AS (
  SELECT t.session_id, t.id, t.first_seq, e.seq FROM ended t CROSS JOIN LATERAL (
    SELECT seq FROM events
    WHERE session_id = t.session_id AND turn_id = t.id AND seq BETWEEN t.first_seq AND t.last_seq
      AND type IN ('step_completed', 'step_discarded')
    ORDER BY seq DESC LIMIT 1
  ) e
), needless AS (
  SELECT e.session_id, e.seq, octet_length(e.payload) AS bytes
  FROM finished f JOIN events e ON e.session_id = f.session_id AND e.turn_id = f.id
    AND e.seq BETWEEN f.first_seq AND f.seq AND e.type = ANY ($4)
  LIMIT $3
), gone AS (
  DELETE FROM events e USING needless n WHERE e.session_id = n.session_id AND e.seq = n.seq RETURNING e.seq
), freed AS (
  UPDATE sessions s SET stored_bytes = greatest(0, s.stored_bytes - n.bytes)
  FROM (SELECT session_id, sum(bytes) AS bytes FROM needless GROUP BY session_id) n WHERE s.id = n.session_id
), trimmed AS (
  UPDATE turns t SET has_deltas = false FROM ended
  WHERE t.session_id = ended.session_id AND t.id = ended.id AND (SELECT count(*) FROM needless) < $3 RETURNING t.id
)
SELECT (SELECT count(*) FROM gone) AS events, (SELECT count(*) FROM trimmed) AS turns
"""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What one batch has done.

    Args:
        is_last: whether no more was found.
    """

    events: int
    is_last: bool


async def trim(db: Connection, *, before: datetime, turns: int = TURNS, events: int = EVENTS) -> Trimmed:
    """Delete needless deltas of turns that ended before a moment, a bounded number of them.

    Sessions that have a live turn, or that another hand holds, are passed over: they have their time when they are at rest.
    """
    row = await db.fetchrow(_TRIM, before, turns, events, sorted(DELTAS))
    assert row is not None
    return Trimmed(row["events"], row["events"] < events and row["turns"] < turns)
