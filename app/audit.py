"""The audit trail: who did what, in the transaction that did it. Entries are added and never changed; only their age ends them.

What stands here is the request's route and the ids in its path, never what a caller wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from app import clock, ids
from app.db.engine import Connection


@dataclass(frozen=True, slots=True)
class Act:
    """What is done, and by whom.

    Args:
        credential: as `Caller` names it.
        action: the method and the route's template, or a command.
        target: ids in the path, by name.
        request_id: as the answer and the logs bear it.
    """

    credential: str
    action: str
    target: Mapping[str, str]
    request_id: str | None = None


async def record(db: Connection, act: Act) -> None:
    """Add an act to the realm's trail; it commits with what was done."""
    await db.execute(
        """INSERT INTO audit_entries (realm_id, id, at, credential, action, target, request_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7)""",
        db.realm,
        ids.uuid7(),
        clock.now(),
        act.credential,
        act.action,
        orjson.dumps(act.target).decode(),
        act.request_id,
    )


async def find(db: Connection, *, before: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """List the realm's trail, the newest first, from before an entry's id.

    Returns:
        The page, and the id to go on before or None where this is the last page.
    """
    if limit == 0:
        return [], None
    rows = await db.fetch(
        """SELECT id, at, credential, action, target, request_id FROM audit_entries
           WHERE realm_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3""",
        db.realm,
        before,
        limit + 1,
    )
    found = [
        {
            "entry_id": str(row["id"]),
            "at": clock.rfc3339(row["at"]),
            "credential": row["credential"],
            "action": row["action"],
            "target": orjson.loads(row["target"]),
            "request_id": row["request_id"],
        }
        for row in rows[:limit]
    ]
    return found, found[-1]["entry_id"] if len(rows) > limit else None


async def sweep(db: Connection, *, before: datetime, limit: int) -> int:
    """Delete entries that are older than a moment, a bounded number of them.

    Returns:
        How many were deleted.
    """
    tag = await db.execute(
        """DELETE FROM audit_entries WHERE (realm_id, id) IN (
             SELECT realm_id, id FROM audit_entries WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        before,
        limit,
    )
    return int(tag.rpartition(" ")[2])
