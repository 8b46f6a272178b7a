"""Part m: what a turn pays for the walls: realms' policies in Postgres, a key, limits, the audit trail.

Each server runs alone and on a database of its own, new in each round: what others leave to be cleaned up is not its price.
"""

import asyncio
import sys
from dataclasses import dataclass

from tests.bench.figures import median
from tests.bench.ground import SURICATE, UNWALLED, Ground, process
from tests.bench.table import Aim, Row
from tests.bench.turns import CONCURRENCY, TOKENS, Run, run_turns

OPEN = "no key asked for"
SERVERS = (SURICATE, OPEN, UNWALLED)
KEY_SECONDS = 20
ANY_NUMBER = "100000"  # a second: limits count, and refuse nobody


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: turns of each server in a round, those before them that warm up, and rounds."""

    turns: int
    warming: int
    rounds: int


async def price_of_walls(ground: Ground, *, quick: bool) -> list[Row]:
    """Part m."""
    sizes = Sizes(32, 16, 1) if quick else Sizes(800, 240, 7)
    await ground.clear()
    spent: dict[str, list[float]] = {name: [] for name in SERVERS}
    for round_ in range(sizes.rounds):
        for name in SERVERS if round_ % 2 else SERVERS[::-1]:
            run = await _alone(ground, name, sizes, await ground.database(f"bench_walls_{SERVERS.index(name)}_{round_}"))
            spent[name].append(run.server_ms + run.postgres_ms)
    medians = {name: median(found) for name, found in spent.items()}
    ours = medians.pop(SURICATE)
    what = f"CPU of server and Postgres of a turn of {TOKENS} tokens with a key, {CONCURRENCY} at once"
    more = 100 * (ours / medians[UNWALLED] - 1)
    return [
        Row("m", "m-cpu", what, "ms", ours, medians),
        Row("m", "m-price", f"the same: more than {UNWALLED}", "%", more, {}, Aim(10)),
    ]


async def _alone(ground: Ground, name: str, sizes: Sizes, database_url: str) -> Run:
    limits = {"SURICATE_RATE_PER_CREDENTIAL": ANY_NUMBER, "SURICATE_RATE_PER_REALM": ANY_NUMBER}
    key = await _key(database_url) if name == SURICATE else None
    async with ground.started(UNWALLED if name == UNWALLED else SURICATE, database_url, key=key, **limits) as server:
        await run_turns(ground, server, turns=sizes.warming, concurrency=CONCURRENCY)
        return await run_turns(ground, server, turns=sizes.turns, concurrency=CONCURRENCY)


async def _key(database_url: str) -> str:
    command = [sys.executable, "-m", "app.cli", "keys", "create", "--scope", "write"]
    async with process(command, env={"SURICATE_DATABASE_URL": database_url}) as running, asyncio.timeout(KEY_SECONDS):
        assert running.stdout is not None
        return (await running.stdout.read()).decode().strip()
