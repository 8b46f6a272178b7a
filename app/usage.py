"""What was used: calls and tokens by realm, credential, provider, model and day.

The journal writes a report with each entry that counts something, in the same commit and as a row of its own, so that no two
writers meet. Housekeeping books reports into sums a while later; who reads adds what is not booked yet. Neither table knows a
session, so both outlive it.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final, Literal, TypeAlias

from app.db.engine import Connection, Row

Group: TypeAlias = Literal["day", "credential", "provider", "model"]
GROUPS: Final[tuple[Group, ...]] = ("day", "credential", "provider", "model")
BATCH: Final = 1_000  # reports that are booked in one statement
_COUNTS: Final = ("calls", "input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens")
_KEY: Final = f"realm_id, {', '.join(GROUPS)}"
_SUMS: Final = ", ".join(f"sum({name})::bigint AS {name}" for name in _COUNTS)
_BOOK: Final = f"""
WITH due AS (
  SELECT realm_id, id FROM usage_reports ORDER BY realm_id, id LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), taken AS (
  DELETE FROM usage_reports r USING due d WHERE r.realm_id = d.realm_id AND r.id = d.id
  RETURNING r.realm_id, r.day, coalesce(r.credential, '') AS credential, r.provider, r.model, {", ".join(_COUNTS)}
), booked AS (
  INSERT INTO usage_days ({_KEY}, {", ".join(_COUNTS)})
  SELECT {_KEY}, {_SUMS} FROM taken GROUP BY {_KEY} ORDER BY {_KEY}
  ON CONFLICT ({_KEY}) DO UPDATE SET {", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in _COUNTS)}
)
SELECT count(*) FROM taken
"""
"""Taken and booked in one statement: each report is in the sums once, or is a report still. Keys in one order, so that two
nodes that book never wait for each other in a circle."""


async def book(db: Connection) -> int:
    """Book reports into their days' sums, a batch at a time.

    Returns:
        How many were booked; less than a batch where none is left.
    """
    booked: int = await db.fetchval(_BOOK)
    return booked


async def find(db: Connection, days: tuple[date, date], groups: Sequence[Group], *, limit: int) -> list[dict[str, Any]]:
    """Read what the connection's realm has used, as the wire shows it, in order of the groups.

    Args:
        days: first and last.
        groups: what sums are made by; none makes one sum, where anything was used.
    """
    columns = ", ".join(groups)
    rows = await db.fetch(
        f"""SELECT {f"{columns}, " if groups else ""}{_SUMS} FROM (
              SELECT day, credential, provider, model, {", ".join(_COUNTS)} FROM usage_days
              WHERE realm_id = $1 AND day BETWEEN $2 AND $3
              UNION ALL
              SELECT day, coalesce(credential, ''), provider, model, {", ".join(_COUNTS)} FROM usage_reports
              WHERE realm_id = $1 AND day BETWEEN $2 AND $3
            ) used {f"GROUP BY {columns} ORDER BY {columns}" if groups else "HAVING count(*) > 0"} LIMIT $4""",
        db.realm,
        *days,
        limit,
    )
    return [_view(row, groups) for row in rows]


def total(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up what was found."""
    usage = {name: sum(one["usage"][name] for one in found) for name in (*_COUNTS[1:], "total_tokens")}
    return {"calls": sum(one["calls"] for one in found), "usage": usage}


def _view(row: Row, groups: Sequence[Group]) -> dict[str, Any]:
    named: dict[str, Any] = {name: row[name] for name in groups}
    if "day" in named:
        named["day"] = row["day"].isoformat()
    if "credential" in named:
        named["credential"] = row["credential"] or None
    usage = {name: row[name] for name in _COUNTS[1:]}
    return {
        **dict.fromkeys(GROUPS),
        **named,
        "calls": row["calls"],
        "usage": usage | {"total_tokens": row["input_tokens"] + row["output_tokens"]},
    }
