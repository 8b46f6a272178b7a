"""The workshop floor: attempts that run now, each in a task of its own, and how they are stopped and handed over."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from app import sessions, telemetry
from app.agent.calls import Outcome
from app.db.engine import EVERY_REALM
from app.errors import AgentError, StoreUnavailable
from app.nodes import Node
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
    """Runs up to `max_live_turns` turns of this node; is its `Claimant`.

    Args:
        grace_seconds: how long turns may go on to a safe point once the node drains.
    """

    def __init__(self, bench: Bench, node: Node, *, grace_seconds: float) -> None:
        self.node_id = node.id
        self.lease_seconds = node.lease_seconds
        self.keeper = Keeper(bench.journal.database, node, lambda: self._held.values(), self._heed)
        self._bench = bench
        self._max_live_turns = node.max_live_turns
        self._grace_seconds = grace_seconds
        self._recovery = Recovery(bench.journal, self)
        self._held: dict[str, Held] = {}
        self._suspects: set[str] = set()
        self._has_suspects = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_closing = False
        self._is_told = False
        self._tasks: asyncio.TaskGroup | None = None
        bench.journal.watch(self._on_append)

    @property
    def is_draining(self) -> bool:
        """Whether this node takes no turns and lets its readers go: it stops, or an operator has told it to."""
        return self._is_closing or self._is_told

    def has_room(self) -> bool:
        """Tell whether one more turn may be claimed now."""
        return self._tasks is not None and not self.is_draining and len(self._held) < self._max_live_turns

    def take(self, claim: Claim) -> None:
        """Begin an attempt."""
        assert self._tasks is not None
        if self.is_draining:
            self._tasks.create_task(self._release([claim]))
            return
        task = self._tasks.create_task(self._run(claim))
        task.add_done_callback(lambda _: self._forget(claim))  # also of one that is stopped before it has begun
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
        """Drain for good: take no more turns, stop those that run at their next safe point, send readers elsewhere."""
        self._is_closing = True
        self._bench.journal.subscriptions.stop()
        self.keeper.announce_stop()

    async def drain(self) -> None:
        """Close, and give back the turns that run: at a safe point if they reach one in time, else where they are.

        Another node goes on with them at once; a step that was cut is asked again.
        """
        self.close()
        await self._give_back()

    def _heed(self, is_told: bool) -> None:
        """Drain until told otherwise, or work again."""
        if self._is_closing or self._is_told == is_told:
            return
        self._is_told = is_told
        if is_told:
            assert self._tasks is not None
            log.info("node_drains", node_id=self.node_id)
            self._bench.journal.subscriptions.stop()
            self._tasks.create_task(self._give_back())
        else:
            log.info("node_works_again", node_id=self.node_id)
            self._bench.journal.subscriptions.resume()
            self._recovery.nudge()

    async def _give_back(self) -> None:
        given_back = [held.claim for held in self._held.values()]
        try:
            async with asyncio.timeout(self._grace_seconds):
                await self._is_empty.wait()
        except TimeoutError:
            if not self.is_draining:
                return
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
                is_draining=lambda: self.is_draining,
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
            async with self._bench.journal.database.transaction(EVERY_REALM) as db:
                await claims.release(db, self.node_id, given_back)
        except StoreUnavailable:
            log.warning("handover_lost_database", turns=len(given_back))
        for claim in given_back:
            self._bench.journal.rouse(claim.session_id)

    def _on_append(self, session_id: str, fence: int | None) -> None:
        """Another hand has written to a session: if it took the fence, the attempt here is over."""
        held = self._held.get(session_id)
        if session_id == self.node_id:
            self.keeper.hasten()
        elif held is None:
            if fence is None:
                self._recovery.nudge()
        elif fence is None:
            self._suspects.add(session_id)
            self._has_suspects.set()
        elif fence > held.claim.fence:  # what is told late, of an older one, says nothing against this claim
            held.stop()

    async def _check_suspects(self) -> None:
        while True:
            await self._has_suspects.wait()
            self._has_suspects.clear()
            suspects, self._suspects = list(self._suspects), set()
            try:
                async with self._bench.journal.database.transaction(EVERY_REALM) as db:
                    fences = await sessions.fences(db, suspects)
            except StoreUnavailable:
                await asyncio.sleep(0.1)  # the lease and the fence hold meanwhile
                self._suspects.update(suspects)
                self._has_suspects.set()
                continue
            for session_id in suspects:
                held = self._held.get(session_id)
                if held is not None and (session_id not in fences or fences[session_id] > held.claim.fence):
                    held.stop()


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
