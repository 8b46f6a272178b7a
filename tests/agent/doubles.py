"""Providers and tools that do what a test says, and an attempt carried out into a log in memory."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import orjson

from app.agent import transcript
from app.agent.emissions import Discard, Emission, Record, Say, Tell
from app.agent.loop import Limits, Loop, Task
from app.agent.points import NO_POINTS, Points
from app.agent.step import RetryPolicy
from app.agent.transcript import StepState
from app.errors import ProviderError
from app.journal.event import Event
from app.journal.frames import body
from app.journal.reader import Stored
from app.journal.types import StepDiscarded
from app.messages import Message, Text, ToolResult, Usage
from app.providers.base import Finish, ModelChunk, ModelRequest, NativeSchema, TextChunk, ToolCallChunk, ToolSpec
from app.tools.base import Tool
from app.tools.registry import Registry

AT = "2026-01-02T03:04:05.678Z"
AT_ONCE = RetryPolicy(first_delay_seconds=0.0)
USAGE = Usage(3, 2)
LIMIT_SECONDS = 5.0

Part: TypeAlias = ModelChunk | ProviderError | asyncio.Event
"""What an answer is made of: a chunk, a fault, or something to wait for."""


def brief(*parts: Part | str, usage: Usage = USAGE) -> list[Part]:
    """Make a whole answer of text and chunks."""
    chunks = [TextChunk(part) if isinstance(part, str) else part for part in parts]
    has_calls = any(isinstance(part, ToolCallChunk) for part in parts)
    return [*chunks, Finish("tool_use" if has_calls else "end_turn", usage)]


def call(name: str = "echo", args: str = "{}", *, id: str | None = None, index: int = 0) -> ToolCallChunk:  # noqa: A002
    """Ask for a call, in one piece."""
    return ToolCallChunk(index, f"call-{index}" if id is None else id, name, args)


def fault(reason: str = "PROVIDER_UNAVAILABLE", *, is_retryable: bool = True, after: float | None = None) -> ProviderError:
    """Make a vendor's fault."""
    return ProviderError(reason, "It broke.", is_retryable=is_retryable, retry_after_seconds=after)


@dataclass
class Played:
    """A provider that plays answers in order and keeps what it was asked."""

    answers: list[list[Part]]
    requests: list[ModelRequest] = field(default_factory=list)
    closed: int = 0

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept everything."""

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return None: the answer is asked for in words, and validated."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Play the next answer."""
        self.requests.append(replace(request, messages=list(request.messages)))
        try:
            for part in self.answers.pop(0):
                if isinstance(part, ProviderError):
                    raise part
                if isinstance(part, asyncio.Event):
                    await part.wait()
                else:
                    yield part
        finally:
            self.closed += 1


@dataclass
class Acting:
    """A tool that does what it is given, and keeps the arguments of each run."""

    act: Callable[[Mapping[str, Any]], Awaitable[str]]
    name: str = "echo"
    is_idempotent: bool = False
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    runs: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        return ToolSpec(self.name, "Acts.", self.schema)

    async def run(self, args: Mapping[str, Any]) -> str:
        """Act."""
        self.runs.append(args)
        return await self.act(args)


async def echo(args: Mapping[str, Any]) -> str:
    """Answer with the arguments."""
    return orjson.dumps(dict(args)).decode()


async def for_ever(_: Mapping[str, Any]) -> str:
    """Do not end."""
    await asyncio.Event().wait()
    return ""


def task_of(provider: Played, history: Sequence[Message] | None = None, **more: Any) -> Task:
    """Make the task of a turn's first attempt."""
    return Task(
        provider=provider,
        provider_name="played",
        model="played",
        system=None,
        max_tokens=None,
        params={},
        history=history if history is not None else [Message("user", (Text("Hello"),))],
        **more,
    )


@dataclass
class Book:
    """A session's log and transcript in memory, written as the workshop writes them."""

    messages: list[Message] = field(default_factory=lambda: [Message("user", (Text("Hello"),))])
    events: list[Event] = field(default_factory=list)
    emissions: list[Emission] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)

    def keep(self, emission: Emission) -> None:
        """Write what the loop has told."""
        self.emissions.append(emission)
        match emission:
            case Say(event, _):
                self.write(event)
            case Tell(events):
                self.write(*events)
            case Record(events, messages):
                self.write(*events)
                self.messages += messages
            case Discard(step, reason):
                state = self.state
                self.write(StepDiscarded(step, reason, state.from_seq if state else 0))

    def write(self, *events: Event) -> None:
        """Write events."""
        for event in events:
            self.events.append(event)
            text = body(event, session_id="s", turn_id="t", at=AT)
            self.stored.append(Stored(len(self.stored) + 1, "t", event.type, text))

    @property
    def state(self) -> StepState | None:
        """The step in progress, as the log alone knows it."""
        starts = [place for place, event in enumerate(self.stored) if event.type == "step_started"]
        return transcript.fold(self.stored[starts[-1] :]) if starts else None

    @property
    def types(self) -> list[str]:
        """The types of all events."""
        return [event.type for event in self.events]

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of one class."""
        return [event for event in self.events if isinstance(event, kind)]


async def carried_out(
    task: Task,
    tools: Sequence[Tool] = (),
    *,
    limits: Limits | None = None,
    book: Book | None = None,
    points: Points = NO_POINTS,
) -> Book:
    """Carry an attempt to its end, under the limit; errors of the turn pass through."""
    book = book or Book()
    bounds = limits or Limits(step_limit=10, tool_timeout_seconds=30, retries=AT_ONCE)
    spawned: list[asyncio.Task[Any]] = []
    async with asyncio.timeout(LIMIT_SECONDS):

        def spawn(work: Any) -> "asyncio.Task[Any]":
            spawned.append(asyncio.get_running_loop().create_task(work))
            return spawned[-1]

        try:
            async with aclosing(Loop(task, Registry(tools), bounds, spawn, points).run()) as emissions:
                async for emission in emissions:
                    book.keep(emission)
        finally:
            for left in spawned:
                left.cancel()
            await asyncio.gather(*spawned, return_exceptions=True)
    return book


def assert_valid(messages: Sequence[Message]) -> None:
    """Hold a transcript against what every vendor asks: each tool use has one result, in the next message, in order."""
    ids = [use.id for message in messages for use in message.tool_uses]
    assert len(ids) == len(set(ids))
    assert all(ids)
    expected: list[str] = []
    for message in messages:
        assert message.content
        answered = [block.tool_use_id for block in message.content if isinstance(block, ToolResult)]
        assert answered == expected
        assert (message.role == "tool") == bool(answered)
        assert not message.tool_uses or message.role == "assistant"
        expected = [use.id for use in message.tool_uses]
    assert expected == []
