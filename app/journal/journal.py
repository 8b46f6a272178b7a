"""The ledger as other rooms hold it: transactions to write in, subscriptions to read from, a pen for each attempt.

Whatever was appended in a transaction is shown to readers when it has committed, and only then; so is what else was left for
that moment. Nobody has to remember to. A commit whose answer was lost is looked up: what it appended stands in the log, or not.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from app import clock
from app.db.engine import EVERY_REALM, Connection, Database
from app.errors import Fenced, StoreUnavailable
from app.journal.append import append, fate
from app.journal.entry import Appended, Entry
from app.journal.notify import Notify
from app.journal.recorder import Recorder
from app.journal.subscriptions import Subscriptions
from app.journal.wakeups import Carrier, Wakeups
from app.journal.writer import Writer
from app.pace import Pace

LOOKED_UP_SECONDS = 5.0  # for a commit of unknown outcome; its caller waits
LOOK_SECONDS = 0.05


@dataclass(slots=True)
class Transaction:
    """A database transaction that may append to logs. `db` runs SQL; the block that opened it commits.

    Args:
        credential: on whose behalf; None: the service's own.
        is_repeat: whether it was found to have been done before, so that nothing is done.
    """

    db: Connection
    credential: str | None = None
    is_repeat: bool = False
    appended: list[Appended] = field(default_factory=list)
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    async def append(self, entry: Entry) -> Appended:
        """Append an entry; readers see it after the commit.

        Raises:
            Fenced: its fence is stale or its session gone; nothing was written.
        """
        [result] = await append(self.db, [entry])
        if result is None:
            raise Fenced
        self.appended.append(result)
        return result


class Journal:
    """The ledger of this process.

    Args:
        pace: how long deltas are gathered; the writer keeps it.
        carrier: what brings wake-ups to other nodes; None is the database itself.
    """

    def __init__(self, database: Database, node_id: str, *, pace: Pace, carrier: Carrier | None = None) -> None:
        self.database = database
        self.subscriptions = Subscriptions(database)
        self.wakeups = Wakeups(carrier or Notify(database), node_id, self._on_wakeup, self._on_gap)
        self.writer = Writer(database, self._publish, pace)
        self._pace = pace
        self._watchers: list[Callable[[str, int | None], None]] = []

    @contextlib.asynccontextmanager
    async def transaction(self, realm: str, *, credential: str | None = None) -> AsyncIterator[Transaction]:
        """Open a transaction in a realm; it commits at the end of the block, and what was appended is shown then.

        Raises:
            StoreUnavailable: as `Database.transaction`; where something was appended, it was looked up, nearly always, that
                nothing is kept.
        """
        done: Transaction | None = None
        try:
            async with self.database.transaction(realm) as db:
                tx = Transaction(db, credential)
                yield tx
                done = tx
        except StoreUnavailable:
            if done is None or not await self._was_kept(done.appended):
                raise
        assert done is not None
        for appended in done.appended:
            self._publish(appended)
            self._tell_watchers(appended.entry.session_id, appended.fence)
        for act in done.after_commit:
            act()

    def recorder(self, *, session_id: str, turn_id: str, fence: int, on_failure: Callable[[], None]) -> Recorder:
        """Give an attempt its pen."""
        return Recorder(
            self.writer,
            session_id=session_id,
            turn_id=turn_id,
            fence=fence,
            pace=self._pace,
            on_failure=on_failure,
        )

    def watch(self, watcher: Callable[[str, int | None], None]) -> None:
        """Be told when another hand than the writer has written to a session, and of what `rouse` is called for.

        Args:
            watcher: called with the session's id and its fence after that; None where only another node knows it.
        """
        self._watchers.append(watcher)

    def forget(self, session_id: str) -> None:
        """Tell readers, here and elsewhere, that a session has been erased."""
        self.subscriptions.advance(session_id, None)
        self.rouse(session_id)

    def rouse(self, session_or_node_id: str) -> None:
        """Make watchers, here and elsewhere, look: a session was erased or given back, or a node's row has changed."""
        self.wakeups.tell(session_or_node_id, 0)
        self._tell_watchers(session_or_node_id, None)

    async def _was_kept(self, appended: Sequence[Appended]) -> bool:
        """Look up a commit whose answer was lost, for as long as its caller may wait."""
        told = next((entry for entry in reversed(appended) if entry.bodies), None)
        until = clock.monotonic() + LOOKED_UP_SECONDS
        while told is not None and clock.monotonic() < until:
            with contextlib.suppress(StoreUnavailable):
                async with self.database.transaction(EVERY_REALM) as db:
                    outcome = await fate(db, told)
                if outcome != "unknown":
                    return outcome == "kept"
            await asyncio.sleep(LOOK_SECONDS)
        return False

    def _publish(self, appended: Appended) -> None:
        self.subscriptions.publish(appended)
        self.wakeups.tell(appended.entry.session_id, appended.last_seq)

    def _on_wakeup(self, session_id: str, seq: int) -> None:
        self.subscriptions.advance(session_id, seq or None)
        self._tell_watchers(session_id, None)

    def _on_gap(self) -> None:
        self.subscriptions.look_again()

    def _tell_watchers(self, session_id: str, fence: int | None) -> None:
        for watcher in self._watchers:
            watcher(session_id, fence)
