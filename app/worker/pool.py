"""The workshop floor: attempts that run now, each in a task of its own, and how they are stopped and handed over."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from app import sessions, telemetry
from app.agent.calls import Outcome
from app.errors import AgentError, StoreUnavailable
from app.sessions import Session
from app.turns import claims
from app.turns.claims import Claim
from app.turns.turn import Turn
from app.worker.attempt import Attempt, HandedOver
from app.worker.brief import Bench
from app.worker.lease import Held, Keeper
from app.worker.recovery import Recovery

STOP_SECONDS = 0.5  # for attempts to let go of their connections

log = structlog.get_logger()


class Pool:
    """Runs up to `max_live_turns` turns of this node; is its `Claimant`."""

    def __init__(self, bench: Bench, node_id: str, *, lease_seconds: float, max_live_turns: int) -> None:
        self.node_id = node_id
        self.lease_seconds = lease_seconds
        self.keeper = Keeper(bench.journal.database, node_id, lease_seconds, lambda: self._held.values())
        self._bench = bench
        self._max_live_turns = max_live_turns
        self._recovery = Recovery(bench.journal, self)
        self._held: dict[str, Held] = {}
        self._suspects: set[str] = set()
        self._has_suspects = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_draining = False
        self._tasks: asyncio.TaskGroup | None = None
        bench.journal.watch(self._on_append)

    def has_room(self) -> bool:
        """Tell whether one more turn may be claimed now."""
        return self._tasks is not None and not self._is_draining and len(self._held) < self._max_live_turns

    def take(self, claim: Claim) -> None:
        """Begin an attempt."""
        assert self._tasks is not None
        if self._is_draining:
            self._tasks.create_task(self._release([claim]))
            return
        task = self._tasks.create_task(self._run(claim))
        self._held[claim.session_id] = Held(claim, claim.claimed_at, lambda: _cancel(task))
        self._is_empty.clear()
        telemetry.LIVE_TURNS.set(len(self._held))

    def gave_up(self, session: Session, live: Turn, error: AgentError) -> None:
        """Let hooks know of a turn that was ended without an attempt."""
        telemetry.TURNS.labels("failed").inc()
        with suppress(AgentError):  # the session's own hooks do not fit this server's
            self._bench.points(session.id, live.id, session.options).tell_failed(error)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.keeper.run())
            tasks.create_task(self._recovery.run())
            tasks.create_task(self._check_suspects())

    def close(self) -> None:
        """Take no more turns; those that run stop at their next safe point."""
        self._is_draining = True

    async def drain(self, grace_seconds: float) -> None:
        """Take no more turns, and give back those that run: at a safe point if they reach one in time, else where they are.

        Another node goes on with them at once; a step that was cut is asked again.
        """
        self.close()
        given_back = [held.claim for held in self._held.values()]
        try:
            async with asyncio.timeout(grace_seconds):
                await self._is_empty.wait()
        except TimeoutError:
            for held in list(self._held.values()):
                held.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._is_empty.wait()
        await self._release(given_back)

    async def _run(self, claim: Claim) -> None:
        bound = {"session_id": claim.session_id, "turn_id": claim.turn_id, "node_id": self.node_id}
        with structlog.contextvars.bound_contextvars(**bound):
            attempt = Attempt(
                self._bench,
                claim,
                self,
                spawn=self._spawn,
                is_draining=lambda: self._is_draining,
                stop=lambda: self._stop(claim),
            )
            try:
                await attempt.run()
            except HandedOver:
                log.info("turn_handed_over", attempt=claim.attempt)
                await self._release([claim])
            except StoreUnavailable as error:
                log.warning("attempt_lost_database", error=str(error.__cause__))
            except Exception:
                log.exception("attempt_crashed")  # its lease runs out and the next attempt goes on; the other turns live
            finally:
                self._forget(claim)

    def _spawn(self, work: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        assert self._tasks is not None
        return self._tasks.create_task(work)

    def _stop(self, claim: Claim) -> None:
        held = self._held.get(claim.session_id)
        if held is not None and held.claim is claim:
            held.stop()

    def _forget(self, claim: Claim) -> None:
        held = self._held.get(claim.session_id)
        was_full = len(self._held) >= self._max_live_turns
        if held is not None and held.claim is claim:
            del self._held[claim.session_id]
        if not self._held:
            self._is_empty.set()
        telemetry.LIVE_TURNS.set(len(self._held))
        if was_full:
            self._recovery.nudge()

    async def _release(self, given_back: list[Claim]) -> None:
        try:
            async with self._bench.journal.database.connection() as db:
                await claims.release(db, self.node_id, given_back)
        except StoreUnavailable:
            log.warning("handover_lost_database", turns=len(given_back))

    def _on_append(self, session_id: str, fence: int | None) -> None:
        """Another hand has written to a session: if it took the fence, the attempt here is over."""
        held = self._held.get(session_id)
        if held is None:
            if fence is None:
                self._recovery.nudge()
        elif fence is None:
            self._suspects.add(session_id)
            self._has_suspects.set()
        elif fence != held.claim.fence:
            held.stop()

    async def _check_suspects(self) -> None:
        while True:
            await self._has_suspects.wait()
            self._has_suspects.clear()
            suspects, self._suspects = list(self._suspects), set()
            try:
                async with self._bench.journal.database.connection() as db:
                    fences = await sessions.fences(db, suspects)
            except StoreUnavailable:
                await asyncio.sleep(0.1)  # the lease and the fence hold meanwhile
                self._suspects.update(suspects)
                self._has_suspects.set()
                continue
            for session_id in suspects:
                held = self._held.get(session_id)
                if held is not None and fences.get(session_id) != held.claim.fence:
                    held.stop()


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
