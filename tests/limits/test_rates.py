"""Token buckets: shared by nodes, filled again with time, never given out twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import clock
from app.credentials.caller import Caller
from app.db.engine import EVERY_REALM, Database
from app.errors import RateLimited, StoreUnavailable
from app.limits.rates import AHEAD_SECONDS, BURST_SECONDS, HELD_SECONDS, Limiter, Rates, Standing
from tests.journal.ledger import running

pytestmark = pytest.mark.anyio

ANN, BOB, EVE = Caller("acme", "key:ann", "write"), Caller("acme", "key:bob", "write"), Caller("other", "key:eve", "write")
SLOW = 0.2  # requests a second: a bucket of one that does not fill while a test runs


@asynccontextmanager
async def limiting(database: Database, *, credential: float = 0, realm: float = 0) -> AsyncIterator[Limiter]:
    """Run a node's limiter."""
    limiter = Limiter(database, Rates(credential, realm))
    async with running(limiter.run()):
        yield limiter


async def taken(limiter: Limiter, caller: Caller, times: int) -> int:
    """Ask so many times at once; return how often it was let through."""
    outcomes = await asyncio.gather(*(limiter.take(caller) for _ in range(times)), return_exceptions=True)
    assert all(isinstance(outcome, Standing | RateLimited) for outcome in outcomes)
    return sum(isinstance(outcome, Standing) for outcome in outcomes)


async def left(limiter: Limiter) -> int:
    """Ask once; return what is left."""
    standing = await limiter.take(ANN)
    assert standing is not None
    return standing.left


async def emptied(database: Database) -> None:
    """Leave nothing in any bucket, for an hour."""
    async with database.transaction(EVERY_REALM) as db:
        await db.execute("UPDATE rate_buckets SET tokens = 0, at = at + interval '1 hour'")


async def test_nodes_share_a_bucket_and_give_out_no_more_than_it_holds(database: Database) -> None:
    async with limiting(database, credential=2) as here, limiting(database, credential=2) as there:
        got = await asyncio.gather(taken(here, ANN, 20), taken(there, ANN, 20))

    assert 2 * BURST_SECONDS <= sum(got) <= 2 * BURST_SECONDS + 2


async def test_what_was_taken_along_is_given_out_without_a_question_until_it_is_old(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    async with limiting(database, credential=20) as limiter:
        lefts = [await left(limiter)]
        await emptied(database)
        lefts += [await left(limiter)]
        now += HELD_SECONDS

        with pytest.raises(RateLimited):
            await limiter.take(ANN)
    assert lefts == [99, 98]  # 20 a second: five seconds' worth at once, and two taken along


async def test_what_two_questions_under_way_take_along_is_kept_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    async with limiting(database, credential=20) as limiter:
        first = limiter._ask(ANN.realm, ANN.credential, 20)
        while not limiter._under_way:
            await asyncio.sleep(0)
        second = limiter._ask(ANN.realm, ANN.credential, 20)
        await first.answer
        await second.answer
        await emptied(database)

        got = await taken(limiter, ANN, 6)

    assert got == 4


async def test_nodes_that_take_along_give_out_no_more_than_the_bucket_holds(database: Database) -> None:
    rate = 40
    async with limiting(database, credential=rate) as here, limiting(database, credential=rate) as there:
        began = clock.monotonic()
        got = [await asyncio.gather(taken(here, ANN, 50), taken(there, ANN, 50)) for _ in range(6)]
        took = clock.monotonic() - began

    let_through = sum(map(sum, got))
    assert rate * (BURST_SECONDS - 2 * AHEAD_SECONDS) <= let_through <= rate * (BURST_SECONDS + took) + 1


async def test_credentials_have_buckets_of_their_own_and_their_realm_has_one(database: Database) -> None:
    async with limiting(database, credential=SLOW, realm=SLOW * 2) as limiter:
        first, second = await taken(limiter, ANN, 3), await taken(limiter, BOB, 3)
        other = await taken(limiter, EVE, 3)

    assert (first, second, other) == (1, 0, 1)  # Ann's further asks have emptied the realm's


async def test_bucket_fills_again_with_time(database: Database) -> None:
    async with limiting(database, credential=SLOW) as limiter:
        await taken(limiter, ANN, 2)
        async with database.transaction(EVERY_REALM) as db:
            await db.execute("UPDATE rate_buckets SET at = at - interval '5 seconds'")

        assert await taken(limiter, ANN, 2) == 1


async def test_clock_that_goes_back_fills_nothing(database: Database) -> None:
    async with limiting(database, credential=SLOW) as limiter:
        await taken(limiter, ANN, 2)
        async with database.transaction(EVERY_REALM) as db:
            await db.execute("UPDATE rate_buckets SET at = at + interval '1 hour'")

        assert await taken(limiter, ANN, 2) == 0


async def test_refusal_says_when_to_come_again(database: Database) -> None:
    async with limiting(database, credential=SLOW) as limiter:
        await limiter.take(ANN)
        with pytest.raises(RateLimited) as refused:
            await limiter.take(ANN)

    assert refused.value.members == {"retry_after": 5}


async def test_standing_is_of_the_bucket_that_ends_first(database: Database) -> None:
    async with limiting(database, credential=10, realm=2) as limiter:
        standing = await limiter.take(ANN)

    assert standing == Standing("realm", 2, 9)
    assert standing.headers == {"RateLimit-Policy": '"realm";q=10;w=5', "RateLimit": '"realm";r=9;t=5'}


async def test_nothing_is_asked_where_nothing_is_limited(database: Database) -> None:
    assert await Limiter(database, Rates(0, 0)).take(ANN) is None


async def test_database_that_is_away_is_told() -> None:
    nowhere = Database("postgresql://127.0.0.1:1/none", pool_size=2)
    async with limiting(nowhere, credential=1) as limiter:
        with pytest.raises(StoreUnavailable):
            await limiter.take(ANN)


async def test_connection_that_was_cut_is_replaced_before_anything_is_asked_over_it(database: Database) -> None:
    async with limiting(database, credential=10) as limiter:
        await limiter.take(ANN)
        async with database.dedicated("cut", role="none") as db:
            await db.execute(
                """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                   WHERE application_name = 'suricate rates' AND datname = current_database()"""
            )
            await db.fetchval("SELECT 1")  # meanwhile the loop has seen the end of the other connection

        assert await limiter.take(ANN) is not None
