"""What was said in a session: all of it for callers, and what a model is to read."""

from typing import Any

import orjson

from app import clock
from app.db.engine import Connection, Row
from app.messages import Message, load_content, shown_content


async def messages(db: Connection, session_id: str, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Read a session's history, oldest first, from behind an ordinal, as the wire has it."""
    rows = await db.fetch(
        """SELECT ordinal, role, content, turn_id, stop_reason, created_at, is_summary FROM messages
           WHERE session_id = $1 AND ordinal > $2 ORDER BY ordinal LIMIT $3""",
        session_id,
        after,
        limit,
    )
    return [_message_view(row) for row in rows]


async def transcript(db: Connection, session_id: str, *, summed_up_to: int) -> list[Message]:
    """Read all that a model is to see of a session, oldest first: the newest summary, and what it does not stand in for.

    Args:
        summed_up_to: the session's.
    """
    rows = await db.fetch(
        """(SELECT 0 AS place, role, content, stop_reason FROM messages
            WHERE session_id = $1 AND is_summary ORDER BY ordinal DESC LIMIT 1)
           UNION ALL SELECT ordinal, role, content, stop_reason FROM messages
           WHERE session_id = $1 AND ordinal > $2 AND role <> 'system' AND NOT is_summary ORDER BY place""",
        session_id,
        summed_up_to,
    )
    return [Message(row["role"], load_content(row["content"]), row["stop_reason"]) for row in rows]


def _message_view(row: Row) -> dict[str, Any]:
    shown = {
        "ordinal": row["ordinal"],
        "role": row["role"],
        "content": orjson.Fragment(shown_content(row["content"])),
        "turn_id": None if row["turn_id"] is None else str(row["turn_id"]),
        "created_at": clock.rfc3339(row["created_at"]),
    }
    if row["stop_reason"] is not None:
        shown["stop_reason"] = row["stop_reason"]
    return shown | {"summary": True} if row["is_summary"] else shown
