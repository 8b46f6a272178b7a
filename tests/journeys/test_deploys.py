"""A new version goes in node by node, under load."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from app.db import migrate
from tests.journeys.follower import Follower
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import ROOT, Service

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CLIENTS = 6
TURN_TOKENS, TOKENS_A_SECOND = 120, 60
BEGINNING = range(5, 30)
AGAIN_SECONDS = 0.02
ALL_SECONDS = 60.0
NEXT_MIGRATION = '''
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None


def upgrade() -> None:
    """Expand the schema as the next version would."""
    op.add_column("sessions", sa.Column("mood", sa.Text(), server_default="fine", nullable=False))
    op.add_column("turns", sa.Column("mood", sa.Text()))
    op.create_table("moods", sa.Column("id", sa.Uuid(), primary_key=True))
    op.create_index("sessions_by_mood", "sessions", ["mood"])
'''


@dataclass
class Balancer:
    """The nodes that take traffic, as what stands in front of them knows it."""

    nodes: list[Service] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    async def post(self, path: str, key: str, prompt: str) -> dict[str, str]:
        """Post a prompt until a node answers; what clients see but for lost connections is kept."""
        headers = {"Prefer": "respond-async", "Idempotency-Key": key}
        while True:
            for node in list(self.nodes):
                try:
                    answer = await node.client.post(path, json={"prompt": prompt}, headers=headers)
                except httpx2.TransportError:
                    continue
                self.statuses.add(answer.status_code)
                started: dict[str, str] = answer.json()
                return started
            await asyncio.sleep(AGAIN_SECONDS)

    async def follow(self, follower: Follower, turns: int) -> None:
        """Read a session's events until so many of its turns have ended, coming back as often as needed."""
        while follower.count("turn_completed") < turns:
            for node in list(self.nodes):
                await follower.follow(node, until=["turn_completed"])
                break
            await asyncio.sleep(AGAIN_SECONDS)


@pytest.fixture
async def slow_double() -> AsyncIterator[ProviderDouble]:
    """A provider that takes two seconds for an answer, longer than a node that stops waits for one."""
    async with ProviderDouble(tokens=TURN_TOKENS, token_rate=TOKENS_A_SECOND) as running:
        yield running
        assert (await running.counts()).rejected == 0


async def beginning_of_a_turn(follower: Follower) -> None:
    """Wait until a turn has begun to speak and has most of its words before it."""
    while not follower.data or _events_of_turn(follower) not in BEGINNING:
        await follower.saw(1)


def _events_of_turn(follower: Follower) -> int:
    """Count what was seen since the last turn began."""
    types = [frame.event for frame in follower.frames]
    return types[::-1].index("turn_started") if "turn_started" in types else 0


async def test_rolling_restart_under_load_loses_nothing_and_clients_see_reconnects_alone(
    serve: Callable[..., Awaitable[Service]], slow_double: ProviderDouble
) -> None:
    settings = {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": slow_double.base_url}
    balancer = Balancer([await serve(**settings), await serve(**settings)])
    followers = [Follower((await balancer.nodes[0].create())["session_id"]) for _ in range(CLIENTS)]
    is_rolled = asyncio.Event()

    async def converse(follower: Follower) -> int:
        turns = 0
        while not is_rolled.is_set():
            turns += 1
            await balancer.post(f"/v1/sessions/{follower.session_id}/turns", f"key-{turns}", f"Question {turns}")
            await balancer.follow(follower, turns)
        return turns

    async with asyncio.timeout(ALL_SECONDS), asyncio.TaskGroup() as tasks:
        talks = [tasks.create_task(converse(follower)) for follower in followers]
        for _ in range(2):
            balancer.nodes.append(await serve(**settings))
            await beginning_of_a_turn(followers[0])
            await balancer.nodes.pop(0).terminate()
        is_rolled.set()

    assert balancer.statuses == {202}
    resumed = 0
    for follower, talk in zip(followers, talks, strict=True):
        follower.assert_saw_everything(await balancer.nodes[0].log_of(follower.session_id))
        assert follower.count("turn_started") == talk.result() == follower.count("turn_completed")
        resumed += follower.count("turn_resumed")
    assert resumed > 0


def next_version(folder: Path) -> Path:
    """Make a checkout of the version after this one, which has a migration more."""
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "migrations" / "versions" / "9999_next.py").write_text(NEXT_MIGRATION.format(head=migrate.head()))
    return folder


async def test_two_versions_carry_the_same_turn_on_one_schema(
    serve: Callable[..., Awaitable[Service]], double: ProviderDouble, tmp_path: Path
) -> None:
    await double.play(*[[scripts.endless(rate=50)]] * 2, [scripts.text("Paris."), scripts.finish()])
    settings = {"SURICATE_OPENAI_COMPATIBLE_BASE_URL": double.base_url, "SURICATE_SHUTDOWN_GRACE_SECONDS": "0"}
    newer = settings | {"PYTHONPATH": str(next_version(tmp_path / "next"))}
    old = await serve(**settings)
    follower = Follower((await old.create("Hello"))["session_id"])
    await follower.follow(old, most=8)

    new = await serve(**newer)
    await old.terminate()
    await follower.follow(new, until=["turn_resumed"])
    await double.started(2)
    old_again = await serve(**settings)
    await new.terminate()
    async with asyncio.timeout(ALL_SECONDS):
        await follower.follow(old_again, until=["turn_completed"])

    assert "database_migrated" in new.log.read_text()
    assert "database_is_newer" in old_again.log.read_text()
    assert follower.count("turn_resumed") == 2
    follower.assert_saw_everything(await old_again.log_of(follower.session_id))
