"""One attempt at one turn: asks the loop for the next thing, and makes it durable before it asks again.

Whatever happens, the turn is left in one of three states: ended by its terminal event, taken by another (`Fenced`), or with a
lease that someone will find.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import structlog

from app import sessions, telemetry
from app.agent import transcript
from app.agent.calls import Spawn
from app.agent.emissions import Discard, Emission, Record, Say, Tell
from app.agent.loop import Limits, Loop, Task
from app.agent.transcript import Call
from app.errors import AgentError, Fenced, StoreUnavailable
from app.journal import reader
from app.journal.entry import Entry
from app.journal.journal import Journal
from app.journal.types import StepDiscarded
from app.messages import Message
from app.providers.base import Provider
from app.tools.registry import NONE, Registry
from app.turns import endings
from app.turns.claims import Claim, Claimant

LONGEST_PAUSE_SECONDS = 2.0

log = structlog.get_logger()
_T = TypeVar("_T")


class HandedOver(Exception):
    """The attempt has reached a safe point while its node is shutting down."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every attempt of this process works with."""

    journal: Journal
    providers: Mapping[str, Provider]
    tools: Registry
    limits: Limits


class Attempt:
    """Carries out one claim.

    Args:
        spawn: starts a task that may outlive the attempt.
        is_draining: whether the node is shutting down, asked at each safe point.
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
        self._claimant = claimant
        self._spawn = spawn
        self._is_draining = is_draining
        self._recorder = bench.journal.recorder(
            session_id=claim.session_id, turn_id=claim.turn_id, fence=claim.fence, on_failure=stop
        )

    async def run(self) -> None:
        """Carry the turn to its end, or as far as this attempt may.

        Raises:
            HandedOver: the node is shutting down and the turn is at a safe point.
        """
        try:
            await self._carry_turn()
        except Fenced:
            log.info("attempt_fenced", attempt=self._claim.attempt)
        except AgentError as error:
            log.info("turn_failed", reason=error.reason)
            await self._fail(error)
        except HandedOver:
            raise
        except Exception:
            log.exception("attempt_crashed")
            await self._fail(AgentError("INTERNAL", "The server made a mistake; the turn cannot go on."))
        finally:
            self._recorder.close()

    async def _carry_turn(self) -> None:
        tools = NONE if self._claim.options.builtins is False else self._bench.tools.snapshot()
        task = await self._persist(self._prepare)
        async with aclosing(Loop(task, tools, self._bench.limits, self._spawn).run()) as emissions:
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
            case Discard(step, reason):
                await self._discard(step, reason)

    async def _record(self, record: Record) -> None:
        try:
            await self._recorder.write(record.events, record.messages, record.change)
        except Fenced:
            if record.change is None or record.change.ending is None:
                raise
            await self._finish(record)
        if record.messages and self._is_draining() and (record.change is None or record.change.ending is None):
            raise HandedOver

    async def _finish(self, record: Record) -> None:
        """End a turn that others queue behind: its end and the next one's beginning are one commit."""
        claim = self._claim
        events = [*self._recorder.unwritten, *record.events]
        entry = Entry(claim.session_id, claim.fence, claim.turn_id, events, record.messages, record.change)

        async def act() -> None:
            async with self._bench.journal.transaction() as tx:
                await endings.finish(tx, entry, self._claimant)

        await self._persist(act)

    async def _fail(self, error: AgentError) -> None:
        async def act() -> None:
            async with self._bench.journal.transaction() as tx:
                await endings.fail(tx, self._claim, error, self._claimant)

        try:
            await self._recorder.settle()
            await self._persist(act)
            telemetry.TURNS.labels("failed").inc()
        except Fenced:
            log.info("attempt_fenced", attempt=self._claim.attempt)

    async def _discard(self, step: int, reason: str) -> None:
        await self._recorder.settle()
        shown = await self._persist(self._current_step)
        self._recorder.put(StepDiscarded(step, reason, shown.from_seq if shown else 0))

    async def _prepare(self) -> Task:
        claim, options = self._claim, self._claim.options
        provider = self._bench.providers.get(options.provider)
        if provider is None:
            raise AgentError("PROVIDER_UNAVAILABLE", f"The provider {options.provider} is not configured on this node.")
        return Task(
            provider=provider,
            provider_name=options.provider,
            model=options.model,
            system=options.system_prompt,
            max_tokens=options.max_tokens,
            params=options.provider_params,
            history=claim.history or await self._history(),
            open_calls=await self._open_calls() if claim.attempt > 1 else (),
            steps=claim.steps,
            tool_calls=claim.tool_calls,
            usage=claim.usage,
            text=claim.text,
        )

    async def _history(self) -> Sequence[Message]:
        async with self._bench.journal.database.connection() as db:
            return await sessions.transcript(db, self._claim.session_id)

    async def _open_calls(self) -> list[Call]:
        state = await self._current_step()
        return state.open_calls if state else []

    async def _current_step(self) -> transcript.StepState | None:
        async with self._bench.journal.database.connection() as db:
            return transcript.fold(await reader.current_step(db, self._claim.session_id, self._claim.turn_id))

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
