"""Forks: a new session with another's history up to a turn. What is over never changes, so the other goes on meanwhile."""

from collections.abc import Sequence

from app import ids, sessions
from app.copies import opening
from app.db.engine import Connection, Row
from app.errors import InvalidRequest, SessionPersistenceDisabled
from app.journal.journal import Transaction
from app.sessions import Beginning, Session
from app.turns import turn

_COPY_TURNS = f"""
INSERT INTO turns (session_id, id, number, status, prompt, overrides, attempt, recoveries, steps, tool_calls, text, stop_reason,
                   error, input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, first_seq, last_seq,
                   created_at, started_at, ended_at, structured_output, schema_warnings)
SELECT $2, copied.id, number, status, prompt, overrides, attempt, recoveries, steps, tool_calls, text, stop_reason,
       error, input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, {opening.FIRST_SEQ}, {opening.LAST_SEQ},
       created_at, started_at, ended_at, structured_output, schema_warnings
FROM turns t JOIN unnest($3::uuid[], $4::uuid[]) AS copied(original, id) ON t.id = copied.original
WHERE t.session_id = $1
"""
MESSAGES = """
WITH left_out AS (
  SELECT min(ordinal) AS ordinal FROM messages WHERE session_id = $1 AND NOT is_summary AND turn_id <> ALL ($2::uuid[])
), kept AS (
  SELECT m.*, row_number() OVER (ORDER BY m.ordinal) AS place FROM messages m, left_out
  WHERE m.session_id = $1 AND CASE WHEN m.is_summary THEN m.sums_up_to < coalesce(left_out.ordinal, m.ordinal)
                                   ELSE m.turn_id IS NULL OR m.turn_id = ANY ($2::uuid[]) END
)
SELECT place, CASE WHEN turn_id = ANY ($2::uuid[]) THEN turn_id END AS turn_id, role, content, stop_reason, created_at,
       is_summary,
       CASE WHEN is_summary THEN (SELECT count(*) FROM kept below WHERE below.ordinal <= kept.sums_up_to) END AS sums_up_to
FROM kept ORDER BY place
"""
"""The system's messages of a session and those of some turns, counted anew; and summaries that stand in for these alone."""
_COPY_MESSAGES = f"""
INSERT INTO messages (session_id, ordinal, turn_id, role, content, stop_reason, created_at, is_summary, sums_up_to)
SELECT $3, place, copied.id, role, content, stop_reason, created_at, is_summary, sums_up_to
FROM ({MESSAGES}) m LEFT JOIN unnest($2::uuid[], $4::uuid[]) AS copied(original, id) ON m.turn_id = copied.original
"""


async def fork(tx: Transaction, session_id: str, through_turn: int | None) -> Session:
    """Make a session with another's options, title and labels, and its turns and messages up to a turn.

    Copied turns keep their numbers and get new ids. The copy's own bill begins at zero.

    Args:
        through_turn: number of the last turn to copy; None copies all before the first that is not over.

    Raises:
        SessionNotFound: there is none of that id.
        SessionPersistenceDisabled: it is ephemeral.
        InvalidRequest: the turns do not go so far, or one up to there is not over.
    """
    source = await sessions.pin(tx, session_id)
    if source.is_ephemeral:
        raise SessionPersistenceDisabled
    originals = await finished(tx.db, source)
    if through_turn is not None:
        if through_turn > len(originals):
            raise InvalidRequest.at("through_turn", "No turn of this number that is over, like all before it.")
        originals = originals[:through_turn]
    copy = Beginning(
        ids.session_id(),
        source.options,
        source.title,
        source.labels,
        source.kept_prompt,
        config_generation=source.config_generation,
    )
    await sessions.begin(tx, copy)
    old = [row["id"] for row in originals]
    new = [ids.turn_id() for _ in originals]
    await tx.db.execute(_COPY_TURNS, source.id, copy.id, old, new)
    await tx.db.execute(_COPY_MESSAGES, source.id, old, copy.id, new)
    return await opening.settle(tx, copy.id, source.options)


async def finished(db: Connection, session: Session) -> Sequence[Row]:
    """Read the rows of a session's turns up to the first that is not over, in order of their numbers.

    Turns that were accepted after the session was read are left out: what it kept for them is still with it.
    """
    rows = await db.fetch(
        """SELECT * FROM turns WHERE session_id = $1 AND number <= $2 AND number < coalesce(
             (SELECT min(number) FROM turns WHERE session_id = $1 AND status = ANY ($3)), $2 + 1)
           ORDER BY number""",
        session.id,
        session.turn_count,
        sorted(turn.PENDING),
    )
    return list(rows)
