"""Faults of the network: an edge cut, deaf both ways or one, or slow."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.torture.edges import BOTH, Counts
from tests.torture.fleet import Fleet
from tests.torture.strikes import Evidence

LATENCY_SECONDS = (0.05, 0.8)
BYTES_PER_SECOND = 20_000


@asynccontextmanager
async def cut(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Reset all connections of an edge, and new ones."""
    evidence = Evidence()
    try:
        await fleet.network.cut(target)
        yield evidence
    finally:
        counts = await fleet.network.open(target)
        _note(evidence, counts, "cut", "refused")


@asynccontextmanager
async def blackhole(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Swallow all that comes, both ways; in the end it arrives late or its connections are reset."""
    async with _held(fleet, target, BOTH, is_late=chance < 0.5) as evidence:
        yield evidence


@asynccontextmanager
async def deafness(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Swallow what goes one way."""
    async with _held(fleet, target, [BOTH[chance < 0.5]], is_late=chance * 4 % 2 < 1) as evidence:
        yield evidence


@asynccontextmanager
async def slowness(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Let an edge crawl."""
    shortest, longest = LATENCY_SECONDS
    evidence = Evidence()
    try:
        await fleet.network.slow(target, shortest + chance * (longest - shortest), BYTES_PER_SECOND)
        yield evidence
    finally:
        _note(evidence, await fleet.network.open(target), "slow_bytes")


@asynccontextmanager
async def _held(fleet: Fleet, target: str, ways: Sequence[str], *, is_late: bool) -> AsyncIterator[Evidence]:
    evidence = Evidence(facts={"ways": ways, "is_late": is_late})
    try:
        await fleet.network.hold(target, ways)
        yield evidence
    finally:
        _note(evidence, await fleet.network.open(target, is_late=is_late), "held_bytes")


def _note(evidence: Evidence, counts: Counts, *proofs: str) -> None:
    evidence.facts |= counts
    evidence.has_bitten = any(counts.get(proof) for proof in proofs)
