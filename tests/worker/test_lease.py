"""Holding turns: renewed in time, given up when they are lost, and not trusted longer than they are known to last."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from app import clock, nodes, telemetry
from app.db.engine import Database
from app.journal.journal import Journal
from app.sessions import DEFAULT_REALM
from app.turns import takeover
from app.turns.claims import Claim
from app.worker import lease
from app.worker.lease import TRUSTED_SHARE, Held, Keeper
from tests.journal.cable import Cable, cable_to
from tests.journal.ledger import LIMIT_SECONDS, Node, claimed, running
from tests.turns.acts import completed
from tests.worker.floor import lapsed

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 1.2


@dataclass
class Hands:
    """What a node holds, when it let go of it, and what it heard of draining."""

    node: Node = field(default_factory=lambda: Node(lease_seconds=LEASE_SECONDS))
    held: list[Held] = field(default_factory=list)
    stopped: dict[str, float] = field(default_factory=dict)
    heard: list[bool] = field(default_factory=list)

    async def take(self, journal: Journal) -> Claim:
        """Claim a turn and hold it."""
        claim = await claimed(journal, self.node)
        self.held.append(Held(claim, claim.claimed_at, lambda: self.stop(claim)))
        return claim

    def stop(self, claim: Claim) -> None:
        """Let go."""
        self.stopped.setdefault(claim.turn_id, clock.monotonic())
        self.held = [held for held in self.held if held.claim is not claim]

    async def until_stopped(self, claim: Claim) -> float:
        """Wait until a turn was let go, and return when."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while claim.turn_id not in self.stopped:
                await asyncio.sleep(0.002)
        return self.stopped[claim.turn_id]


@asynccontextmanager
async def keeping(database: Database, hands: Hands, *, lease_seconds: float = LEASE_SECONDS) -> AsyncIterator[Keeper]:
    """Run a keeper."""
    keeper = Keeper(database, replace(hands.node.row, lease_seconds=lease_seconds), lambda: hands.held, hands.heard.append)
    async with running(keeper.run()):
        yield keeper


async def renewals(database: Database, claim: Claim, count: int) -> None:
    """Wait until a lease has been set anew so often."""
    query = "SELECT lease_expires_at FROM turns WHERE id = $1"
    async with asyncio.timeout(LIMIT_SECONDS), database.transaction(DEFAULT_REALM) as db:
        seen = {await db.fetchval(query, claim.turn_id)}
        while len(seen) <= count:
            await asyncio.sleep(0.005)
            seen.add(await db.fetchval(query, claim.turn_id))


async def test_lease_is_renewed_before_it_runs_out_for_as_long_as_it_is_held(database: Database, journal: Journal) -> None:
    hands = Hands()
    claim = await hands.take(journal)

    async with keeping(database, hands):
        await renewals(database, claim, 5)
        async with database.transaction(DEFAULT_REALM) as db:
            left = await db.fetchval("SELECT lease_expires_at - clock_timestamp() FROM turns WHERE id = $1", claim.turn_id)

    assert clock.monotonic() - claim.claimed_at > LEASE_SECONDS
    assert left.total_seconds() > 0
    assert hands.stopped == {}


async def test_turn_that_another_node_has_taken_is_let_go_at_the_next_renewal(database: Database, journal: Journal) -> None:
    hands = Hands()
    lost, kept = await hands.take(journal), await hands.take(journal)
    await lapsed(database, lost.turn_id)
    async with journal.transaction(DEFAULT_REALM) as tx:
        assert await takeover.take_over(tx, lost.session_id, Node())

    async with keeping(database, hands):
        await hands.until_stopped(lost)

    assert [held.claim for held in hands.held] == [kept]


async def test_turn_whose_row_another_transaction_holds_is_renewed_as_soon_as_it_is_free(
    database: Database, journal: Journal
) -> None:
    hands = Hands()
    busy, free = await hands.take(journal), await hands.take(journal)

    async with keeping(database, hands):
        async with database.transaction(DEFAULT_REALM) as other:
            await other.execute("UPDATE turns SET steps = steps WHERE id = $1", busy.turn_id)
            await renewals(database, free, 2)
        await renewals(database, busy, 2)

    assert hands.stopped == {}


async def test_turn_that_is_over_is_let_go(database: Database, journal: Journal) -> None:
    hands = Hands()
    claim = await hands.take(journal)
    await completed(journal, claim, Node())

    async with keeping(database, hands):
        await hands.until_stopped(claim)


