"""Wake-ups over the database's own LISTEN and NOTIFY: nothing else to run, and enough for most fleets.

They have a connection of their own, since a NOTIFY in each commit takes a global lock and halves throughput.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from app.db.engine import Database
from app.journal.wakeups import Send

CHANNEL = "suricate"


class Notify:
    """Carries wake-ups over Postgres."""

    name = "postgres"
    is_needed = True

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def connected(self, on_payload: Callable[[str], None]) -> AsyncIterator[Send]:
        """Listen, and give what notifies.

        Raises:
            StoreUnavailable: as `Database.dedicated`.
        """
        async with self._database.dedicated("wakeups") as db:

            async def send(payloads: Sequence[str]) -> None:
                for payload in payloads:
                    await db.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)

            await db.add_listener(CHANNEL, lambda _db, _pid, _channel, payload: on_payload(payload))
            yield send
