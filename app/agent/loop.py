"""The loop: one attempt at a turn, as an async generator of what is to be made durable.

It asks the model, runs the tools that it asks for, and asks again, until an answer needs no tool. It knows no SQL and no HTTP;
what it yields is durable before it goes on, so that a tool runs only after its request is on record.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from app.agent.calls import Calls, Spawn
from app.agent.emissions import Emission, Record
from app.agent.step import RetryPolicy, Step
from app.agent.transcript import Call
from app.errors import AgentError
from app.journal.entry import Ending, TurnChange
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
from app.providers.base import ModelRequest, Provider
from app.tools.registry import Registry


@dataclass(frozen=True, slots=True)
class Task:
    """What an attempt has to do.

    Args:
        system: the system prompt, or None.
        history: the transcript so far, this turn's user message included; valid but for `open_calls`.
        open_calls: calls of the last assistant message that an earlier attempt left without results.
        steps, tool_calls, usage, text: of the turn's earlier attempts.
        approvals: names of tools whose calls wait for leave.
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


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an attempt.

    Args:
        answer_timeout_seconds: how long a call waits for its caller's result or leave, where nothing else is said.
    """

    step_limit: int
    tool_timeout_seconds: float
    retries: RetryPolicy
    answer_timeout_seconds: float = 3600.0


class Loop:
    """One attempt at one turn."""

    def __init__(self, task: Task, tools: Registry, limits: Limits, spawn: Spawn) -> None:
        self._task = task
        self._tools = tools
        self._limits = limits
        self._spawn = spawn
        self._history = list(task.history)
        self._steps, self._tool_calls, self._usage, self._text = task.steps, task.tool_calls, task.usage, task.text

    async def run(self) -> AsyncGenerator[Emission, None]:
        """Carry the turn to its end; the last emission ends it `completed`.

        Raises:
            AgentError: the turn cannot go on; how it ends is the caller's to write.
        """
        open_calls = self._task.open_calls
        while True:
            if open_calls:
                calls = self._calls(open_calls)
                async with aclosing(calls.run()) as emissions:
                    async for emission in emissions:
                        yield emission
                self._history += [calls.message, *calls.steered]
            step = self._next_step()
            async with aclosing(step.run(self._limits.retries)) as emissions:
                async for emission in emissions:
                    yield emission
            record, open_calls = self._conclude(step)
            yield record
            self._history += record.steered
            if not open_calls and not record.steered:
                return

    def _calls(self, open_calls: Sequence[Call]) -> Calls:
        limits = self._limits
        return Calls(
            open_calls,
            self._tools,
            self._spawn,
            timeout_seconds=limits.tool_timeout_seconds,
            approvals=self._task.approvals,
        )

    def _next_step(self) -> Step:
        if self._steps >= self._limits.step_limit:
            raise AgentError("STEP_LIMIT", f"The turn took {self._limits.step_limit} steps without coming to an end.")
        task = self._task
        request = ModelRequest(
            model=task.model,
            system=task.system,
            messages=self._history,
            tools=self._tools.specs(),
            max_tokens=task.max_tokens,
            params=task.params,
        )
        taken_ids = [use.id for message in self._history for use in message.tool_uses]
        return Step(task.provider, task.provider_name, request, number=self._steps + 1, taken_ids=taken_ids)

    def _conclude(self, step: Step) -> tuple[Record, list[Call]]:
        """Put a whole answer on record; without tool calls it is the turn's last."""
        message, finish = step.message, step.finish
        calls = [Call(use.id, use.name, use.args) for use in message.tool_uses] if message else []
        events = _completion(step, calls)
        self._steps += 1
        self._tool_calls += len(calls)
        self._usage = _sum(self._usage, finish.usage)
        self._text = step.text or self._text
        ending = None
        if not calls:
            stop_reason = "end_turn" if finish.stop_reason == "tool_use" else finish.stop_reason
            ending = Ending("completed", stop_reason)
            events.append(TurnCompleted(self._text, TurnUsage.of(self._usage), self._steps, self._tool_calls))
        change = TurnChange(1, len(calls), finish.usage, self._text or None, step.text or None, ending)
        if message is not None:
            self._history.append(message)
        return Record(events, [message] if message else [], change, is_boundary=not calls), calls


def _completion(step: Step, calls: Sequence[Call]) -> list[Event]:
    events: list[Event] = []
    if step.reasoning:
        events.append(ReasoningComplete(step.number, step.reasoning))
    if step.text:
        events.append(TextComplete(step.number, step.text))
    events.extend(ToolCallRequested(step.number, call.id, call.name, call.args) for call in calls)
    events.append(StepCompleted(step.number, step.finish.stop_reason, step.finish.usage))
    return events


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cache_creation_tokens + other.cache_creation_tokens,
        one.cache_read_tokens + other.cache_read_tokens,
    )
