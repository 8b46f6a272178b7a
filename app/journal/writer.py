"""Group commit: entries of all live turns of this node that arrive while one commit is under way form the next.

One task, one connection of its own, no timer: the commit in flight is the timer. A commit whose outcome is unknown is looked
up, not guessed (`_reconcile`), and made again only where it was not kept.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from app import clock, telemetry
from app.db.engine import Connection, Database
from app.errors import Fenced, StoreUnavailable
from app.journal.append import append
from app.journal.entry import Appended, Entry, Waiting
from app.pace import Pace

MOST_ENTRIES = 512  # bounds one statement's parameters; the rest waits for the next commit
LONGEST_PAUSE_SECONDS = 2.0

log = structlog.get_logger()


class Writer:
    """Takes entries from any task and commits them together.

    Args:
        publish: told of each entry after its commit, before its owner goes on.
        pace: told how long entries wait.
    """

    def __init__(self, database: Database, publish: Callable[[Appended], None], pace: Pace) -> None:
        self._database = database
        self._publish = publish
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._oldest_at = 0.0
        self._waiting: list[Waiting] = []
        self._has_work = asyncio.Event()

    def submit(self, entry: Entry) -> asyncio.Future[Appended]:
        """Hand in an entry; the future resolves after its commit.

        One entry a session may be on its way at a time: a turn's recorder keeps to that.

        Returns:
            A future of what was appended, or of `Fenced` where the entry's fence is stale and nothing was written.
        """
        outcome: asyncio.Future[Appended] = self._loop.create_future()
        if not self._waiting:
            self._oldest_at = clock.monotonic()
        self._waiting.append(Waiting(entry, outcome))
        self._has_work.set()
        return outcome

    async def run(self) -> None:
        """Commit batches until cancelled; while Postgres is away, keep what waits and try again."""
        pause = 0.05
        unsure: list[Waiting] = []
        while True:
            try:
                async with self._database.dedicated("writer", enable_seqscan="off") as db:
                    unsure = await self._settle(db, unsure)
                    pause = 0.05
                    while True:
                        await self._has_work.wait()
                        oldest_at, unsure = self._oldest_at, self._take()
                        await self._commit(db, unsure)
                        self._pace.observe(clock.monotonic() - oldest_at)
                        unsure = []
            except StoreUnavailable as error:
                log.warning("journal_writer_lost_database", error=str(error.__cause__), entries=len(unsure))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _take(self) -> list[Waiting]:
        batch, self._waiting = self._waiting[:MOST_ENTRIES], self._waiting[MOST_ENTRIES:]
        if not self._waiting:
            self._has_work.clear()
        return batch

    async def _commit(self, db: Connection, batch: Sequence[Waiting]) -> None:
        began = clock.monotonic()
        try:
            results = await append(db, [waiting.entry for waiting in batch])
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one entry that cannot be written must not stop the others
            await self._commit_apart(db, batch, error)
            return
        telemetry.COMMIT_SECONDS.observe(clock.monotonic() - began)
        telemetry.BATCH_ENTRIES.observe(len(batch))
        for waiting, result in zip(batch, results, strict=True):
            self._resolve(waiting, result)

    async def _commit_apart(self, db: Connection, batch: Sequence[Waiting], error: Exception) -> None:
        if len(batch) > 1:
            for waiting in batch:
                await self._commit(db, [waiting])
        elif not batch[0].outcome.done():
            batch[0].outcome.set_exception(error)

    def _resolve(self, waiting: Waiting, result: Appended | None) -> None:
        if result is not None:
            self._publish(result)
        if waiting.outcome.done():
            return
        if result is None:
            waiting.outcome.set_exception(Fenced())
        else:
            waiting.outcome.set_result(result)

    async def _settle(self, db: Connection, unsure: list[Waiting]) -> list[Waiting]:
        """Find out which entries of a broken commit were kept; make the others again."""
        if not unsure:
            return []
        kept = await _reconcile(db, [waiting.entry for waiting in unsure])
        lost = [waiting for waiting, result in zip(unsure, kept, strict=True) if result is None]
        for waiting, result in zip(unsure, kept, strict=True):
            if result is not None:
                self._resolve(waiting, result)
        if lost:
            await self._commit(db, lost)
        return []


_WHERE_IT_STANDS = """
SELECT e.entry, s.last_seq, s.fence FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[])
  AS e(entry, session_id, fence, number) JOIN sessions s ON s.id = e.session_id
WHERE s.append_number = e.number AND s.fence = e.fence
"""


async def _reconcile(db: Connection, entries: Sequence[Entry]) -> list[Appended | None]:
    """Tell which entries of a commit with unknown outcome are durable: the session's row bears the last one's number."""
    rows: Sequence[Any] = await db.fetch(
        _WHERE_IT_STANDS,
        list(range(len(entries))),
        [entry.session_id for entry in entries],
        [entry.fence + entry.ends for entry in entries],
        [entry.number for entry in entries],
    )
    kept = {row["entry"]: row for row in rows}
    return [
        Appended(entry, row["last_seq"] + 1, row["last_seq"], row["fence"], None)
        if (row := kept.get(index)) is not None
        else None
        for index, entry in enumerate(entries)
    ]
