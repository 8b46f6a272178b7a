"""Deliveries: each is one event for one webhook, tried until the receiver takes it or the tries are used up.

A try is a claim for some time by the database's clock: whoever dies with one leaves it to whoever looks next. What is sent is
read off the log, so that every try sends the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from app import clock, ids
from app.db.engine import Connection, Row
from app.errors import DeliveryNotFound, InvalidCursor
from app.webhooks.webhook import Webhook, webhook_from

Status: TypeAlias = Literal["pending", "delivered", "dead"]

CLAIM_SECONDS: Final = 30.0  # above the longest try
MOST_OF_ONE: Final = 4  # tries of one webhook that one look claims, so that none holds up the others
MOST_BODY_BYTES: Final = 256 * 1024
KEPT: Final = {"delivered": "7 days", "dead": "30 days"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try that was claimed.

    Args:
        attempt: its number, from 1.
        body: None where the event is gone.
    """

    id: str
    webhook: Webhook
    attempt: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try came to.

    Args:
        status: `pending` where another is to follow.
        pause_seconds: until that one.
        http_status: None where there was no answer.
        error: a sentence that names no address.
    """

    status: Status
    pause_seconds: float = 0.0
    http_status: int | None = None
    error: str | None = None


_CLAIM = f"""
WITH due AS (
  SELECT id, row_number() OVER (PARTITION BY webhook_id ORDER BY due_at) AS place FROM (
    SELECT id, webhook_id, due_at FROM webhook_deliveries
    WHERE status = 'pending' AND due_at <= clock_timestamp() AND webhook_id <> ALL ($2::uuid[]) ORDER BY due_at LIMIT 1000
  ) first
), taken AS (
  SELECT d.id FROM webhook_deliveries d JOIN due USING (id)
  WHERE due.place <= {MOST_OF_ONE} AND d.status = 'pending' AND d.due_at <= clock_timestamp()
  ORDER BY d.due_at LIMIT $1 FOR UPDATE OF d SKIP LOCKED
), claimed AS (
  UPDATE webhook_deliveries d SET attempts = attempts + 1, due_at = clock_timestamp() + make_interval(secs => {CLAIM_SECONDS})
  FROM taken WHERE d.id = taken.id RETURNING d.*
)
SELECT c.id AS delivery_id, c.attempts, c.seq, c.type, e.at, e.turn_id, e.payload, c.session_id AS of_session,
  h.id, h.realm_id, h.url, h.types, h.session_id, h.is_enabled, h.created_at, h.updated_at, h.secret
FROM claimed c JOIN webhooks h ON h.id = c.webhook_id LEFT JOIN events e ON e.session_id = c.session_id AND e.seq = c.seq
"""
_COLUMNS = """id, webhook_id, session_id, turn_id, seq, type, status, attempts, due_at, last_status, last_error, created_at,
ended_at"""


async def claim(db: Connection, limit: int, busy: Sequence[str]) -> list[Delivery]:
    """Claim deliveries that are due, of all realms.

    Args:
        busy: webhooks that are passed over, because enough of theirs is under way here.
    """
    return [
        Delivery(str(row["delivery_id"]), webhook_from(row), row["attempts"], _body(row))
        for row in await db.fetch(_CLAIM, limit, busy)
    ]


async def settle(db: Connection, delivery: Delivery, outcome: Outcome) -> None:
    """Write down what a try came to; nothing where another has been claimed since."""
    await db.execute(
        """UPDATE webhook_deliveries SET status = $3, due_at = clock_timestamp() + make_interval(secs => $4), last_status = $5,
                  last_error = $6, ended_at = CASE WHEN $3 <> 'pending' THEN clock_timestamp() END
           WHERE id = $1 AND attempts = $2 AND status = 'pending'""",
        delivery.id,
        delivery.attempt,
        outcome.status,
        outcome.pause_seconds,
        outcome.http_status,
        outcome.error,
    )


async def find(
    db: Connection, webhook_id: str, *, status: str | None, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """List a webhook's deliveries, the newest first.

    Args:
        cursor: of the page before.

    Returns:
        A page, and the cursor of the next; None where there is none.

    Raises:
        InvalidCursor: it is not of its form.
    """
    if cursor is not None and not ids.is_id(cursor):
        raise InvalidCursor("A cursor of this list is the id of a delivery.")
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM webhook_deliveries
            WHERE realm_id = $5 AND webhook_id = $1 AND ($2::text IS NULL OR status = $2) AND ($3::uuid IS NULL OR id < $3)
            ORDER BY id DESC LIMIT $4""",
        webhook_id,
        status,
        cursor,
        limit + 1,
        db.realm,
    )
    page = [_view(row) for row in rows[:limit]]
    return page, page[-1]["delivery_id"] if len(rows) > limit and page else None


async def replay(db: Connection, webhook_id: str, delivery_id: str) -> dict[str, Any]:
    """Have a delivery made again, from its first try on, whatever came of it.

    Raises:
        DeliveryNotFound: the webhook has none of that id.
    """
    row = None
    if ids.is_id(delivery_id):
        row = await db.fetchrow(
            f"""UPDATE webhook_deliveries SET status = 'pending', attempts = 0, due_at = clock_timestamp(), ended_at = NULL
                WHERE realm_id = $1 AND webhook_id = $2 AND id = $3 RETURNING {_COLUMNS}""",
            db.realm,
            webhook_id,
            delivery_id,
        )
    if row is None:
        raise DeliveryNotFound
    return _view(row)


async def sweep(db: Connection) -> int:
    """Delete what was delivered, or given up, long ago.

    Returns:
        How many were deleted.
    """
    tag = await db.execute(
        f"""DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries
              WHERE status = 'delivered' AND ended_at < now() - interval '{KEPT["delivered"]}'
                OR status = 'dead' AND ended_at < now() - interval '{KEPT["dead"]}' LIMIT 10000)"""
    )
    return int(tag.rpartition(" ")[2])


def _body(row: Row) -> bytes | None:
    """Write a message: the event as the log has it, or its envelope alone where it is too large to be sent."""
    if row["payload"] is None:
        return None
    at, seq = clock.rfc3339(row["at"]), row["seq"]
    head = f'{{"type":"{row["type"]}","timestamp":"{at}","data":'
    body = f'{head}{{"seq":{seq},{row["payload"]}}}'.encode()
    if len(body) <= MOST_BODY_BYTES:
        return body
    turn_id = None if row["turn_id"] is None else str(row["turn_id"])
    envelope = {"seq": seq, "session_id": str(row["of_session"]), "turn_id": turn_id, "type": row["type"], "at": at}
    return head.encode() + orjson.dumps(envelope | {"is_cut": True}) + b"}"


def _view(row: Row) -> dict[str, Any]:
    is_pending = row["status"] == "pending"
    return {
        "delivery_id": str(row["id"]),
        "webhook_id": str(row["webhook_id"]),
        "session_id": str(row["session_id"]),
        "turn_id": None if row["turn_id"] is None else str(row["turn_id"]),
        "seq": row["seq"],
        "type": row["type"],
        "status": row["status"],
        "attempts": row["attempts"],
        "next_attempt_at": clock.rfc3339(row["due_at"]) if is_pending else None,
        "last_status": row["last_status"],
        "last_error": row["last_error"],
        "created_at": clock.rfc3339(row["created_at"]),
        "ended_at": None if row["ended_at"] is None else clock.rfc3339(row["ended_at"]),
    }
