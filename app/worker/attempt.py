"""One attempt at one turn: asks the loop for the next thing, and makes it durable before it asks again.

Whatever happens, the turn is left in one of three states: ended by its terminal event, taken by another (`Fenced`), or with a
lease that someone will find.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import structlog

from app import sessions, telemetry
from app.agent.calls import Spawn
from app.agent.compaction import Compacted
from app.agent.emissions import Await, Discard, Emission, Pend, Record, Say, SumUp, Tell, Wish
from app.agent.loop import Loop
from app.agent.points import NO_POINTS
from app.agent.transcript import Call
from app.errors import AgentError, Fenced, StoreUnavailable
from app.journal.entry import Entry
from app.journal.journal import Transaction
from app.journal.types import StepDiscarded
from app.sessions import Session
from app.traces import NO_SPAN, Attributes, of_model
from app.turns import boundary, compacting, endings, waiting
from app.turns.boundary import Crossing
from app.turns.claims import Claim, Claimant
from app.turns.waiting import Wanted
from app.worker.brief import Bench, Brief

LONGEST_PAUSE_SECONDS = 2.0

log = structlog.get_logger()
_T = TypeVar("_T")
Outcome: TypeAlias = Literal["completed", "failed", "fenced", "stopped", "handed_over"]


class Stopped(Exception):
    """The turn needs this attempt no more: it has ended, or waits for its caller."""


class HandedOver(Exception):
    """The attempt has reached a safe point while its node drains."""


class Attempt:
    """Carries out one claim.

    Args:
        spawn: starts a task that may outlive the attempt.
        is_draining: whether the node drains, asked at each safe point.
        stop: ends this attempt at once; called when the log has refused it.
    """

    def __init__(
        self,
        bench: Bench,
        claim: Claim,
        claimant: Claimant,
        *,
        spawn: Spawn,
        is_draining: Callable[[], bool],
        stop: Callable[[], None],
    ) -> None:
        self._bench = bench
        self._claim = claim
        self._brief = Brief(bench, claim)
        self._claimant = claimant
        self._spawn = spawn
        self._is_draining = is_draining
        self._loop: Loop | None = None
        self._points = NO_POINTS
        self._span = NO_SPAN
        self._recorder = bench.journal.recorder(
            session_id=claim.session_id, turn_id=claim.turn_id, fence=claim.fence, on_failure=stop
        )

    async def run(self) -> None:
        """Carry the turn to its end, or as far as this attempt may.

        Raises:
            HandedOver: the node drains and the turn is at a safe point.
        """
        with self._bench.tracer.attempt(self._known()) as self._span:
            try:
                outcome = await self._outcome()
            finally:
                self._recorder.close()
            self._span.tell({"suricate.outcome": outcome})
        if outcome == "handed_over":
            raise HandedOver

    async def _outcome(self) -> Outcome:
        """Carry the turn out, and say what came of it."""
        try:
            await self._carry_turn()
        except Fenced:
            log.info("attempt_fenced", attempt=self._claim.attempt)
            return "fenced"
        except AgentError as error:
            log.info("turn_failed", reason=error.reason)
            await self._fail(error)
            return "failed"
        except Stopped:
            log.info("attempt_stopped", attempt=self._claim.attempt)
            return "stopped"
        except HandedOver:
            return "handed_over"
        except Exception:
            log.exception("attempt_crashed")
            await self._fail(AgentError("INTERNAL", "The server made a mistake; the turn cannot go on."))
            return "failed"
        return "completed"

    def _known(self) -> Attributes:
        """What the attempt's span tells from the first."""
        claim = self._claim
        return {
            **of_model("invoke_agent", claim.options.provider, claim.options.model),
            "gen_ai.conversation.id": claim.session_id,
            "suricate.turn.id": claim.turn_id,
            "suricate.attempt": claim.attempt,
            "suricate.node.id": self._claimant.node_id,
        }

    async def _carry_turn(self) -> None:
        claim = self._claim
        self._points = self._bench.points(claim.session_id, claim.turn_id, claim.options)
        task = replace(
            await self._persist(self._brief.task),
            may_compact=partial(self._persist, self._brief.may_compact),
            span=self._span,
        )
        self._loop = Loop(task, self._brief.tools(), self._bench.limits, self._spawn, self._points)
        async with aclosing(self._loop.run()) as emissions:
            async for emission in emissions:
                await self._carry_out(emission)
        telemetry.TURNS.labels("completed").inc()

    async def _carry_out(self, emission: Emission) -> None:
        match emission:
            case Say(event, text):
                self._recorder.put_delta(event, text)
                if self._recorder.is_full:
                    await self._recorder.settle()
            case Tell(events):
                self._recorder.put(*events)
            case Record():
                await self._record(emission)
            case Pend() | Await() | SumUp():
                await self._turn_outward(emission)
            case Discard(step, reason):
                await self._discard(step, reason)

    async def _turn_outward(self, emission: Pend | Await | SumUp) -> None:
        """Carry out what takes the session's lock."""
        match emission:
            case Pend(wishes):
                await self._pend(wishes)
            case Await(calls):
                await self._await(calls)
            case SumUp(compacted):
                await self._sum_up(compacted)

    async def _record(self, record: Record) -> None:
        try:
            await self._recorder.write(record.events, record.messages, record.change, is_boundary=record.is_boundary)
        except Fenced:
            if not record.is_boundary:
                raise
            await self._cross(record)
        if record.messages and self._is_draining() and not record.ends:
            raise HandedOver

    async def _cross(self, record: Record) -> None:
        """Close a step that something waits for: queued turns behind an end, or words and a stop for the live one."""
        claim = self._claim
        events = [*self._recorder.unwritten, *record.events]
        entry = Entry(claim.session_id, claim.fence, claim.turn_id, events, record.messages, record.change)

        async def act(tx: Transaction, session: Session, number: int) -> Crossing:
            return await boundary.cross(tx, session, replace(entry, number=number), self._claimant)

        crossing = await self._claimed(act)
        record.steered.extend(crossing.steered)
        if crossing.is_over and not record.ends:
            raise Stopped

    async def _pend(self, wishes: Sequence[Wish]) -> None:
        limit = self._bench.limits.answer_timeout_seconds
        wanted = [Wanted(wish.call.id, wish.call.name, wish.call.args, wish.kind, wish.seconds or limit) for wish in wishes]

        async def act(tx: Transaction, session: Session, number: int) -> None:
            await waiting.pend(tx, session, self._claim.turn_id, wanted, number=number)

        await self._claimed(act)
        for wish in wishes:
            wish.call.pending = wish.kind

    async def _sum_up(self, compacted: Compacted) -> None:
        async def act(tx: Transaction, session: Session, number: int) -> None:
            await compacting.keep(tx, session, self._claim.turn_id, compacted, number=number)

        await self._claimed(act)

    async def _await(self, calls: Sequence[Call]) -> None:
        """Let the turn wait without this attempt; where all was answered meanwhile, take the answers and go on."""
        assert self._loop is not None
        spent = self._loop.unrecorded()

        async def act(tx: Transaction, session: Session, number: int) -> bool:
            return await waiting.park(tx, session, self._claim.turn_id, spent, number=number)

        if await self._claimed(act):
            raise Stopped
        answered = {call.id: call for call in await self._brief.open_calls(await self._brief.current_step())}
        for call in calls:
            call.result, call.is_allowed = answered[call.id].result, answered[call.id].is_allowed

    async def _claimed(self, act: Callable[[Transaction, Session, int], Awaitable[_T]]) -> _T:
        """Do something under the session's lock, behind all that was put; once, however often the database goes away.

        Where a commit that seemed lost is found to be kept, the turn is given back: whoever takes it reads on from the log.

        Args:
            act: given the number that its entry bears.
        """
        await self._recorder.settle()
        number = self._recorder.take_number()

        async def do() -> _T:
            async with self._bench.journal.transaction(self._claim.realm) as tx:
                session = await endings.claimed(tx, self._claim.session_id, self._claim.fence)
                if await sessions.append_number(tx, session.id) == number:
                    raise HandedOver
                return await act(tx, session, number)

        return await self._persist(do)

    async def _fail(self, error: AgentError) -> None:
        self._span.fail(error.reason)
        spent = self._loop.unrecorded() if self._loop is not None else None

        async def act() -> None:
            async with self._bench.journal.transaction(self._claim.realm) as tx:
                await endings.fail(tx, self._claim, error, self._claimant, spent)

        try:
            await self._recorder.settle()
            self._recorder.put(*await self._points.failed(error))
            await self._recorder.settle()
            await self._persist(act)
            telemetry.TURNS.labels("failed").inc()
        except Fenced:
            log.info("attempt_fenced", attempt=self._claim.attempt)

    async def _discard(self, step: int, reason: str) -> None:
        await self._recorder.settle()
        shown = await self._persist(self._brief.current_step)
        self._recorder.put(StepDiscarded(step, reason, shown.from_seq if shown else 0))

    async def _persist(self, act: Callable[[], Awaitable[_T]]) -> _T:
        """Do something with the database, again and again while it is away; the lease decides how long.

        An act whose commit is unknown may be done twice: the second finds its fence stale and does nothing.
        """
        pause = 0.05
        while True:
            try:
                return await act()
            except StoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
