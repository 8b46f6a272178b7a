"""How often a credential, and its realm, may ask: token buckets that all nodes share.

A busy node does not ask Postgres for each request: those that come while one question is under way share the next, and what is
asked for takes a little more along, which is given out from memory until it is old. So no more is ever let through than the
buckets hold, and what a node has taken along and not given out is lost to the others. The table is not logged: what a crash
forgets is that somebody was in a hurry.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app import clock
from app.cache import TtlCache
from app.credentials.caller import Caller
from app.db.engine import Connection, Database
from app.errors import RateLimited, StoreUnavailable

BURST_SECONDS: Final = 5.0  # of its rate that may come at once
AHEAD_SECONDS: Final = 0.1  # of its rate that a node takes along; less than a whole request is none
HELD_SECONDS: Final = 1.0  # what was taken along, before it is lost
REALM_BUCKET: Final = "realm"

_TAKE: Final = """
WITH asked AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::float8[], $5::float8[])
    AS a(realm_id, bucket, rate, burst, asked) ORDER BY realm_id, bucket
)
INSERT INTO rate_buckets AS b (realm_id, bucket, rate, burst, asked, granted, tokens, at)
SELECT realm_id, bucket, rate, burst, asked, least(asked, floor(burst)), burst - least(asked, floor(burst)), clock_timestamp()
FROM asked
ON CONFLICT (realm_id, bucket) DO UPDATE SET rate = excluded.rate, burst = excluded.burst, asked = excluded.asked,
  granted = least(excluded.asked, floor({full})), tokens = {full} - least(excluded.asked, floor({full})), at = excluded.at
RETURNING realm_id, bucket, tokens, granted
""".format(full="least(excluded.burst, b.tokens + excluded.rate * greatest(0, extract(epoch FROM excluded.at - b.at)))")
"""Fills each bucket again for the time that has passed, and takes from it what is asked and there."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How many requests a second are let through; 0: any number.

    Args:
        per_credential: of each credential.
        per_realm: of all credentials of a realm together.
    """

    per_credential: float
    per_realm: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of the bucket that is nearest to its end.

    Args:
        name: `credential` or `realm`.
        rate: requests a second.
        left: requests that may come at once now.
    """

    name: str
    rate: float
    left: int

    @property
    def headers(self) -> dict[str, str]:
        """How an answer tells of it. Source: draft-ietf-httpapi-ratelimit-headers-10."""
        window = int(BURST_SECONDS)
        return {
            "RateLimit-Policy": f'"{self.name}";q={int(self.rate * BURST_SECONDS)};w={window}',
            "RateLimit": f'"{self.name}";r={self.left};t={window}',
        }


@dataclass(eq=False, slots=True)
class _Asked:
    """One bucket of one request, on its way."""

    realm: str
    bucket: str
    rate: float
    answer: "asyncio.Future[int | None]"


@dataclass(slots=True)
class _Held:
    """What was taken along from one bucket.

    Args:
        left: what is left in the bucket itself.
    """

    tokens: int
    left: int


class Limiter:
    """Lets requests through, or not."""

    def __init__(self, database: Database, rates: Rates) -> None:
        self._database = database
        self._rates = rates
        self._waiting: list[_Asked] = []
        self._under_way: list[_Asked] = []
        self._held: TtlCache[tuple[str, str], _Held] = TtlCache(HELD_SECONDS)
        self._has_work = asyncio.Event()

    async def take(self, caller: Caller) -> Standing | None:
        """Let one request through.

        Returns:
            How the caller stands; None where nothing is limited.

        Raises:
            RateLimited: it comes too soon; `retry_after` says how many seconds.
            StoreUnavailable: it could not be found out.
        """
        limited = {caller.credential: self._rates.per_credential, REALM_BUCKET: self._rates.per_realm}
        asked = [self._ask(caller.realm, bucket, rate) for bucket, rate in limited.items() if rate]
        standings = [
            Standing("realm" if one.bucket == REALM_BUCKET else "credential", one.rate, left if left is not None else -1)
            for one, left in [(one, await one.answer) for one in asked]
        ]
        if not standings:
            return None
        least = min(standings, key=lambda standing: standing.left / standing.rate)
        if least.left < 0:
            whose = "this credential" if least.name == "credential" else "this realm"
            seconds = max(1, math.ceil(1 / least.rate))
            raise RateLimited(f"Too many requests of {whose}: {least.rate:g} a second are let through.", retry_after=seconds)
        return least

    async def run(self) -> None:
        """Ask for what waits, for as long as the process lives; a connection is opened once there is something to ask."""
        while True:
            await self._has_work.wait()
            try:
                async with self._database.dedicated("rates", synchronous_commit="off") as db:
                    await self._ask_over(db)
            except StoreUnavailable as error:
                self._refuse(error)

    async def _ask_over(self, db: Any) -> None:
        """Ask for what waits over a connection, for as long as that lives."""
        while not db.is_closed():
            self._has_work.clear()
            self._under_way, self._waiting = self._waiting, []
            await self._take(db, self._under_way)
            await self._has_work.wait()

    def _refuse(self, error: StoreUnavailable) -> None:
        self._has_work.clear()
        for one in (*self._under_way, *self._waiting):
            if not one.answer.done():
                one.answer.set_exception(error)
        self._waiting = []

    def _ask(self, realm: str, bucket: str, rate: float) -> _Asked:
        asked = _Asked(realm, bucket, rate, asyncio.get_running_loop().create_future())
        held = self._held.get((realm, bucket))
        if held is not None and held.tokens:
            held.tokens -= 1
            asked.answer.set_result(held.left + held.tokens)
        else:
            self._waiting.append(asked)
            self._has_work.set()
        return asked

    async def _take(self, db: Connection, batch: Sequence[_Asked]) -> None:
        buckets: dict[tuple[str, str], list[_Asked]] = {}
        for one in batch:
            buckets.setdefault((one.realm, one.bucket), []).append(one)
        rates = [found[0].rate for found in buckets.values()]
        rows = await db.fetch(
            _TAKE,
            [realm for realm, _ in buckets],
            [bucket for _, bucket in buckets],
            rates,
            [max(1.0, rate * BURST_SECONDS) for rate in rates],
            [len(found) + float(int(found[0].rate * AHEAD_SECONDS)) for found in buckets.values()],
        )
        for row in rows:
            place = row["realm_id"], row["bucket"]
            self._give_out(place, buckets[place], granted=int(row["granted"]), left=int(row["tokens"]))

    def _give_out(self, bucket: tuple[str, str], waiting: Sequence[_Asked], *, granted: int, left: int) -> None:
        held = self._held.get(bucket)  # from an answer that came after these had asked
        granted += 0 if held is None else held.tokens
        for place, one in enumerate(waiting):
            if not one.answer.done():
                one.answer.set_result(left + granted - place - 1 if place < granted else None)
        self._held.put(bucket, _Held(max(0, granted - len(waiting)), left), found_at=clock.monotonic())
