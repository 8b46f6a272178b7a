"""A sample of the sweep; and it would notice: a lie about a life is found, and a point that does not come is no survival."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.api.databases import fresh_database
from tests.torture import inspection
from tests.torture.scenario import Kept, Scenario
from tests.torture.sweep import Ground, opened, points_of
from tests.torture.wire import Point

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]

SEED = 20260301


@pytest.fixture(scope="module")
async def ground(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """Two nodes that can be cut."""
    async with fresh_database(postgres) as url, opened(url, tmp_path_factory.mktemp("sweep"), nodes=2) as laid:
        yield laid


def test_commits_of_a_life_are_points_each_and_reads_and_the_background_once() -> None:
    counted = {"pool: insert turns #1": 2, "pool: read turns #2": 9, "leases: update turns #3": 5, "pool: read pg_type #4": 1}

    assert points_of(counted, {"leases: update turns #3"}) == [
        Point("leases: update turns #3", 2),
        Point("pool: insert turns #1", 1),
        Point("pool: insert turns #1", 2),
        Point("pool: read turns #2", 3),
    ]


async def test_life_cut_and_killed_at_points_drawn_by_lot_is_as_promised(ground: Ground) -> None:
    never = await ground.cut(Point("pool: insert nothing #0000", 1), "before", is_kill=True, lives=1)
    points = [point for point in points_of(ground.counted, set()) if "insert messages" in point.name]
    drawn = random.Random(SEED)

    cut = await ground.cut(drawn.choice(points), "after", is_kill=False)
    killed = await ground.cut(drawn.choice(points), "after", is_kill=True)

    assert (cut.fate, cut.why, killed.fate, killed.why) == ("survived", "", "survived", "")
    assert (never.fate, never.why) == ("not reached", "")


async def test_lie_about_a_life_is_found(ground: Ground) -> None:
    ground.turn_round()
    asker = ground.asker()
    scenario = Scenario(asker)
    await scenario.play()
    told = scenario.told[0]
    await inspection.inspect(asker, told)
    [*others, last] = told.turns.items()

    lies = {
        "a turn that was acknowledged is missing": replace(told, turns=told.turns | {"none": Kept([], frozenset())}),
        "a turn came twice": replace(told, turns=dict(others)),
        "a turn has another end": replace(told, turns=told.turns | {last[0]: Kept(last[1].plans, frozenset({"failed"}))}),
        "a turn has another prompt": replace(told, turns=told.turns | {last[0]: Kept(["p"], last[1].ends)}),
        "a frame was shown twice": replace(told, frames=told.frames[:1] * 2),
        "a summary is missing": replace(told, compactions=told.compactions + 1),
    }
    for lie in lies.values():
        with pytest.raises(AssertionError):
            await inspection.inspect(asker, lie)
