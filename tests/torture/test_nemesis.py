"""What is broken follows from the seed alone, bites, and is healed."""

import asyncio
from itertools import islice
from pathlib import Path

import httpx2
import pytest

from tests.torture import fleet, nemesis, records
from tests.torture.nemesis import AROUND, INSIDE, Nemesis
from tests.torture.records import Book, Fault
from tests.torture.strikes import Strike

TARGETS = {"runner": ["n1", "n2", "w1"], "node": ["n1", "n2"], "link": ["n1.postgres", "n1.clients"]}
BITE_WITHOUT_LOAD = {
    "node_kill", "node_pause", "node_drain", "clock", "backend_kill", "backend_freeze", "disk_full",
    "provider_down", "terminate_backends",
}  # fmt: skip


def test_the_seed_fixes_what_is_broken() -> None:
    first, again, other = (list(islice(nemesis.schedule(INSIDE, seed, 3, TARGETS), 100)) for seed in ("1", "1", "2"))

    assert first == again
    assert first != other


def test_a_round_has_each_kind_as_often_as_its_weight() -> None:
    for kinds in (INSIDE, AROUND):
        strikes = list(islice(nemesis.schedule(kinds, "1", 3, TARGETS), sum(kind.weight for kind in kinds)))

        assert {kind.name: [strike.kind for strike in strikes].count(kind) for kind in kinds} == {
            kind.name: kind.weight for kind in kinds
        }


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.timeout(120)
async def test_each_fault_bites_and_the_node_is_ready_again(tmp_path: Path) -> None:
    async with fleet.running(tmp_path, nodes=1, lease_seconds=1) as broken:
        with Book(tmp_path / "faults.jsonl") as book:
            breaker = Nemesis(broken, book, seed=1)
            for kind in [kind for kinds in breaker.lanes().values() for kind in kinds if kind.name in BITE_WITHOUT_LOAD]:
                target = {"runner": "n1", "node": "n1"}.get(kind.breaks, kind.breaks)
                await breaker.strike(Strike(kind, target, 0, 0.2, 0.3))
                await _ready(broken.urls["n1"])

    found = {fault.kind: fault.evidence for fault in records.read(tmp_path, "faults.jsonl", Fault) if not fault.has_bitten}
    assert found == {}
    assert broken.deaths == []
    assert broken.postgres.deaths == []


async def _ready(url: str) -> None:
    async with asyncio.timeout(20), httpx2.AsyncClient(trust_env=False) as client:
        while (await client.get(f"{url}/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
