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
from app.sessions import COLUMNS, REALM, Session, folded, session_from

Order: TypeAlias = Literal["-updated_at", "-created_at"]
Archived: TypeAlias = Literal["false", "true", "any"]
Status: TypeAlias = Literal["idle", "running", "waiting", "archived"]


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
    where, args = _conditions(query, column)
    args += [query.limit + 1, query.offset]
    rows = await db.fetch(
        f"""SELECT {COLUMNS}, NULL AS owner FROM sessions s WHERE {" AND ".join(where)}
            ORDER BY s.{column} DESC, s.id DESC LIMIT ${len(args) - 1} OFFSET ${len(args)}""",
        *args,
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


def _conditions(query: Query, column: str) -> tuple[list[str], list[object]]:
    where, args = ["s.realm_id = $1"], list[object]([REALM])

    def add(condition: str, *values: object) -> None:
        places = [f"${len(args) + place}" for place in range(1, len(values) + 1)]
        where.append(condition.format(*places))
        args.extend(values)

    if query.archived != "any":
        add(f"(s.archived_at IS NOT NULL) = {query.archived}")
    if query.status == "archived":
        add("s.archived_at IS NOT NULL")
    elif query.status is not None:
        add("s.status = {} AND s.archived_at IS NULL", query.status)
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
