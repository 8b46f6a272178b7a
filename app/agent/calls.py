"""The tool calls of one step: run side by side, each told as it ends, answered together in request order."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from app import clock
from app.agent.emissions import Await, Emission, Pend, Record, Tell, Wish
from app.agent.points import NO_POINTS, Points
from app.agent.transcript import UNKNOWN_OUTCOME, Call
from app.errors import AgentError, InvalidRequest
from app.journal.event import Event
from app.journal.types import ToolExecutionCompleted, ToolExecutionStarted, ToolExecutionTimedOut
from app.messages import ToolResult
from app.tools.base import Tool, ToolError, calling
from app.tools.external import External
from app.tools.registry import Registry
from app.traces import NO_SPAN, Span

MOST_AT_ONCE = 8
MOST_RESULT_BYTES = 256 * 1024
WITHHELD = "The result was withheld, and the turn ended."
DEAF_SECONDS = 1.0  # how long a tool may take to stop when its time is over; then it is left behind

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, "Outcome"]], "asyncio.Task[Outcome]"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one execution ended."""

    content: str
    is_error: bool
    duration_ms: int
    is_timeout: bool = False


@dataclass(frozen=True, slots=True)
class _Execution:
    """A call that runs, since when."""

    call: Call
    began: float

    def outcome(self, task: "asyncio.Task[Outcome]", timeout_seconds: float) -> Outcome:
        """Say how it ended; a task that is not done yet has had its time and does not stop."""
        duration_ms = round((clock.monotonic() - self.began) * 1000)
        if not task.done():
            return Outcome(_too_long(timeout_seconds), is_error=True, duration_ms=duration_ms, is_timeout=True)
        if task.cancelled():  # by the tool itself
            return Outcome("The tool failed: CancelledError.", is_error=True, duration_ms=duration_ms)
        return task.result()


