"""Group commit: entries of all live turns of this node that arrive while one commit is under way form the next.

One task, one connection of its own, no timer: the commit in flight is the timer. An entry of unknown outcome is looked up, not
guessed (`_looked_up`), and made again only where it was not kept. What surprises: nothing here waits for a session that another
hand holds; its entry goes with the next commit, and the others with this one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import structlog

from app import clock, telemetry
from app.db.engine import Connection, Database
from app.errors import Fenced, StoreUnavailable
from app.journal.append import append
from app.journal.entry import Appended, Entry, Waiting
from app.pace import Pace

MOST_ENTRIES = 512  # bounds one statement's parameters; the rest waits for the next commit
LONGEST_PAUSE_SECONDS = 2.0
BUSY_PAUSE_SECONDS = 0.005  # before the next try, where others hold the sessions of a whole batch

Verdict: TypeAlias = Appended | Literal["fenced", "again"]

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
                    self._conclude(unsure, await _looked_up(db, unsure))
                    unsure, pause = [], 0.05
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
        verdicts = await _verdicts(db, batch, results)
        self._conclude(batch, verdicts)
        if all(verdict == "again" for verdict in verdicts):
            await asyncio.sleep(BUSY_PAUSE_SECONDS)

    async def _commit_apart(self, db: Connection, batch: Sequence[Waiting], error: Exception) -> None:
        if len(batch) > 1:
            for waiting in batch:
                await self._commit(db, [waiting])
        elif not batch[0].outcome.done():
            batch[0].outcome.set_exception(error)

    def _conclude(self, batch: Sequence[Waiting], verdicts: Sequence[Verdict]) -> None:
        """Tell each owner what became of its entry; what is to be written again goes first."""
        for waiting, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, Appended):
                self._publish(verdict)
            if waiting.outcome.done() or verdict == "again":
                continue
            if verdict == "fenced":
                waiting.outcome.set_exception(Fenced())
            else:
                waiting.outcome.set_result(verdict)
        again = [waiting for waiting, verdict in zip(batch, verdicts, strict=True) if verdict == "again"]
        if again:
            self._oldest_at = clock.monotonic()
            self._waiting[:0] = again
            self._has_work.set()


async def _verdicts(db: Connection, batch: Sequence[Waiting], results: Sequence[Appended | None]) -> list[Verdict]:
    """Judge what a commit has left out. What something waits for is its owner's to settle, under the session's lock."""
    left_out = [waiting for waiting, result in zip(batch, results, strict=True) if result is None]
    found = iter(await _looked_up(db, left_out))
    verdicts: list[Verdict] = [next(found) if result is None else result for result in results]
    return [
        "fenced" if verdict == "again" and waiting.entry.is_held else verdict
        for waiting, verdict in zip(batch, verdicts, strict=True)
    ]


_WHERE_IT_STANDS = """
SELECT e.entry, s.last_seq, s.fence, s.append_number = e.number AND s.fence = e.fence_after AS is_kept
FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) AS e(entry, session_id, fence, fence_after, number)
  JOIN sessions s ON s.id = e.session_id
WHERE s.fence = e.fence OR s.append_number = e.number AND s.fence = e.fence_after
"""


async def _looked_up(db: Connection, batch: Sequence[Waiting]) -> list[Verdict]:
    """Tell which entries are durable: the session's row bears the last one's number. Takes no lock and waits for none."""
    if not batch:
        return []
    entries = [waiting.entry for waiting in batch]
    rows: Sequence[Any] = await db.fetch(
        _WHERE_IT_STANDS,
        list(range(len(entries))),
        [entry.session_id for entry in entries],
        [entry.fence for entry in entries],
        [entry.fence + entry.ends for entry in entries],
        [entry.number for entry in entries],
    )
    found = {row["entry"]: row for row in rows}
    return [_verdict(entry, found.get(index)) for index, entry in enumerate(entries)]


def _verdict(entry: Entry, row: Any) -> Verdict:
    if row is None:
        return "fenced"
    return Appended(entry, row["last_seq"] + 1, row["last_seq"], row["fence"], None) if row["is_kept"] else "again"
