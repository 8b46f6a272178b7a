"""Tickets for streams: what a browser's `EventSource`, which cannot send headers, carries in a URL instead of a credential.

A ticket reads one session's events and nothing else, for minutes. It may be used again until it ends, because a browser
reconnects by itself; a stream that it has opened lasts as long as the credential which asked for the ticket.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any, Final

from app import clock
from app.credentials.caller import Caller
from app.credentials.keys import hashed
from app.db.engine import Connection

PREFIX: Final = "sut_"
DEFAULT_SECONDS: Final = 300
MOST_SECONDS: Final = 3600


def make() -> str:
    """Make a ticket."""
    return PREFIX + secrets.token_urlsafe(32)


def derived(secret: str, request: bytes) -> str:
    """Make the ticket of a request that may be repeated: the same secret gets the same one, which is kept nowhere."""
    return PREFIX + urlsafe_b64encode(hmac.digest(secret.encode(), request, "sha256")).rstrip(b"=").decode()


async def issue(db: Connection, ticket: str, session_id: str, caller: Caller, *, expires_at: datetime) -> dict[str, Any]:
    """Let a ticket open a session's streams, in the transaction's realm; one that does already stays as it is.

    Returns:
        The ticket as the wire shows it; it cannot be read again.
    """
    await db.execute(
        """INSERT INTO stream_tickets (realm_id, hash, session_id, credential, credential_expires_at, expires_at)
           VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (hash) DO NOTHING""",
        db.realm,
        hashed(ticket),
        session_id,
        caller.credential,
        caller.expires_at,
        expires_at,
    )
    return {"ticket": ticket, "session_id": session_id, "expires_at": clock.rfc3339(expires_at)}


async def bearer(db: Connection, ticket: str) -> Caller | None:
    """Return whom a ticket speaks for; None where it is not good.

    Args:
        db: in every realm: the ticket says which.
    """
    row = await db.fetchrow(
        """SELECT realm_id, session_id, credential, credential_expires_at FROM stream_tickets
           WHERE hash = $1 AND expires_at > clock_timestamp()""",
        hashed(ticket),
    )
    if row is None:
        return None
    ends: datetime | None = row["credential_expires_at"]
    return Caller(row["realm_id"], row["credential"], "read", ends, str(row["session_id"]))


async def sweep(db: Connection) -> int:
    """Delete tickets that are over.

    Returns:
        How many were deleted.
    """
    tag = await db.execute("DELETE FROM stream_tickets WHERE expires_at < clock_timestamp()")
    return int(tag.rpartition(" ")[2])
