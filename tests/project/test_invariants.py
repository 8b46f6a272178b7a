"""One plain proof for each invariant of docs/architecture.md that no text or contract can show; rooms have deeper ones."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from app.agent import transcript
from app.agent.calls import Calls, Outcome
from app.agent.emissions import Record, Tell
from app.agent.transcript import Call
from app.db.engine import Database
from app.db.tables import metadata
from app.journal import frames, types
from app.journal.event import Event
from app.journal.reader import Stored
from app.messages import Message, Text, ToolResult, ToolUse, Usage
from app.providers.base import ModelRequest, ToolSpec
from app.providers.chat_completions import write_request
from app.sessions import DEFAULT_REALM
from app.tools.registry import Registry
from app.turns import takeover
from tests.journal import ledger
from tests.project.source import APP, ROOT, module_name, python_files
from tests.provider_double.transcript import parse

pytestmark = pytest.mark.anyio

READERS = 20  # four times the pool of the tests' database


WATCHED = """
import importlib, sys
def watch(event, args):
    if event.startswith(("socket.bind", "socket.connect", "subprocess.", "os.mkdir", "os.remove", "os.system")):
        raise SystemExit(f"{event} {args}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+") and args[0] != "/dev/null":
        raise SystemExit(f"{event} {args}")
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


class Bell:
    """A tool that tells whether it was rung."""

    spec = ToolSpec(name="bell", description="Ring.", input_schema={"type": "object"})
    is_idempotent = False

    def __init__(self) -> None:
        self.rings = 0

    async def run(self, args: Mapping[str, Any]) -> str:  # noqa: ARG002 - a bell needs none
        """Ring."""
        self.rings += 1
        return "ding"


def cuts() -> list[tuple[list[Event], list[Message]]]:
    """What a step with two calls puts on record, entry by entry: its events, and its messages with them."""
    uses = (ToolUse("a", "bell", {}), ToolUse("b", "bell", {}))
    asked = Message("assistant", (Text("Let me ring."), *uses), "tool_use")
    answered = Message("tool", (ToolResult("a", "ding", is_error=False), ToolResult("b", "dong", is_error=False)))
    whole: list[Event] = [types.TextComplete(1, "Let me ring."), *(types.ToolCallRequested(1, u.id, u.name, {}) for u in uses)]
    return [
        ([types.StepStarted(1)], []),
        ([types.ReasoningDelta(1, "Hm.")], []),
        ([types.TextDelta(1, "Let me ring.")], []),
        ([types.ToolCallDelta(1, "a", "bell", "{}"), types.ToolCallDelta(1, "b", "bell", "{")], []),
        ([*whole, types.StepCompleted(1, "tool_use", Usage())], [asked]),
        ([types.ToolExecutionStarted("a", "bell"), types.ToolExecutionStarted("b", "bell")], []),
        ([types.ToolExecutionCompleted("b", "bell", "dong", False, 1)], []),
        ([types.ToolExecutionCompleted("a", "bell", "ding", False, 2)], []),
        ([types.ToolResultReceived(use.id, use.name, False) for use in uses], [answered]),
    ]


def stored(events: list[Event]) -> list[Stored]:
    """Write events as the log has them."""
    return [
        Stored(seq, "t", event.type, frames.body(event, session_id="s", turn_id="t", at="2026-01-01T00:00:00.000Z"))
        for seq, event in enumerate(events, 1)
    ]


def test_importing_has_no_effect() -> None:
    modules = [name for path in python_files(APP) if (name := module_name(path)) != "app"]
    env = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    done = subprocess.run([sys.executable, "-c", WATCHED, *modules], env=env, capture_output=True, check=False, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_migrations_make_the_tables_that_are_described(database_url: str) -> None:
    async def connect() -> Any:
        return await asyncpg.connect(database_url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        drift = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))

    assert drift == []


async def test_a_second_live_turn_is_refused_by_the_database_itself(database: Database) -> None:
    journal = ledger.journal_on(database)
    claim = await ledger.claimed(journal)
    queued = await ledger.start(journal, claim.session_id, ledger.Node(), on_busy="queue")

    with pytest.raises(asyncpg.UniqueViolationError, match="turns_one_live"):
        async with database.transaction(DEFAULT_REALM) as db:
            await db.execute("UPDATE turns SET status = 'running' WHERE id = $1", queued)


async def test_a_tool_runs_only_after_its_start_was_made_durable() -> None:
    bell = Bell()
    async with asyncio.TaskGroup() as tasks:

        def spawn(work: Any) -> "asyncio.Task[Outcome]":
            return tasks.create_task(work)

        emissions = Calls([Call("a", "bell", {})], Registry([bell]), spawn, timeout_seconds=5).run()
        first = await anext(emissions)
        await asyncio.sleep(0)
        rings_before = bell.rings
        rest = [emission async for emission in emissions]

    assert isinstance(first, Record)
    assert [event.type for event in first.events] == ["tool_execution_started"]
    assert rings_before == 0
    assert bell.rings == 1
    assert isinstance(rest[-1], Tell)


@pytest.mark.parametrize("length", range(len(cuts()) + 1))
def test_the_transcript_is_valid_after_any_cut(length: int) -> None:
    made = cuts()[:length]
    closing = transcript.close(transcript.fold(stored([event for events, _ in made for event in events])))
    user = Message("user", (Text("Ring twice."),))

    history = [user, *(message for _, messages in made for message in messages), *closing.messages, user]

    request = parse(write_request(ModelRequest("m", None, history, [Bell.spec])))
    assert request["messages"][-1]["role"] == "user"


async def test_readers_that_wait_hold_no_connection(database: Database) -> None:
    journal = ledger.journal_on(database)
    claim = await ledger.claimed(journal)
    async with asyncio.TaskGroup() as tasks:
        with_open = [journal.subscriptions.open(DEFAULT_REALM, claim.session_id) for _ in range(READERS)]
        readers = [opened.__enter__() for opened in with_open]
        waiting = [tasks.create_task(ledger.read_until(reader, 3)) for reader in readers]
        async with asyncio.timeout(ledger.LIMIT_SECONDS):
            while database.pool_in_use or any(reader.cursor < 2 for reader in readers):
                await asyncio.sleep(0.005)
        undone = [task.done() for task in waiting]
        async with ledger.running(journal.writer.run()):
            await ledger.pen(journal, claim).write(ledger.said())
            seen = [ledger.numbers(await task) for task in waiting]

    assert undone == [False] * READERS
    assert seen == [[1, 2, 3]] * READERS
    for opened in with_open:
        opened.__exit__(None, None, None)


async def test_two_that_take_over_one_turn_get_one_claim(database: Database) -> None:
    journal = ledger.journal_on(database)
    session_id = await ledger.open_session(journal)
    await ledger.start(journal, session_id, ledger.Node(room=0))
    nodes = [ledger.Node(), ledger.Node()]

    async def take(node: ledger.Node) -> bool:
        async with journal.transaction(DEFAULT_REALM) as tx:
            return await takeover.take_over(tx, session_id, node)

    taken = await asyncio.gather(*map(take, nodes))
    again = [await take(node) for node in nodes]

    assert sorted(taken) == [False, True]
    assert again == [False, False]
    assert sum(len(node.claims) for node in nodes) == 1
    assert await ledger.types_of(database, session_id) == ["session_created", "turn_started"]
