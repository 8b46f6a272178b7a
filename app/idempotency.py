"""Idempotency keys: a POST made twice has one effect, also across restarts, because its record commits with the effect.

A record holds either the answer itself, or the turn that a repeat joins. Refusals are not kept. The transaction of the first
request holds an advisory lock, so that a repeat which comes meanwhile is told so instead of waiting.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app import clock
from app.db.engine import Connection
from app.errors import IdempotencyInProgress, IdempotencyKeyReused
from app.journal.journal import Transaction

KEPT = "24 hours"


@dataclass(frozen=True, slots=True)
class Request:
    """A POST that bears a key."""

    path: str
    key: str
    body_hash: bytes

    @classmethod
    def of(cls, path: str, key: str, body: Mapping[str, Any]) -> "Request":
        """Make it of a parsed body; spacing and order of its members do not matter."""
        return cls(path, key, hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest())


@dataclass(frozen=True, slots=True)
class Kept:
    """What the first request left.

    Args:
        session_id: empty where the request was about none.
        turn_id: the turn to join; None where `response` is the whole answer or no turn was started.
        response: the answer's JSON body; None where the turn, or the session alone, makes it.
    """

    session_id: str
    turn_id: str | None
    response: Any | None


async def begin(tx: Transaction, request: Request | None) -> Kept | None:
    """Look a key up, and keep others with the same key out until the transaction ends.

    Args:
        request: None where the caller sent no key; nothing happens then.

    Returns:
        What the first request left, or None where this is the first.

    Raises:
        IdempotencyInProgress: the first has not committed yet.
        IdempotencyKeyReused: the first had another body.
    """
    if request is None:
        return None
    kept = await _find(tx, request)  # repeats of what has committed do not stand in each other's way
    if kept is not None:
        tx.is_repeat = True
        return kept
    lock = hashlib.sha256(f"{tx.db.realm} {request.path} {request.key}".encode()).digest()[:8]
    if not await tx.db.fetchval("SELECT pg_try_advisory_xact_lock($1)", int.from_bytes(lock, signed=True)):
        raise IdempotencyInProgress("A request with this key is under way; try again shortly.")
    kept = await _find(tx, request)
    tx.is_repeat = kept is not None
    return kept


async def keep(
    tx: Transaction, request: Request | None, *, session_id: str | None, turn_id: str | None = None, response: Any = None
) -> None:
    """Leave for repeats what this request has done; it commits with the effect."""
    if request is None:
        return
    await tx.db.execute(
        """INSERT INTO idempotency_keys (realm_id, path, key, body_hash, session_id, turn_id, response, created_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
           ON CONFLICT (realm_id, path, key) DO UPDATE SET body_hash = excluded.body_hash, session_id = excluded.session_id,
             turn_id = excluded.turn_id, response = excluded.response, created_at = excluded.created_at""",
        tx.db.realm,
        request.path,
        request.key,
        request.body_hash,
        session_id,
        turn_id,
        None if response is None else orjson.dumps(response).decode(),
        clock.now(),
    )


async def sweep(db: Connection) -> int:
    """Delete keys that are past their time.

    Returns:
        How many were deleted.
    """
    tag = await db.execute(f"DELETE FROM idempotency_keys WHERE created_at < now() - interval '{KEPT}'")
    return int(tag.rpartition(" ")[2])


async def _find(tx: Transaction, request: Request) -> Kept | None:
    row = await tx.db.fetchrow(
        f"""SELECT body_hash, session_id, turn_id, response, created_at < now() - interval '{KEPT}' AS is_old
            FROM idempotency_keys WHERE realm_id = $1 AND path = $2 AND key = $3""",
        tx.db.realm,
        request.path,
        request.key,
    )
    if row is None or row["is_old"]:
        return None
    if row["body_hash"] != request.body_hash:
        raise IdempotencyKeyReused("This key came before with another body; use a new key for a new request.")
    turn_id, response = row["turn_id"], row["response"]
    return Kept(
        str(row["session_id"] or ""),
        None if turn_id is None else str(turn_id),
        None if response is None else orjson.loads(response),
    )
