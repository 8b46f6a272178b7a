"""How much a realm may have at once: sessions, what they store, turns that are live, streams that are open.

Turns are counted when one is asked for. Sessions and their bytes are counted for a realm every few seconds, by whoever asks
first, and streams by each node for itself and told to the others: a realm that grows fast passes those three by a little.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from app.credentials.caller import Caller
from app.db.engine import EVERY_REALM, Connection, Database
from app.errors import CapacityExceeded, StoreUnavailable

COUNTED_EVERY: Final = "10 seconds"
TELL_SECONDS: Final = 5.0  # between two words to other nodes of the streams that are open here
FORGOTTEN_AFTER: Final = "20 seconds"  # what a node said that says nothing any more
RETRY_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Most:
    """What a realm may have at most; 0: any number."""

    sessions: int = 0
    stored_bytes: int = 0
    live_turns: int = 0
    streams: int = 0


class Quotas:
    """Holds realms to what they may have.

    Args:
        node_id: who counts.
    """

    def __init__(self, database: Database, node_id: str, most: Most) -> None:
        self._database = database
        self._node_id = node_id
        self._most = most
        self._here: Counter[str] = Counter()
        self._elsewhere: Counter[str] = Counter()

    async def check_session(self, db: Connection) -> None:
        """Refuse one more session where the transaction's realm has as many, or as much, as it may.

        Raises:
            CapacityExceeded: it has.
        """
        if not self._most.sessions and not self._most.stored_bytes:
            return
        sessions, stored_bytes = await _counted(db)
        _check("sessions", sessions, self._most.sessions, "Erase some")
        _check("stored bytes", stored_bytes, self._most.stored_bytes, "Erase sessions")

    async def check_turn(self, db: Connection) -> None:
        """Refuse one more turn where the transaction's realm has as many live ones, or stores as much, as it may.

        Raises:
            CapacityExceeded: it has.
        """
        if self._most.live_turns:
            live = await db.fetchval(
                "SELECT count(*) FROM (SELECT FROM sessions WHERE realm_id = $1 AND status <> 'idle' LIMIT $2) live",
                db.realm,
                self._most.live_turns,
            )
            _check("live turns", live, self._most.live_turns, "Wait for some to end")
        if self._most.stored_bytes:
            _, stored_bytes = await _counted(db)
            _check("stored bytes", stored_bytes, self._most.stored_bytes, "Erase sessions")

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Count a stream for as long as the block runs."""
        self._here[caller.realm] += 1
        try:
            yield
        finally:
            self._here[caller.realm] -= 1
            if not self._here[caller.realm]:
                del self._here[caller.realm]

    def check_stream(self, caller: Caller) -> None:
        """Refuse one more stream where the caller's realm has as many open as it may.

        Raises:
            CapacityExceeded: it has.
        """
        open_now = self._here[caller.realm] + self._elsewhere[caller.realm]
        _check("open streams", open_now, self._most.streams, "Close some")

    async def run(self) -> None:
        """Tell other nodes of streams that are open here, and hear of theirs, for as long as the process lives."""
        while True:
            with suppress(StoreUnavailable):
                await self._tell()
            await asyncio.sleep(TELL_SECONDS)

    async def _tell(self) -> None:
        here = +self._here
        async with self._database.transaction(EVERY_REALM) as db:
            await db.execute("SET LOCAL synchronous_commit = off")
            await db.execute(
                f"DELETE FROM stream_counts WHERE node_id = $1 OR at < clock_timestamp() - interval '{FORGOTTEN_AFTER}'",
                self._node_id,
            )
            await db.execute(
                """INSERT INTO stream_counts (realm_id, node_id, streams, at) SELECT realm_id, $1, streams, clock_timestamp()
                   FROM unnest($2::text[], $3::int[]) AS here(realm_id, streams)""",
                self._node_id,
                list(here),
                list(here.values()),
            )
            rows = await db.fetch(
                "SELECT realm_id, sum(streams)::int AS streams FROM stream_counts WHERE node_id <> $1 GROUP BY 1", self._node_id
            )
        self._elsewhere = Counter({row["realm_id"]: row["streams"] for row in rows})


def _check(name: str, has: int, most: int, way_out: str) -> None:
    if most and has >= most:
        raise CapacityExceeded(
            f"This realm has {has} {name}, and may have {most}. {way_out}, or ask its operator.", retry_after=RETRY_SECONDS
        )


async def _counted(db: Connection) -> tuple[int, int]:
    """Return how many sessions the realm has and how many bytes they store, as counted not long ago."""
    row = await db.fetchrow(
        f"""SELECT sessions, stored_bytes FROM realm_totals
            WHERE realm_id = $1 AND counted_at > clock_timestamp() - interval '{COUNTED_EVERY}'""",
        db.realm,
    )
    if row is None:
        row = await db.fetchrow(
            """INSERT INTO realm_totals (realm_id, sessions, stored_bytes, counted_at)
               SELECT $1, count(*), coalesce(sum(stored_bytes), 0)::bigint, clock_timestamp() FROM sessions WHERE realm_id = $1
               ON CONFLICT (realm_id) DO UPDATE SET sessions = excluded.sessions, stored_bytes = excluded.stored_bytes,
                 counted_at = excluded.counted_at
               RETURNING sessions, stored_bytes""",
            db.realm,
        )
    assert row is not None
    return row["sessions"], row["stored_bytes"]