class Calls:
    """Carries out the open calls of one step; afterwards each has its result.

    Args:
        spawn: starts a task that outlives this generator if it must: a tool that will not stop is left behind.
        timeout_seconds: longest run of one call.
        approvals: names of tools whose calls wait for leave.
        points: asks the session's hooks before a call runs or waits, and once it has its result.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        tools: Registry,
        spawn: Spawn,
        *,
        timeout_seconds: float,
        approvals: Collection[str] = (),
        points: Points = NO_POINTS,
    ) -> None:
        self._calls = calls
        self._tools = tools
        self._spawn = spawn
        self._timeout_seconds = timeout_seconds
        self._approvals = approvals
        self._points = points
        self._asking = asyncio.Semaphore(MOST_AT_ONCE)
        self._denial: AgentError | None = None
        self._running: dict[asyncio.Task[Outcome], _Execution] = {}
        self._span = NO_SPAN

    async def run(self, span: Span = NO_SPAN) -> AsyncGenerator[Emission, None]:
        """Run what can be run, and yield what happens.

        Args:
            span: what the executions are parts of.
        """
        self._span = span
        refusals = await asyncio.gather(*map(self._asked, self._calls))
        self.check()
        for call, refusal in zip(self._calls, refusals, strict=True):
            if refusal is not None:
                yield Tell([self._conclude(call, Outcome(refusal, is_error=True, duration_ms=0))])
        while unanswered := [call for call in self._calls if call.result is None]:
            wishes = [wish for call in unanswered if (wish := self._wish(call)) is not None]
            new = [wish for wish in wishes if wish.call.pending != wish.kind]
            if new:
                yield Pend(new)
            outside = {wish.call.id for wish in wishes}
            runnable = [(call, self._tool(call)) for call in unanswered if call.id not in outside]
            async with aclosing(self._run(runnable)) as emissions:
                async for emission in emissions:
                    yield emission
            if wishes:
                yield Await(self._calls)
        await self._review_answers()

    def check(self) -> None:
        """Refuse to go on where a hook has ended the turn.

        Raises:
            AgentError: it has.
        """
        if self._denial is not None:
            raise self._denial

    async def _run(self, waiting: Sequence[tuple[Call, Tool]]) -> AsyncGenerator[Emission, None]:
        try:
            while waiting or self._running:
                free = MOST_AT_ONCE - len(self._running)
                starting, waiting = waiting[:free], waiting[free:]
                if starting:
                    yield Record([ToolExecutionStarted(call.id, call.name) for call, _ in starting])
                    self._start(starting)
                for events in await self._ended():
                    yield Tell(events)
                self.check()
        finally:
            for task in self._running:
                task.cancel()

    def _wish(self, call: Call) -> Wish | None:
        """Say what a call waits for outside; None where it can be run here."""
        tool = self._tool(call)
        if call.name in self._approvals and not call.is_allowed:
            return Wish(call, "approval", None)
        if isinstance(tool, External):
            return Wish(call, "external", tool.timeout_seconds)
        return None

    def _tool(self, call: Call) -> Tool:
        tool = self._tools.find(call.name)
        assert tool is not None
        return tool

    def _refusal(self, call: Call) -> str | None:
        """Say why a call is not run at all; None where it is, or has been."""
        if call.result is not None:
            return None
        tool = self._tools.find(call.name)
        if tool is None:
            known = ", ".join(self._tools.names()) or "none"
            return f"There is no tool {call.name!r}. The tools are: {known}."
        if call.is_started and not tool.is_idempotent:
            return UNKNOWN_OUTCOME
        if not isinstance(call.args, dict):
            return "The arguments are not a JSON object. Send the call again with valid JSON."
        fault = self._tools.fault(tool, call.args)
        return fault and f"The arguments do not match the tool's schema: {fault}."

    async def _asked(self, call: Call) -> str | None:
        """Say why a call is not run; hooks are asked about those that could be, and may change their arguments."""
        refusal = self._refusal(call)
        if refusal is not None or call.result is not None or call.pending is not None:
            return refusal
        tool = self._tool(call)

        def check(payload: Mapping[str, Any]) -> None:
            fault = self._tools.fault(tool, payload["args"])
            if fault is not None:
                raise InvalidRequest(fault)

        try:
            async with self._asking:
                return await self._points.call(call, check)
        except AgentError as error:
            self._denial = self._denial or error
            return None

    async def _review_answers(self) -> None:
        """Ask about the results that callers gave; they are on record as they came, so that only the model reads others."""

        async def review(call: Call, given: ToolResult) -> None:
            call.result = await self._reviewed(call, given)

        await asyncio.gather(
            *(
                review(call, call.result)
                for call in self._calls
                if call.result is not None and call.pending and isinstance(self._tools.find(call.name), External)
            )
        )

    async def _reviewed(self, call: Call, result: ToolResult) -> ToolResult:
        """Ask about a result; where that ends the turn, it is withheld."""
        try:
            async with self._asking:
                content = await self._points.result(call, result)
        except AgentError as error:
            self._denial = self._denial or error
            return replace(result, content=WITHHELD, is_error=True)
        return result if content == result.content else replace(result, content=_capped(content))

    def _start(self, starting: Sequence[tuple[Call, Tool]]) -> None:
        for call, tool in starting:
            task = self._spawn(_execute(tool, call, self._timeout_seconds, self._span))
            self._running[task] = _Execution(call, clock.monotonic())

    async def _ended(self) -> list[list[Event]]:
        """Wait for the next executions to end, and conclude them; those that are deaf to their limit are left behind."""
        longest = self._timeout_seconds + DEAF_SECONDS
        oldest = min(execution.began for execution in self._running.values())
        left = max(oldest + longest - clock.monotonic(), 0.0)
        done, others = await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        given_up = [task for task in others if clock.monotonic() - self._running[task].began >= longest]
        return await asyncio.gather(*map(self._end, [*done, *given_up]))

    async def _end(self, task: "asyncio.Task[Outcome]") -> list[Event]:
        execution = self._running.pop(task)
        call, outcome = execution.call, execution.outcome(task, self._timeout_seconds)
        result = await self._reviewed(call, ToolResult(call.id, outcome.content, outcome.is_error))
        events = [self._conclude(call, replace(outcome, content=result.content, is_error=result.is_error))]
        if outcome.is_timeout:
            events.insert(0, ToolExecutionTimedOut(call.id, call.name, round(self._timeout_seconds * 1000)))
        return events

    def _conclude(self, call: Call, outcome: Outcome) -> Event:
        call.result = ToolResult(call.id, outcome.content, outcome.is_error)
        return ToolExecutionCompleted(call.id, call.name, outcome.content, outcome.is_error, outcome.duration_ms)


async def _execute(tool: Tool, call: Call, timeout_seconds: float, span: Span) -> Outcome:
    known = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": call.name,
        "gen_ai.tool.call.id": call.id,
        "gen_ai.tool.type": "function",
    }
    with span.child(f"execute_tool {call.name}", known) as part:
        outcome = await _outcome(tool, call, timeout_seconds)
        if outcome.is_error:
            part.fail("timeout" if outcome.is_timeout else "tool_error")
        return outcome


async def _outcome(tool: Tool, call: Call, timeout_seconds: float) -> Outcome:
    began = clock.monotonic()

    def outcome(content: str, *, is_error: bool, is_timeout: bool = False) -> Outcome:
        return Outcome(_capped(content), is_error, round((clock.monotonic() - began) * 1000), is_timeout)

    limit = asyncio.timeout(timeout_seconds)
    try:
        with calling(call.id):
            async with limit:
                return outcome(await tool.run(call.args), is_error=False)
    except ToolError as error:
        return outcome(str(error), is_error=True)
    except TimeoutError as error:
        if not limit.expired():
            return outcome(f"The tool failed: {type(error).__name__}.", is_error=True)
        return outcome(_too_long(timeout_seconds), is_error=True, is_timeout=True)
    except Exception as error:  # noqa: BLE001 - whatever a tool does, its call gets one result and the turn goes on
        return outcome(f"The tool failed: {type(error).__name__}.", is_error=True)


def _too_long(seconds: float) -> str:
    return f"The tool took longer than {seconds:g} s."


def _capped(content: str) -> str:
    """Make a result fit to be stored and sent: no lone surrogates, at most 256 KiB, said so where it was cut."""
    data = content.encode("utf-8", "replace")
    if len(data) <= MOST_RESULT_BYTES:
        return data.decode()
    return data[:MOST_RESULT_BYTES].decode(errors="ignore") + f"\n[cut: {len(data)} bytes in all]"
