"""Nodes: the processes on this database, as an operator sees them, and which of them are told to drain.

A node's row is renewed with its leases and is a lease itself: the database's clock says whether it is alive. A node that stops
in order deletes it; that of one that was killed stays for a while, to be seen.
"""

from dataclasses import dataclass
from typing import Any, Literal

from app import clock, ids
from app.db.engine import Connection, Row
from app.errors import NodeNotFound

KEPT = "1 hour"  # a row that is not renewed

Kind = Literal["serve", "worker"]


@dataclass(frozen=True, slots=True)
class Node:
    """One process.

    Args:
        lease_seconds: how long its row and its claims last without renewal.
        max_live_turns: how many turns it runs at once.
    """

    id: str
    lease_seconds: float
    kind: Kind
    version: str
    host: str
    pid: int
    max_live_turns: int

    @property
    def columns(self) -> tuple[object, ...]:
        """What `SEEN` is given, from its first argument on."""
        return self.id, self.lease_seconds, self.kind, self.version, self.host, self.pid, self.max_live_turns


SEEN = """
INSERT INTO nodes (id, kind, version, host, pid, max_live_turns, is_draining, started_at, seen_at, lease_expires_at)
VALUES ($4, $6, $7, $8, $9, $10, $11, clock_timestamp(), clock_timestamp(), {lease_until})
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, lease_expires_at = excluded.lease_expires_at,
  is_draining = nodes.is_draining OR excluded.is_draining
RETURNING is_draining
"""
"""Renews a node's row, or makes it: a part of the statement that renews leases, whose arguments it shares."""

_NODES = """
SELECT coalesce(n.id, h.owner) AS id, n.kind, n.version, n.host, n.pid, n.max_live_turns, n.started_at, n.seen_at,
  round(extract(epoch FROM clock_timestamp() - n.seen_at), 3)::float8 AS lease_age,
  coalesce(h.live_turns, 0) AS live_turns,
  CASE WHEN coalesce(n.lease_expires_at, h.lease_expires_at) <= clock_timestamp() THEN 'lost'
       WHEN n.is_draining THEN 'draining' ELSE 'ready' END AS status
FROM nodes n FULL JOIN (
  SELECT owner, count(*) AS live_turns, max(lease_expires_at) AS lease_expires_at FROM turns
  WHERE status IN ('running', 'waiting') AND owner IS NOT NULL GROUP BY owner
) h ON h.owner = n.id
"""
"""Every node that has a row or holds a turn. One without a row is judged by its turns' leases."""


async def find(db: Connection) -> list[dict[str, Any]]:
    """List all nodes as the wire shows them, the oldest first."""
    return [_view(row) for row in await db.fetch(f"{_NODES} ORDER BY n.started_at, 1")]


async def tell(db: Connection, node_id: str, *, is_draining: bool) -> dict[str, Any]:
    """Tell a node to drain, or to work again; it hears of it when it renews.

    Returns:
        The node as the wire shows it.

    Raises:
        NodeNotFound: there is no row of that id.
    """
    told = None
    if ids.is_id(node_id):
        told = await db.fetchval("UPDATE nodes SET is_draining = $2 WHERE id = $1 RETURNING id", node_id, is_draining)
    if told is None:
        raise NodeNotFound
    return _view(await db.fetchrow(f"{_NODES} WHERE n.id = $1", told))


async def leave(db: Connection, node_id: str) -> None:
    """Delete the row of a node that stops."""
    await db.execute("DELETE FROM nodes WHERE id = $1", node_id)


async def forget_all(db: Connection) -> None:
    """Delete every row: for a database that only this process can reach."""
    await db.execute("DELETE FROM nodes")


async def sweep(db: Connection) -> int:
    """Delete rows that were not renewed for long.

    Returns:
        How many were deleted.
    """
    tag = await db.execute(f"DELETE FROM nodes WHERE seen_at < clock_timestamp() - interval '{KEPT}'")
    return int(tag.rpartition(" ")[2])


def _view(row: Row) -> dict[str, Any]:
    return {
        "instance_id": str(row["id"]),
        "kind": row["kind"],
        "version": row["version"],
        "host": row["host"],
        "pid": row["pid"],
        "status": row["status"],
        "started_at": None if row["started_at"] is None else clock.rfc3339(row["started_at"]),
        "seen_at": None if row["seen_at"] is None else clock.rfc3339(row["seen_at"]),
        "lease_age_seconds": row["lease_age"],
        "live_turns": row["live_turns"],
        "max_live_turns": row["max_live_turns"],
    }
