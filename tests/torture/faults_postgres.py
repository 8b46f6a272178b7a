"""Faults of Postgres: ended in each way, a backend killed or frozen, connections ended, rows locked, a full disk."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from tests.torture.fleet import Fleet
from tests.torture.processes import Mark, NotOurs
from tests.torture.strikes import Act, Evidence

ENDED_SHARE = 0.5  # of connections, where not all are ended
LOCKED_SESSIONS = 20
SWITCHES = 100  # of WAL files, until a full disk has no room for the next
DEATH_SECONDS = 15.0
DATABASE_FAULTS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

OURS = "application_name LIKE 'suricate%' AND backend_type = 'client backend'"
A_BACKEND = f"SELECT pid FROM pg_stat_activity WHERE {OURS} ORDER BY random() LIMIT 1"
END_BACKENDS = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OURS} AND random() < $1"
LOCK_SESSIONS = f"SELECT id FROM sessions ORDER BY updated_at DESC LIMIT {LOCKED_SESSIONS} FOR UPDATE"
WAITING = f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND wait_event_type = 'Lock'"
TAKE_ROOM = "CREATE TABLE torture_room AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)"


def end(how: str) -> Act:
    """Make the fault that ends Postgres: `fast`, `immediate` or `kill`."""

    @asynccontextmanager
    async def act(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
        before = fleet.postgres.postmaster
        await fleet.postgres.end(how)
        evidence = Evidence(not before.is_own(), {"pid": before.pid})
        try:
            yield evidence
        finally:
            await fleet.revive_postgres()
            evidence.facts["next_pid"] = fleet.postgres.postmaster.pid

    return act


@asynccontextmanager
async def kill_backend(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Kill one backend as a crash does: Postgres ends all others and recovers."""
    backend = await _backend(fleet)
    backend.send(signal.SIGKILL)
    evidence = Evidence(facts={"pid": backend.pid})
    try:
        yield evidence
        evidence.has_bitten = backend.state in {"", "Z"}
    finally:
        await fleet.revive_postgres()


@asynccontextmanager
async def freeze_backend(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Freeze one backend, with all the locks that it holds."""
    backend = await _backend(fleet)
    backend.send(signal.SIGSTOP)
    evidence = Evidence(facts={"pid": backend.pid})
    try:
        yield evidence
        evidence.has_bitten = backend.state == "T"
    finally:
        backend.send(signal.SIGCONT)


@asynccontextmanager
async def end_backends(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """End connections: all, or about half of them."""
    ended = await fleet.ask(END_BACKENDS, ENDED_SHARE if chance < 0.5 else 1.0)
    yield Evidence(bool(ended), {"ended": ended})


@asynccontextmanager
async def lock_sessions(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Hold the rows of the sessions that were written to last in a long transaction."""
    async with fleet.connected() as connection, connection.transaction():
        locked = len(await connection.fetch(LOCK_SESSIONS))
        evidence = Evidence(facts={"locked": locked})
        yield evidence
        waiting = await fleet.ask(WAITING)
        evidence.facts["waiting"] = waiting
        evidence.has_bitten = bool(locked and waiting)


@asynccontextmanager
async def fill_disk(fleet: Fleet, target: str, chance: float) -> AsyncIterator[Evidence]:
    """Leave Postgres no room: first for data, then for its log, which ends it; then give the room back and start it."""
    evidence, deaths = Evidence(), len(fleet.postgres.deaths)
    try:
        await fleet.postgres.set_room("full")
        evidence.facts["refused"] = evidence.has_bitten = await _is_full(fleet)
        yield evidence
        await _use_up_log(fleet)
    finally:
        await fleet.postgres.set_room("roomy")
        await fleet.revive_postgres()
        evidence.facts["deaths"] = len(fleet.postgres.deaths) - deaths
        del fleet.postgres.deaths[deaths:]


async def _backend(fleet: Fleet) -> Mark:
    pid = await fleet.ask(A_BACKEND)
    if pid is None:
        raise NotOurs("nobody is connected")
    return Mark.of_child(pid, fleet.postgres.postmaster)


async def _is_full(fleet: Fleet) -> bool:
    """Tell whether Postgres refuses to store more."""
    try:
        async with fleet.connected() as connection, connection.transaction():
            await connection.execute(TAKE_ROOM)
            await connection.execute("DROP TABLE torture_room")
    except DATABASE_FAULTS:
        return True
    return False


async def _use_up_log(fleet: Fleet) -> None:
    with suppress(*DATABASE_FAULTS):
        for _ in range(SWITCHES):
            await fleet.ask("SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'torture', '')")
    await fleet.postgres.is_down_within(DEATH_SECONDS)
