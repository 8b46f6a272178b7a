"""Webhooks: URLs of a realm, or of one of its sessions, that are told of events. Each act takes the caller's transaction.

The secret is shown once, by `create`. It is kept sealed where the server has a key for that, else as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from app import clock, ids
from app.db.engine import Connection, Row
from app.errors import CapacityExceeded, WebhookNotFound
from app.seals import Seals
from app.webhooks import signing

Kind: TypeAlias = Literal["turn_completed", "turn_failed", "turn_interrupted", "tool_call_pending", "session_archived"]
RETRY_SECONDS: Final = 60  # somebody may delete one meanwhile
MOST_WEBHOOKS: Final = 100  # of a realm: each of its events is looked at for all of them
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""Types of events that webhooks may be told of."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One of them.

    Args:
        session_id: the only session it is told of; None is all of the realm.
        kept_secret: sealed, or as it is.
    """

    id: str
    realm_id: str
    url: str
    types: Sequence[Kind]
    session_id: str | None
    is_enabled: bool
    created_at: datetime
    updated_at: datetime
    kept_secret: str = field(repr=False)

    def secret(self, seals: Seals) -> str:
        """Return what its messages are signed with, as receivers know it.

        Raises:
            Unsealable: it cannot be opened.
        """
        return opened(self.kept_secret, seals, realm=self.realm_id)

    def view(self) -> dict[str, Any]:
        """Show it, without its secret."""
        return {
            "webhook_id": self.id,
            "url": self.url,
            "types": self.types,
            "session_id": self.session_id,
            "is_enabled": self.is_enabled,
            "created_at": clock.rfc3339(self.created_at),
            "updated_at": clock.rfc3339(self.updated_at),
        }


COLUMNS: Final = "id, realm_id, url, types, session_id, is_enabled, created_at, updated_at, secret"

# Turns that are live or queued already: of them, too, what comes from now on is told.
_WATCH_LIVE = """
INSERT INTO webhook_watches (realm_id, session_id, turn_id, seq)
SELECT s.realm_id, s.id, t.id, s.last_seq FROM sessions s JOIN turns t ON t.session_id = s.id
WHERE s.realm_id = $1 AND s.status <> 'idle' AND t.ended_at IS NULL AND ($2::uuid IS NULL OR s.id = $2)
ON CONFLICT DO NOTHING
"""


async def create(db: Connection, seals: Seals, *, url: str, types: Sequence[Kind], session_id: str | None) -> Webhook:
    """Make a webhook; it is told of what happens from now on.

    Args:
        session_id: of a session of the realm; None is all of them.

    Raises:
        CapacityExceeded: the realm has as many as it may have.
    """
    if await db.fetchval("SELECT count(*) FROM webhooks WHERE realm_id = $1", db.realm) >= MOST_WEBHOOKS:
        raise CapacityExceeded(f"A realm may have {MOST_WEBHOOKS} webhooks; delete one.", retry_after=RETRY_SECONDS)
    secret, now, webhook_id = signing.new_secret(), clock.now(), ids.uuid7()
    kept = seals.seal(secret, realm=db.realm) if seals.has_key else secret
    row = await db.fetchrow(
        f"""INSERT INTO webhooks (realm_id, id, url, types, session_id, secret, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING {COLUMNS}""",
        db.realm,
        webhook_id,
        url,
        list(types),
        session_id,
        kept,
        now,
    )
    await db.execute(_WATCH_LIVE, db.realm, session_id)
    return webhook_from(row)


async def find(db: Connection) -> list[Webhook]:
    """List the realm's webhooks, the oldest first."""
    rows = await db.fetch(f"SELECT {COLUMNS} FROM webhooks WHERE realm_id = $1 ORDER BY id", db.realm)
    return [webhook_from(row) for row in rows]


async def get(db: Connection, webhook_id: str) -> Webhook:
    """Read one.

    Raises:
        WebhookNotFound: the realm has none of that id.
    """
    return _found(await _row(db, f"SELECT {COLUMNS} FROM webhooks", webhook_id))


async def change(db: Connection, webhook_id: str, changes: Mapping[str, Any]) -> Webhook:
    """Change its `url`, `types` or `is_enabled`, where they are given.

    Raises:
        WebhookNotFound: as `get`.
    """
    row = await _row(
        db,
        """UPDATE webhooks SET url = coalesce($3, url), types = coalesce($4, types), is_enabled = coalesce($5, is_enabled),
                  updated_at = $6""",
        webhook_id,
        changes.get("url"),
        changes.get("types"),
        changes.get("is_enabled"),
        clock.now(),
        returning=COLUMNS,
    )
    changed = _found(row)
    if changes.get("is_enabled"):
        await db.execute(_WATCH_LIVE, db.realm, changed.session_id)
    return changed


async def delete(db: Connection, webhook_id: str) -> None:
    """Delete one, with all that is still to be delivered to it.

    Raises:
        WebhookNotFound: as `get`.
    """
    if await _row(db, "DELETE FROM webhooks", webhook_id, returning="id") is None:
        raise WebhookNotFound
    await db.execute("DELETE FROM webhook_deliveries WHERE webhook_id = $1", webhook_id)


async def switch_off(db: Connection, webhook: Webhook) -> None:
    """Tell a webhook of nothing more, until it is switched on again."""
    await db.execute("UPDATE webhooks SET is_enabled = false, updated_at = $2 WHERE id = $1", webhook.id, clock.now())


async def seal_anew(db: Connection, seals: Seals) -> int:
    """Seal with the newest key what is sealed with another or not at all.

    Returns:
        How many secrets that were.

    Raises:
        Unsealable: one cannot be opened; nothing was written.
    """
    rows = await db.fetch("SELECT id, realm_id, secret FROM webhooks ORDER BY id FOR NO KEY UPDATE")
    old = [row for row in rows if not seals.is_current(row["secret"])]
    for row in old:
        sealed = seals.seal(opened(row["secret"], seals, realm=row["realm_id"]), realm=row["realm_id"])
        await db.execute("UPDATE webhooks SET secret = $2 WHERE id = $1", row["id"], sealed)
    return len(old)


def opened(kept: str, seals: Seals, *, realm: str) -> str:
    """Return a secret as it was; one that is not sealed has no key's id, and so no dot, in front.

    Raises:
        Unsealable: it cannot be opened.
    """
    return seals.open(kept, realm=realm) if "." in kept else kept


def webhook_from(row: Row) -> Webhook:
    """Read one off a row of `COLUMNS`."""
    return Webhook(
        id=str(row["id"]),
        realm_id=row["realm_id"],
        url=row["url"],
        types=row["types"],
        session_id=None if row["session_id"] is None else str(row["session_id"]),
        is_enabled=row["is_enabled"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        kept_secret=row["secret"],
    )


def _found(row: Row | None) -> Webhook:
    if row is None:
        raise WebhookNotFound
    return webhook_from(row)


async def _row(db: Connection, statement: str, webhook_id: str, *args: object, returning: str | None = None) -> Row | None:
    """Run a statement on one webhook of the realm, `$1` and `$2` of it."""
    if not ids.is_id(webhook_id):
        return None
    query = f"{statement} WHERE realm_id = $1 AND id = $2" + (f" RETURNING {returning}" if returning else "")
    return await db.fetchrow(query, db.realm, webhook_id, *args)
