"""The loop: one attempt at a turn, as an async generator of what is to be made durable.

It asks the model, runs the tools that it asks for, and asks again, until an answer needs no tool. It knows no SQL and no HTTP;
what it yields is durable before it goes on, so that a tool runs only after its request is on record.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from app import clock
from app.agent import compaction, transcript
from app.agent.answers import Wanted
from app.agent.budget import Budget
from app.agent.calls import Calls, Spawn
from app.agent.compaction import Cut, Memory, Summary, Unsummed
from app.agent.emissions import Emission, Record, SumUp, Tell
from app.agent.points import NO_POINTS, Points
from app.agent.step import Ask, RetryPolicy, Step
from app.agent.transcript import Call
from app.errors import AgentError, ProviderError
from app.journal.asides import CompactionFailed, CompactionStarted
from app.journal.entry import Ending, Model, TurnChange
from app.journal.event import Event
from app.journal.types import (
    ReasoningComplete,
    StepCompleted,
    TextComplete,
    ToolCallRequested,
    TurnCompleted,
    TurnUsage,
)
from app.messages import NO_USAGE, Message, Usage
from app.providers.base import Finish, ModelRequest, Provider
from app.tools.registry import Registry
from app.traces import NO_SPAN, Span, of_model, of_usage


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model to ask where the one before it has failed in all tries."""

    provider: Provider
    provider_name: str
    model: str
    params: Mapping[str, Any] = field(default_factory=dict)