@pytest.mark.parametrize("is_frozen", [True, False], ids=["frozen", "refused"])
async def test_node_cut_off_lets_go_before_the_database_lets_another_claim(
    database: Database, database_url: str, journal: Journal, *, is_frozen: bool
) -> None:
    hands = Hands()
    async with (
        cable_to(database_url) as cable,
        keeping(Database(cable.dsn, pool_size=2), hands),
        database.transaction(DEFAULT_REALM) as db,
    ):
        claim = await hands.take(journal)
        await renewals(database, claim, 1)
        _cut(cable, is_frozen=is_frozen)
        stopped_at = await hands.until_stopped(claim)
        due_at = await db.fetchval("SELECT lease_expires_at FROM turns WHERE id = $1", claim.turn_id)

    assert clock.now() - timedelta(seconds=clock.monotonic() - stopped_at) < due_at
    assert stopped_at - claim.claimed_at >= LEASE_SECONDS * TRUSTED_SHARE


def _cut(cable: Cable, *, is_frozen: bool) -> None:
    if is_frozen:
        cable.is_deaf = True
    else:
        cable.is_refusing = True
        cable.cut()


async def test_lease_is_trusted_from_before_it_was_asked_for(database: Database, journal: Journal) -> None:
    hands = Hands()
    before = clock.monotonic()
    claim = await hands.take(journal)

    assert before <= claim.claimed_at <= hands.held[0].renewed_at
    async with keeping(database, hands):
        await renewals(database, claim, 1)
        renewed_at = hands.held[0].renewed_at  # before the next renewal, which may come while the lease is looked at
        async with database.transaction(DEFAULT_REALM) as db:
            left = await db.fetchval(
                "SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM turns WHERE id = $1", claim.turn_id
            )
        trusted_left = renewed_at + LEASE_SECONDS - clock.monotonic()

    assert trusted_left <= float(left) + 0.001


async def test_keeper_is_trusted_while_renewals_go_through_and_again_once_they_do(database_url: str) -> None:
    async with cable_to(database_url) as cable, keeping(Database(cable.dsn, pool_size=2), Hands(), lease_seconds=0.3) as keeper:
        assert keeper.is_trusted
        _cut(cable, is_frozen=False)
        await _until(lambda: not keeper.is_trusted)

        cable.is_refusing = False
        await _until(lambda: keeper.is_trusted)


async def test_renewals_need_no_pooled_connection(database_url: str, journal: Journal, database: Database) -> None:
    hands = Hands()
    claim = await hands.take(journal)
    small = Database(database_url, pool_size=2)
    await small.connect()

    async with keeping(small, hands), small.transaction(DEFAULT_REALM), small.transaction(DEFAULT_REALM):
        await renewals(database, claim, 2)
    await small.aclose()

    assert hands.stopped == {}


async def test_node_is_on_the_list_from_when_it_joins_until_it_leaves(database: Database) -> None:
    hands = Hands()
    keeper = Keeper(database, hands.node.row, lambda: hands.held, hands.heard.append)

    await keeper.join()
    async with database.transaction(DEFAULT_REALM) as db:
        joined = await nodes.find(db)
        await keeper.leave()
        left = await nodes.find(db)

    assert [node["instance_id"] for node in joined] == [hands.node.node_id]
    assert left == []


async def test_leaving_does_not_wait_long_for_a_database_that_is_frozen(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEAVE_SECONDS", 0.2)
    hands = Hands()
    async with cable_to(database_url) as cable:
        cable.is_deaf = True
        async with asyncio.timeout(LIMIT_SECONDS):
            await Keeper(Database(cable.dsn, pool_size=2), hands.node.row, lambda: hands.held, hands.heard.append).leave()


async def test_keeper_hears_at_each_renewal_whether_the_node_is_to_drain_and_at_once_when_hastened(database: Database) -> None:
    hands = Hands()
    async with keeping(database, hands, lease_seconds=60) as keeper:
        await _until(lambda: hands.heard == [False])
        async with database.transaction(DEFAULT_REALM) as db:
            await nodes.tell(db, hands.node.node_id, is_draining=True)

        keeper.hasten()

        await _until(lambda: hands.heard == [False, True])


async def test_node_that_is_about_to_leave_says_so_at_once(database: Database) -> None:
    hands = Hands()
    async with keeping(database, hands, lease_seconds=60) as keeper:
        await _until(lambda: hands.heard == [False])

        keeper.announce_stop()
        await _until(lambda: len(hands.heard) > 1)

        async with database.transaction(DEFAULT_REALM) as db:
            assert [node["status"] for node in await nodes.find(db)] == ["draining"]


async def test_age_of_the_leases_is_seen_from_outside(database: Database) -> None:
    telemetry.LEASE_AGE_SECONDS.set(99)

    async with keeping(database, Hands()):
        await _until(lambda: (telemetry.REGISTRY.get_sample_value("suricate_lease_age_seconds") or 0) < 1)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)
