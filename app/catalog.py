"""Lists of sessions: filters, order and cursors. A page is one keyset scan; `offset` is there for small lists."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import orjson

from app import ids
from app.db.engine import Connection
from app.errors import InvalidCursor
from app.sessions import COLUMNS, Session, folded, session_from

Order: TypeAlias = Literal["-updated_at", "-created_at"]
Archived: TypeAlias = Literal["false", "true", "any"]
Status: TypeAlias = Literal["idle", "running", "waiting", "archived"]

# Constants, so that the planner sees which partial index holds them.
_KEPT, _ARCHIVED = "s.archived_at IS NULL", "s.archived_at IS NOT NULL"
_PARTS: dict[Archived, tuple[str, ...]] = {"false": (_KEPT,), "true": (_ARCHIVED,), "any": (_KEPT, _ARCHIVED)}
_HAS_STATUS: dict[Status, str] = {
    "idle": f"s.status = 'idle' AND {_KEPT}",
    "running": f"s.status = 'running' AND {_KEPT}",
    "waiting": f"s.status = 'waiting' AND {_KEPT}",
    "archived": _ARCHIVED,
}


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for.

    Args:
        labels: `key:value` each; all must match.
        text: part of the title, in any case.
        after: the sort time and id of the last session of the page before.
    """

    limit: int = 50
    offset: int = 0
    order: Order = "-updated_at"
    labels: Sequence[str] = ()
    status: Status | None = None
    archived: Archived = "false"
    text: str | None = None
    after: tuple[datetime, str] | None = None


async def find(db: Connection, query: Query) -> tuple[list[Session], str | None]:
    """List sessions, newest first by the asked order.

    Returns:
        The page, and the cursor of the next one or None where this is the last.
    """
    if query.limit == 0:
        return [], None
    column = query.order.removeprefix("-")
    where, args = _conditions(db.realm, query, column)
    args += [query.limit + 1, query.offset]
    order, most, skipped = f"ORDER BY s.{column} DESC, s.id DESC", f"${len(args) - 1}::bigint", f"${len(args)}::bigint"
    scans = [
        f"""(SELECT {COLUMNS} FROM sessions s WHERE {" AND ".join([*where, part])} {order} LIMIT {most} + {skipped})"""
        for part in _PARTS[query.archived]
    ]
    rows = await db.fetch(
        f"""SELECT s.*, NULL AS owner FROM ({" UNION ALL ".join(scans)}) s {order} LIMIT {most} OFFSET {skipped}""", *args
    )
    found = [session_from(row) for row in rows[: query.limit]]
    if len(rows) <= query.limit:
        return found, None
    last = found[-1]
    return found, _cursor(query.order, last.updated_at if column == "updated_at" else last.created_at, last.id)


def read_cursor(text: str, order: Order) -> tuple[datetime, str]:
    """Read a list cursor: base64url of `order,microseconds since 1970,id`.

    Raises:
        InvalidCursor: it is not of that form, or of a list in another order.
    """
    try:
        kind, microseconds, session_id = base64.b64decode(text.encode(), altchars=b"-_", validate=True).decode().split(",")
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=_digits(microseconds))
    except (ValueError, binascii.Error, OverflowError) as error:
        raise InvalidCursor("This cursor is not one that a list has returned.") from error
    if kind != order or not ids.is_id(session_id):
        raise InvalidCursor("This cursor belongs to a list in another order.")
    return moment, session_id


def _digits(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("not decimal digits")
    return int(text)


def _conditions(realm: str, query: Query, column: str) -> tuple[list[str], list[object]]:
    where, args = ["s.realm_id = $1"], list[object]([realm])

    def add(condition: str, *values: object) -> None:
        places = [f"${len(args) + place}" for place in range(1, len(values) + 1)]
        where.append(condition.format(*places))
        args.extend(values)

    if query.status is not None:
        add(_HAS_STATUS[query.status])
    if query.labels:
        add("s.label_terms @> {}::text[]", [orjson.dumps(label).decode() for label in query.labels])
    if query.text:
        add("strpos(s.title_search, {}) > 0", folded(query.text))
    if query.after is not None:
        add(f"(s.{column}, s.id) < ({{}}, {{}}::uuid)", *query.after)
    return where, args


def _cursor(order: Order, moment: datetime, session_id: str) -> str:
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{order},{microseconds},{session_id}".encode()).decode()
