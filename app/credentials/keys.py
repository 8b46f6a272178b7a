"""API keys: 256 random bits that are shown once and kept as their hash.

A key ends in a checksum, so that a mistyped one is refused, and a leaked one is recognised, without a question to the database.
Its bits are random, so a plain SHA-256 cannot be guessed back. Each act takes the caller's transaction and commits nothing.
"""

import hashlib
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from app import clock, ids
from app.credentials.caller import Caller, Scope, highest
from app.db.engine import Connection, Row
from app.errors import KeyNotFound

PREFIX: Final = "sur_"
HINT_CHARACTERS: Final = 12  # of a key, prefix included, that lists show
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_DIGITS: Final = 43  # hold 256 bits
_CHECKSUM_DIGITS: Final = 6  # hold 32 bits
_USED_EVERY: Final = "1 minute"  # how exact `last_used_at` is
_IS_GOOD: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"
_COLUMNS: Final = "id, name, hint, scopes, created_at, created_by, expires_at, revoked_at, last_used_at"


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is made of.

    Args:
        name: what people call it.
        scopes: what it may.
        expires_at: when it ends by itself; None: never.
    """

    name: str
    scopes: Sequence[Scope]
    expires_at: datetime | None


def make() -> str:
    """Make a key."""
    secret = PREFIX + _digits(int.from_bytes(secrets.token_bytes(32)), _SECRET_DIGITS)
    return secret + _checksum(secret)


def is_key(text: str) -> bool:
    """Tell whether a text has a key's form and its checksum is right."""
    own, checksum = text[:-_CHECKSUM_DIGITS], text[-_CHECKSUM_DIGITS:]
    is_long_enough = len(text) == len(PREFIX) + _SECRET_DIGITS + _CHECKSUM_DIGITS
    return text.isascii() and text.startswith(PREFIX) and is_long_enough and _checksum(own) == checksum


def hashed(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


async def create(db: Connection, new: NewKey, *, by: str) -> dict[str, Any]:
    """Make a key in the transaction's realm.

    Args:
        by: who makes it, for the list.

    Returns:
        The key as the wire shows it, this once with its secret as `key`.
    """
    secret = make()
    row = await db.fetchrow(
        f"""INSERT INTO api_keys (realm_id, id, hash, hint, name, scopes, created_at, created_by, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {_COLUMNS}""",
        db.realm,
        ids.uuid7(),
        hashed(secret),
        secret[:HINT_CHARACTERS],
        orjson.dumps(new.name).decode(),
        list(new.scopes),
        clock.now(),
        by,
        new.expires_at,
    )
    return _view(row) | {"key": secret}


async def rotate(db: Connection, key_id: str, *, overlap_seconds: float, by: str) -> dict[str, Any]:
    """Make a key that takes another's place; the other ends after an overlap, or when it would have anyway.

    Returns:
        The new key, as `create` returns it.

    Raises:
        KeyNotFound: there is none of that id that is good.
    """
    row = None
    if ids.is_id(key_id):
        row = await db.fetchrow(
            f"""UPDATE api_keys SET expires_at = least(expires_at, clock_timestamp() + make_interval(secs => $3))
                WHERE realm_id = $1 AND id = $2 AND {_IS_GOOD} RETURNING {_COLUMNS}""",
            db.realm,
            key_id,
            overlap_seconds,
        )
    if row is None:
        raise KeyNotFound
    return await create(db, NewKey(orjson.loads(row["name"]), row["scopes"], None), by=by)


async def find(db: Connection) -> list[dict[str, Any]]:
    """List the realm's keys, the newest first; those that are over, too."""
    rows = await db.fetch(f"SELECT {_COLUMNS} FROM api_keys WHERE realm_id = $1 ORDER BY id DESC", db.realm)
    return [_view(row) for row in rows]


async def revoke(db: Connection, key_id: str) -> dict[str, Any]:
    """End a key for good; again: the same answer.

    Raises:
        KeyNotFound: there is none of that id.
    """
    row = None
    if ids.is_id(key_id):
        row = await db.fetchrow(
            f"""UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
                WHERE realm_id = $1 AND id = $2 RETURNING {_COLUMNS}""",
            db.realm,
            key_id,
        )
    if row is None:
        raise KeyNotFound
    return _view(row)


async def bearer(db: Connection, secret: str) -> Caller | None:
    """Return whom a key speaks for, and note that it was used; None where it is not good.

    Args:
        db: in every realm: the key says which.
    """
    row = await db.fetchrow(
        f"""WITH used AS (
              UPDATE api_keys SET last_used_at = clock_timestamp() WHERE hash = $1 AND {_IS_GOOD}
                AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '{_USED_EVERY}'))
            SELECT realm_id, id, scopes, expires_at FROM api_keys WHERE hash = $1 AND {_IS_GOOD}""",
        hashed(secret),
    )
    scope = None if row is None else highest(row["scopes"])
    return None if row is None or scope is None else Caller(row["realm_id"], f"key:{row['id']}", scope, row["expires_at"])


async def good(db: Connection, key_ids: Sequence[str]) -> set[str]:
    """Return those of some keys that are good still.

    Args:
        db: in every realm.
    """
    rows = await db.fetch(f"SELECT id FROM api_keys WHERE id = ANY ($1::uuid[]) AND {_IS_GOOD}", key_ids)
    return {str(row["id"]) for row in rows}


async def exist(db: Connection) -> bool:
    """Tell whether any key was ever made: from then on the service asks for credentials.

    Args:
        db: in every realm.
    """
    return bool(await db.fetchval("SELECT EXISTS (SELECT FROM api_keys)"))


async def are_the_only_ones(db: Connection, realm: str) -> bool:
    """Tell whether a realm has keys and no other has.

    Args:
        db: in every realm.
    """
    return bool(await db.fetchval("SELECT count(*) > 0 AND bool_and(realm_id = $1) FROM api_keys", realm))


def in_days(days: float | None) -> datetime | None:
    """Return when something ends that lasts so many days; None lasts for ever."""
    return None if days is None else clock.now() + timedelta(days=days)


def _digits(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _checksum(text: str) -> str:
    return _digits(zlib.crc32(text.encode()), _CHECKSUM_DIGITS)


def _view(row: Row) -> dict[str, Any]:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    return {
        "key_id": str(row["id"]),
        "name": orjson.loads(row["name"]),
        "hint": row["hint"],
        "scopes": row["scopes"],
        "created_by": row["created_by"],
    } | {name: None if row[name] is None else clock.rfc3339(row[name]) for name in times}