async def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Task:
    """What an attempt has to do.

    Args:
        system: the system prompt, or None.
        history: the transcript so far, this turn's user message included; valid but for `open_calls`.
        open_calls: calls of the last assistant message that an earlier attempt left without results.
        steps, tool_calls, usage, text: of the turn's earlier attempts.
        approvals: names of tools whose calls wait for leave.
        output_schema: JSON Schema of the answer; None is free text.
        schema_retries: further tries at an answer that breaks it.
        context_tokens: most that the model reads.
        may_compact: whether a transcript that comes near it may be summed up; asked only where one does.
        fallbacks: asked in this order within one step; the next step begins with `model` again.
        is_new: whether no earlier attempt has begun a step.
        span: the attempt's.
    """

    provider: Provider
    provider_name: str
    model: str
    system: str | None
    max_tokens: int | None
    params: Mapping[str, Any]
    history: Sequence[Message]
    open_calls: Sequence[Call] = ()
    steps: int = 0
    tool_calls: int = 0
    usage: Usage = NO_USAGE
    text: str = ""
    approvals: Collection[str] = ()
    budget: Budget = field(default_factory=Budget)
    output_schema: Mapping[str, Any] | None = None
    schema_retries: int = 0
    context_tokens: int = 128_000
    may_compact: Callable[[], Awaitable[bool]] = _always
    fallbacks: Sequence[Fallback] = ()
    is_new: bool = True
    span: Span = NO_SPAN


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an attempt.

    Args:
        answer_timeout_seconds: how long a call waits for its caller's result or leave, where nothing else is said.
        turn_timeout_seconds: longest running time of a turn, without its waiting.
        turn_output_tokens: most output tokens of a turn.
    """

    step_limit: int
    tool_timeout_seconds: float
    retries: RetryPolicy
    answer_timeout_seconds: float = 3600.0
    turn_timeout_seconds: float = 3600.0
    turn_output_tokens: int = 1_000_000
    unknown_context_tokens: int = 128_000


class Loop:
    """One attempt at one turn."""

    def __init__(self, task: Task, tools: Registry, limits: Limits, spawn: Spawn, points: Points = NO_POINTS) -> None:
        self._task = task
        self._tools = tools
        self._limits = limits
        self._spawn = spawn
        self._points = points
        self._history = list(task.history)
        self._steps, self._tool_calls, self._usage, self._text = task.steps, task.tool_calls, task.usage, task.text
        self._wanted = Wanted(task.provider, task.output_schema, task.schema_retries)
        self._recorded_at = clock.monotonic()
        self._entered: int | None = None  # steps that were over when hooks were last asked whether another may follow
        self._max_tokens = task.max_tokens
        self._step: Step | None = None
        self._refusal: AgentError | None = None
        self._memory = Memory(task.provider, task.model, task.context_tokens)

    def unrecorded(self) -> TurnChange:
        """Return what there is to count that no entry of the loop's has counted, the time since the last one with it."""
        change = self._step.tally.unrecorded if self._step is not None else TurnChange()
        return replace(change, running_ms=self._lap())

    async def run(self) -> AsyncGenerator[Emission, None]:
        """Carry the turn to its end; the last emission ends it `completed`.

        Raises:
            AgentError: the turn cannot go on; how it ends is the caller's to write.
        """
        async with aclosing(self._points.telling(self._carry_on())) as emissions:
            async for emission in emissions:
                yield emission

    async def _carry_on(self) -> AsyncGenerator[Emission, None]:
        open_calls = self._task.open_calls
        while True:
            if open_calls:
                calls = self._calls(open_calls)
                async with aclosing(calls.run(self._task.span)) as emissions:
                    async for emission in emissions:
                        yield emission
                told, message = transcript.results(open_calls)
                answered = Record(told, [message], TurnChange(running_ms=self._lap()), is_boundary=True)
                yield answered
                calls.check()
                self._history += [message, *answered.steered]
            async with aclosing(self._ask()) as emissions:
                async for emission in emissions:
                    yield emission
            assert self._step is not None
            step = self._step
            record, open_calls = await self._conclude(step)
            self._step = None
            yield record
            if self._refusal is not None:
                raise self._refusal
            self._history += [*record.messages, *record.steered]
            if record.ends and not record.steered:
                return
            self._wanted.check()

    async def _ask(self) -> AsyncGenerator[Emission, None]:
        """Take one step, summing up what the model reads before it where that is due, or once where it is too long."""
        if self._memory.is_due(self._history) and await self._task.may_compact():
            async with aclosing(self._sum_up()) as emissions:
                async for emission in emissions:
                    yield emission
        for is_last in (False, True):
            async with aclosing(self._take_step(is_last=is_last)) as emissions:
                async for emission in emissions:
                    yield emission
            if self._step is not None:
                return

    async def _take_step(self, *, is_last: bool) -> AsyncGenerator[Emission, None]:
        """Ask the model; where it says that there is too much to read, sum up, and leave no step."""
        self._step = step = await self._next_step()
        try:
            said = self._points.answer(step, self._limits.retries, self._fallbacks(), self._task.span)
            async with aclosing(said) as emissions:
                async for emission in emissions:
                    if isinstance(emission, Record) and emission.change is not None:
                        self._usage += emission.change.usage
                    yield emission
        except ProviderError as error:
            if is_last or error.reason != "CONTEXT_OVERFLOW" or compaction.cut(self._history) is None:
                raise
            if not await self._task.may_compact():
                raise
            self._step = None
            async with aclosing(self._sum_up()) as emissions:
                async for emission in emissions:
                    yield emission

    async def _sum_up(self) -> AsyncGenerator[Emission, None]:
        """Have a summary stand in for older messages; where there is nothing to sum up, nothing happens."""
        parts, before = compaction.cut(self._history), len(self._history)
        if parts is None:
            return
        model = Model(self._task.provider_name, self._task.model)
        self._task.budget.check()
        yield Tell([CompactionStarted(compaction.tokens_of(self._history), before)])
        try:
            summary = await self._summary(parts)
        except Unsummed as error:
            self._usage += error.usage
            yield Record([CompactionFailed(error.detail, error.usage)], change=TurnChange.of(error.usage, model))
            raise
        self._history = [summary.message, *parts.kept]
        self._memory.take(self._history)
        self._usage += summary.usage
        warnings = self._task.budget.spend(tokens=summary.usage.total_tokens, output=summary.usage.output_tokens)
        yield SumUp(compaction.Compacted.of(parts, summary, model))
        yield Tell(warnings)

    async def _summary(self, parts: Cut) -> Summary:
        task = self._task
        known = of_model("chat", task.provider_name, task.model)
        with task.span.child(f"chat {task.model}", {**known, "suricate.step": 0}, "client") as span:
            summary = await self._memory.sum_up(parts)
            span.tell(of_usage(summary.usage))
            return summary

    def _calls(self, open_calls: Sequence[Call]) -> Calls:
        limits = self._limits
        return Calls(
            open_calls,
            self._tools,
            self._spawn,
            timeout_seconds=limits.tool_timeout_seconds,
            approvals=self._task.approvals,
            points=self._points,
        )

    async def _next_step(self) -> Step:
        if self._steps >= self._limits.step_limit:
            raise AgentError("STEP_LIMIT", f"The turn took {self._limits.step_limit} steps without coming to an end.")
        task = self._task
        if self._entered != self._steps:
            await self._points.enter(self._steps, self._history, is_new=task.is_new)
            self._entered = self._steps
        self._max_tokens = task.max_tokens
        asked = self._request(task.provider, task.model, task.params)
        request = await self._points.request(asked, task.provider, self._steps + 1)
        self._max_tokens = request.max_tokens
        taken_ids = [use.id for message in self._history for use in message.tool_uses]
        return Step(task.provider, task.provider_name, request, number=self._steps + 1, taken_ids=taken_ids, budget=task.budget)

    def _fallbacks(self) -> Iterator[Ask]:
        """Yield what the others are asked; each request is made when its model's turn has come."""
        for other in self._task.fallbacks:
            yield Ask(other.provider, other.provider_name, self._request(other.provider, other.model, other.params))

    def _request(self, provider: Provider, model: str, params: Mapping[str, Any]) -> ModelRequest:
        self._wanted.ask(provider)
        return ModelRequest(
            model=model,
            system=self._wanted.system(self._task.system),
            messages=self._history,
            tools=self._tools.specs(),
            max_tokens=self._max_tokens,
            params=params,
            output_schema=self._wanted.native,
        )

    async def _conclude(self, step: Step) -> tuple[Record, list[Call]]:
        """Put a whole answer on record; without tool calls it is the turn's last, unless it breaks the schema."""
        message, finish = step.message, step.finish
        calls = [Call(use.id, use.name, use.args) for use in message.tool_uses] if message else []
        events = _completion(step, calls)
        self._refusal = self._task.budget.refusal(len(calls))
        made = 0 if self._refusal else len(calls)
        self._steps += 1
        self._tool_calls += made
        counted = step.tally.unrecorded
        self._usage += counted.usage
        self._text = step.text or self._text
        events += self._task.budget.spend(tokens=step.tally.spent, output=step.tally.output, tool_calls=made)
        messages, ending, value = [message] if message else [], None, None
        if not calls:
            correction = await self._wanted.take(step.text)
            if correction is not None:
                messages.append(correction)
            elif not self._wanted.is_failed:
                self._text = await self._points.complete(self._text, step=self._steps, tool_calls=self._tool_calls)
                ending, value = _ending(finish), self._wanted.value
                usage = TurnUsage.of(self._usage)
                events.append(TurnCompleted(self._text, usage, self._steps, self._tool_calls, value))
        change = TurnChange(
            1,
            made,
            counted.usage,
            self._text or None,
            step.text or None,
            ending,
            spent_tokens=counted.spent_tokens,
            running_ms=self._lap(),
            structured_output=None if value is None else orjson.dumps(value).decode(),
            schema_warnings=self._wanted.warnings,
            calls=counted.calls,
            model=counted.model,
        )
        return Record(events, messages, change, is_boundary=ending is not None), calls

    def _lap(self) -> int:
        """Return the milliseconds since the last entry that counted them."""
        began, self._recorded_at = self._recorded_at, clock.monotonic()
        return round((self._recorded_at - began) * 1000)


def _ending(finish: Finish) -> Ending:
    return Ending("completed", "end_turn" if finish.stop_reason == "tool_use" else finish.stop_reason)


def _completion(step: Step, calls: Sequence[Call]) -> list[Event]:
    events: list[Event] = []
    if step.reasoning:
        events.append(ReasoningComplete(step.number, step.reasoning))
    if step.streamed_text:
        events.append(TextComplete(step.number, step.streamed_text))
    events.extend(ToolCallRequested(step.number, call.id, call.name, call.args) for call in calls)
    events.append(StepCompleted(step.number, step.finish.stop_reason, step.finish.usage))
    return events
