"""How much a realm may have at once: sessions, what they store, turns that are live, streams that are open.

Live turns are counted when one is asked for; where many more may come, what was found holds for a second. Sessions and their
bytes are counted for a realm every few seconds, by whoever asks first, and streams by each node for itself and told to the
others: a realm that grows fast passes its quotas by a little.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from app import clock
from app.cache import TtlCache
from app.credentials.caller import Caller
from app.db.engine import EVERY_REALM, Connection, Database
from app.errors import CapacityExceeded, StoreUnavailable

COUNTED_EVERY: Final = "10 seconds"
FAR_TURNS: Final = 256  # a realm that may have so many more turns, and twice the bytes, is far from what it may have, and
FAR_SECONDS: Final = 1.0  # is not asked about for so long
TELL_SECONDS: Final = 5.0  # between two words to other nodes of the streams that are open here
FORGOTTEN_AFTER: Final = "20 seconds"  # what a node said that says nothing any more
RETRY_SECONDS: Final = 10

_COUNTED: Final = f"""
SELECT (SELECT count(*) FROM (SELECT FROM sessions WHERE realm_id = $1 AND status <> 'idle' LIMIT $2) live) AS live_turns,
       sessions, stored_bytes
FROM (SELECT) one LEFT JOIN realm_totals ON realm_id = $1 AND counted_at > clock_timestamp() - interval '{COUNTED_EVERY}'
"""
_COUNT: Final = """
INSERT INTO realm_totals (realm_id, sessions, stored_bytes, counted_at)
SELECT $1, count(*), coalesce(sum(stored_bytes), 0)::bigint, clock_timestamp() FROM sessions WHERE realm_id = $1
ON CONFLICT (realm_id) DO UPDATE SET sessions = excluded.sessions, stored_bytes = excluded.stored_bytes,
  counted_at = excluded.counted_at
RETURNING sessions, stored_bytes
"""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a realm has, or may have at most; there 0 is any number."""

    sessions: int = 0
    stored_bytes: int = 0
    live_turns: int = 0
    streams: int = 0

    def is_far(self, has: "Amounts") -> bool:
        """Tell whether many more turns, and what they store, may come before a realm has as much as it may."""
        is_turns_far = not self.live_turns or has.live_turns + FAR_TURNS <= self.live_turns
        return is_turns_far and (not self.stored_bytes or 2 * has.stored_bytes <= self.stored_bytes)


class Quotas:
    """Holds realms to what they may have.

    Args:
        node_id: who counts.
    """

    def __init__(self, database: Database, node_id: str, most: Amounts) -> None:
        self._database = database
        self._node_id = node_id
        self._most = most
        self._far: TtlCache[str, bool] = TtlCache(FAR_SECONDS)
        self._here: Counter[str] = Counter()
        self._elsewhere: Counter[str] = Counter()

    async def check_session(self, db: Connection) -> None:
        """Refuse one more session where the transaction's realm has as many, or as much, as it may.

        Raises:
            CapacityExceeded: it has.
        """
        has = await self._counted(db, live_turns=0)
        _check("sessions", has.sessions, self._most.sessions, "Erase some")
        _check("stored bytes", has.stored_bytes, self._most.stored_bytes, "Erase sessions")

    async def check_turn(self, db: Connection) -> None:
        """Refuse one more turn where the transaction's realm has as many live ones, or stores as much, as it may.

        Raises:
            CapacityExceeded: it has.
        """
        if self._far.get(db.realm):
            return
        now = clock.monotonic()
        has = await self._counted(db, live_turns=self._most.live_turns)
        _check("live turns", has.live_turns, self._most.live_turns, "Wait for some to end")
        _check("stored bytes", has.stored_bytes, self._most.stored_bytes, "Erase sessions")
        if self._most.is_far(has):
            self._far.put(db.realm, True, found_at=now)

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

    async def _counted(self, db: Connection, *, live_turns: int) -> Amounts:
        """Return what the realm has: live turns up to so many now, sessions and their bytes as counted not long ago."""
        has_totals = self._most.sessions > 0 or self._most.stored_bytes > 0
        if not has_totals and not live_turns:
            return Amounts()
        row = await db.fetchrow(_COUNTED, db.realm, live_turns)
        assert row is not None
        if row["sessions"] is not None or not has_totals:
            return Amounts(row["sessions"] or 0, row["stored_bytes"] or 0, row["live_turns"])
        live_turns = row["live_turns"]
        row = await db.fetchrow(_COUNT, db.realm)
        assert row is not None
        return Amounts(row["sessions"], row["stored_bytes"], live_turns)

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
