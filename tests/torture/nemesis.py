"""Who breaks things: by a schedule that its seed fixes, in two lanes side by side, and never without healing again.

One lane breaks processes and Postgres, the other the network and what is around: at most two faults hold at once, and none
breaks what another is healing.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import asyncpg
import httpx2
import structlog

from app import clock
from tests.torture import faults_network, faults_postgres, faults_processes
from tests.torture.fleet import Fleet
from tests.torture.processes import NotOurs
from tests.torture.records import Book, Fault
from tests.torture.strikes import Evidence, Kind, Strike

PAUSE_SECONDS = (0.5, 4.0)
MISSES = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    httpx2.HTTPError,
    NotOurs,
)  # what was to be broken is away already

DISK_FULL = Kind("disk_full", faults_postgres.fill_disk, "postgres", (0.5, 1.5))
CLOCK = Kind("clock", faults_processes.wrong_clock, "node", (1, 3))
INSIDE = (
    Kind("node_kill", faults_processes.kill, "runner", (0.1, 2), weight=4),
    Kind("node_term", faults_processes.restart, "runner", (0.1, 0.5), weight=2),
    Kind("node_pause", faults_processes.freeze, "runner", (0.5, 2.5), weight=4),
    Kind("node_drain", faults_processes.drain, "node", (0.3, 1.5)),
    Kind("postgres_fast", faults_postgres.end("fast"), "postgres", (0.1, 1)),
    Kind("postgres_immediate", faults_postgres.end("immediate"), "postgres", (0.1, 1.5), weight=2),
    Kind("postgres_kill", faults_postgres.end("kill"), "postgres", (0.1, 1)),
    Kind("backend_kill", faults_postgres.kill_backend, "postgres", (0.2, 0.2)),
    Kind("backend_freeze", faults_postgres.freeze_backend, "postgres", (0.5, 2), weight=2),
)
AROUND = (
    Kind("link_cut", faults_network.cut, "link", (0.1, 2), weight=4),
    Kind("link_blackhole", faults_network.blackhole, "link", (0.5, 2.5), weight=4),
    Kind("link_deaf", faults_network.deafness, "link", (0.5, 2.5), weight=4),
    Kind("link_slow", faults_network.slowness, "link", (0.5, 2), weight=3),
    Kind("provider_down", faults_processes.kill, "provider", (0.1, 1), weight=2),
    Kind("provider_pause", faults_processes.freeze, "provider", (0.3, 2)),
    Kind("tools_down", faults_processes.kill, "tools", (0.1, 1)),
    Kind("terminate_backends", faults_postgres.end_backends, "postgres", (0, 0), weight=2),
    Kind("long_lock", faults_postgres.lock_sessions, "postgres", (0.3, 1.3), weight=2),
)

log = structlog.get_logger()


def schedule(kinds: Sequence[Kind], seed: str, lease_seconds: float, targets: Mapping[str, Sequence[str]]) -> Iterator[Strike]:
    """Yield what is broken, one after the other, for ever: rounds of all kinds, in an order and for times that the seed fixes.

    Args:
        targets: names to choose from, by what a kind breaks.
    """
    dice = random.Random(seed)
    weights = [kind.weight for kind in kinds]
    while True:
        for kind in dice.sample(kinds, k=sum(weights), counts=weights):
            yield Strike(
                kind,
                dice.choice(targets.get(kind.breaks, (kind.breaks,))),
                dice.uniform(*PAUSE_SECONDS),
                dice.uniform(*kind.leases) * lease_seconds,
                dice.random(),
            )


class Nemesis:
    """Breaks a fleet, and writes down what it broke.

    Args:
        kinds: names of the faults to choose from; None is all.
        links: what the names of the links that it breaks end with.

    Attributes:
        struck, bitten: how often, by kind.
    """

    def __init__(self, fleet: Fleet, book: Book, seed: int, *, kinds: Collection[str] | None = None, links: str = "") -> None:
        self.struck: Counter[str] = Counter()
        self.bitten: Counter[str] = Counter()
        self._fleet = fleet
        self._book = book
        self._seed = seed
        self._kinds = kinds
        self._links = links

    async def run(self, seconds: float) -> None:
        """Break things for so long; all is healed when it returns."""
        until = clock.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for name, kinds in self.lanes().items():
                tasks.create_task(self._strike_until(until, self._schedule(name, kinds)))
            tasks.create_task(asyncio.sleep(seconds))

    def lanes(self) -> Mapping[str, Sequence[Kind]]:
        """Return what is broken side by side, without what this machine cannot break and what was not chosen."""
        possible = [(DISK_FULL, self._fleet.postgres.can_fill), (CLOCK, faults_processes.FAKETIME is not None)]
        lanes = {"inside": [*INSIDE, *(kind for kind, is_possible in possible if is_possible)], "around": AROUND}
        chosen = {
            lane: [kind for kind in kinds if self._kinds is None or kind.name in self._kinds] for lane, kinds in lanes.items()
        }
        return {lane: kinds for lane, kinds in chosen.items() if kinds}

    async def strike(self, strike: Strike) -> None:
        """Break one thing, heal it, and put it on record."""
        began, name, evidence = clock.monotonic(), strike.kind.name, Evidence()
        try:
            async with strike.kind.act(self._fleet, strike.target, strike.chance) as evidence:
                await asyncio.sleep(strike.seconds)
        except MISSES as error:
            evidence.facts["missed"] = repr(error)
        ended = clock.monotonic()
        log.info("fault", kind=name, target=strike.target, seconds=round(ended - began, 1), bitten=evidence.has_bitten)
        self._book.write(Fault(name, strike.target, began, ended, evidence.facts, evidence.has_bitten))
        self.struck[name] += 1
        self.bitten[name] += evidence.has_bitten

    def _schedule(self, lane: str, kinds: Sequence[Kind]) -> Iterator[Strike]:
        fleet = self._fleet
        links = [name for name in fleet.network.names if name.endswith(self._links)]
        targets = {"runner": fleet.runners, "node": list(fleet.urls), "link": links}
        return schedule(kinds, f"{self._seed} {lane}", fleet.lease_seconds, targets)

    async def _strike_until(self, until: float, strikes: Iterator[Strike]) -> None:
        for strike in strikes:
            if clock.monotonic() + strike.pause_seconds + strike.seconds > until:
                return
            await asyncio.sleep(strike.pause_seconds)
            await self.strike(strike)
