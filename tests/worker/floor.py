"""Workshop floors on one database: nodes that run turns, by providers and tools that a test makes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from app import ids
from app.agent.loop import Limits
from app.agent.points import Panel
from app.agent.step import RetryPolicy
from app.db.engine import Database
from app.hooks import background, configuration
from app.hooks.base import Point
from app.hooks.registry import Registry as HookRegistry
from app.journal.journal import Journal
from app.nodes import Node
from app.outbound.addresses import EVERYWHERE
from app.outbound.door import Door, Policy
from app.providers.base import Provider, TextChunk
from app.sessions import DEFAULT_REALM
from app.tools.base import Tool
from app.tools.registry import Registry
from app.traces import NO_TRACER, Tracer
from app.turns.claims import Claim
from app.turns.turn import Turn
from app.worker.brief import Bench
from app.worker.pool import Pool
from tests.agent.doubles import Part
from tests.hooks.receiver import SECRET, Received, deciding, receiving
from tests.journal.ledger import LIMIT_SECONDS, journal_on, open_session, running, start
from tests.turns.acts import read_turn

LIMITS = Limits(step_limit=10, tool_timeout_seconds=30, retries=RetryPolicy(first_delay_seconds=0))


@dataclass(slots=True)
class NodeUnderTest:
    """One node: its journal and its pool."""

    journal: Journal
    pool: Pool

    async def turn(self, prompt: str = "Hello", **more: Any) -> tuple[str, str]:
        """Open a session and start a turn on this node; return both ids."""
        session_id = await open_session(self.journal)
        return session_id, await self.start(session_id, prompt, **more)

    async def start(self, session_id: str, prompt: str = "Hello", **more: Any) -> str:
        """Start a turn on this node."""
        return await start(self.journal, session_id, self.pool, prompt, **more)  # type: ignore[arg-type] # a claimant too

    def holds(self, session_id: str) -> Claim | None:
        """Return the claim of the attempt that runs here."""
        held = self.pool._held.get(session_id)
        return held.claim if held else None

    async def let_go(self, session_id: str) -> None:
        """Wait until no attempt at the session's turn runs here."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.holds(session_id):
                await asyncio.sleep(0.002)


@dataclass(frozen=True, slots=True)
class Traits:
    """What nodes differ in."""

    lease_seconds: float = 30.0
    grace_seconds: float = 5.0
    max_live_turns: int = 100
    has_wakeups: bool = False
    interval_seconds: float = 0.0
    limits: Limits = LIMITS
    panel: Panel | None = None
    tracer: Tracer = NO_TRACER


PLAIN = Traits()


def held_up(*after: Part) -> tuple[asyncio.Event, list[Part]]:
    """Make an answer that says something, waits for a signal, and goes on."""
    gate = asyncio.Event()
    return gate, [TextChunk("Par"), gate, *after]


@asynccontextmanager
async def node(
    database: Database, provider: Provider, tools: Sequence[Tool] = (), traits: Traits = PLAIN
) -> AsyncIterator[NodeUnderTest]:
    """Run a node for the length of the block; at its end it dies as if it were killed: nothing is handed over."""
    journal = journal_on(database, interval_seconds=traits.interval_seconds)
    bench = Bench(journal, {"played": provider}, Registry(tools), traits.limits, traits.panel, traits.tracer)
    row = Node(ids.node_id(), traits.lease_seconds, "worker", "1", "here", 1, traits.max_live_turns)
    pool = Pool(bench, row, grace_seconds=traits.grace_seconds)
    works = [journal.writer.run(), pool.run()]
    if traits.has_wakeups:
        works.append(journal.wakeups.run())
    async with running(*works):
        async with asyncio.timeout(LIMIT_SECONDS):
            while not pool.has_room() or (traits.has_wakeups and not journal.wakeups.is_listening):
                await asyncio.sleep(0.002)
        yield NodeUnderTest(journal, pool)


@asynccontextmanager
async def watching(point: Point, told: "asyncio.Queue[dict[str, Any]]") -> AsyncIterator[Panel]:
    """Make a panel with one observer, who puts what it is asked at a point into a queue."""

    def note(received: Received) -> bytes:
        told.put_nowait(received.payload)
        return deciding({"decision": "allow"})

    door = Door(Policy(EVERYWHERE, allows_http=True))
    async with receiving(note) as receiver, background.opened() as beside:
        hook = {"id": "watch", "points": [point], "url": receiver.url, "capability": "observe"}
        hooks = configuration.load(orjson.dumps({"secret": SECRET, "hooks": [hook]}).decode())
        yield Panel(HookRegistry(hooks, door, door), beside)


async def lapsed(database: Database, turn_id: str) -> None:
    """Let the lease of a turn run out, as it does when its node has died."""
    async with database.transaction(DEFAULT_REALM) as db:
        await db.execute("UPDATE turns SET lease_expires_at = clock_timestamp() WHERE id = $1", turn_id)


async def ended(database: Database, session_id: str, turn_id: str) -> Turn:
    """Wait, under the limit, for a turn's end."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await read_turn(database, session_id, turn_id)).is_over:
            await asyncio.sleep(0.005)
    return found


async def until(database: Database, query: str, *args: object) -> None:
    """Wait, under the limit, until a query's first value is true."""
    async with asyncio.timeout(LIMIT_SECONDS), database.transaction(DEFAULT_REALM) as db:
        while not await db.fetchval(query, *args):
            await asyncio.sleep(0.002)


async def said_in(database: Database, session_id: str, kind: str, count: int = 1) -> None:
    """Wait until a session's log has so many events of a type."""
    query = "SELECT count(*) >= $3 FROM events WHERE session_id = $1 AND type = $2"
    await until(database, query, session_id, kind, count)
