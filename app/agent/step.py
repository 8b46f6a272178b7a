"""One step: a model call, tried again where that is safe, and the answer put together from its chunks."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from app import clock, ids, telemetry
from app.agent.budget import Budget
from app.agent.emissions import Discard, Emission, Record, Say, Tell
from app.agent.tally import Tally
from app.errors import ProviderError
from app.journal.entry import Model, TurnChange
from app.journal.types import ReasoningDelta, Retrying, StepStarted, TextDelta, ToolCallDelta
from app.messages import Block, Message, Reasoning, Text, ToolUse
from app.providers.base import (
    Finish,
    ModelChunk,
    ModelRequest,
    Provider,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    UsageChunk,
    VendorChunk,
)
from app.providers.deadlines import Watch
from app.traces import NO_SPAN, Span, of_model, of_usage

Next: TypeAlias = Callable[[AsyncGenerator[ModelChunk, None]], Awaitable[ModelChunk | None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a model call is tried again.

    Args:
        max_attempts: tries in all.
        first_delay_seconds: before the second try; doubles with each, with jitter of up to a half.
        longest_delay_seconds: most, also of what a vendor asks for.
    """

    max_attempts: int = 4
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 60.0

    def delay(self, attempt: int, error: ProviderError) -> float:
        """Return the seconds to wait after a try that failed."""
        own = self.first_delay_seconds * 2 ** (attempt - 1) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
        return float(min(max(own, error.retry_after_seconds or 0.0), self.longest_delay_seconds))


@dataclass(frozen=True, slots=True)
class Ask:
    """Whom to ask, by what name, and what."""

    provider: Provider
    name: str
    request: ModelRequest


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    args: list[str] = field(default_factory=list)
    vendor: Any = None

    def block(self, provider: str) -> ToolUse:
        vendor = None if self.vendor is None else {provider: self.vendor}
        return ToolUse(self.id, self.name, _parsed("".join(self.args)), vendor)


@dataclass(slots=True)
class _Answer:
    """An answer on its way."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    vendor: list[Any] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish: Finish | None = None

    @property
    def is_begun(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)


class Step:
    """One model call. Run it to its end, then read `text`, `reasoning`, `message` and `finish`.

    Args:
        number: from 1 in its turn.
        taken_ids: tool use ids of the transcript so far; the step's own are made different from them.
        budget: looked at before each try and while the answer streams.

    Attributes:
        tally: what the present try has used up; those before it are on record.
    """

    def __init__(
        self,
        provider: Provider,
        name: str,
        request: ModelRequest,
        *,
        number: int,
        taken_ids: Sequence[str],
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget or Budget()
        self._provider = provider
        self._name = name
        self._request = request
        self.tally = self._tally()
        self._taken_ids = set(taken_ids)
        self.number = number
        self._answer = _Answer()
        self._rewritten: str | None = None
        self._span = NO_SPAN

    async def run(
        self, policy: RetryPolicy, fallbacks: Iterable[Ask] = (), span: Span = NO_SPAN
    ) -> AsyncGenerator[Emission, None]:
        """Ask the model, and yield what it says as it says it.

        Args:
            policy: holds for each model anew.
            fallbacks: asked in this order where the model before has failed in all tries; each is taken only then.
            span: what the tries are parts of.

        Raises:
            ProviderError: a model failed in a way that no further try can mend, or the last one in all of them.
            AgentError: a limit of the budget is met.
        """
        self._span = span
        self._budget.check()
        yield Tell([StepStarted(self.number)])
        attempt, others = 1, iter(fallbacks)
        while True:
            try:
                async with aclosing(self._ask()) as emissions:
                    async for emission in emissions:
                        yield emission
            except ProviderError as error:
                retrying = self._next_try(policy, attempt, error, others)
            else:
                return
            yield Tell([retrying])
            was_begun, self._answer = self._answer.is_begun, _Answer()
            for emission in self._account():
                yield emission
            if was_begun:
                yield Discard(self.number, retrying.reason)
            await asyncio.sleep(retrying.delay_ms / 1000)
            self._budget.check()
            attempt = attempt + 1 if retrying.model is None else 1
            if was_begun:
                yield Tell([StepStarted(self.number)])

    @property
    def finish(self) -> Finish:
        """How the answer ended."""
        finish = self._answer.finish
        if finish is None:
            raise ProviderError("PROVIDER_PROTOCOL", "The provider's answer has no end.")
        return finish

    @property
    def text(self) -> str:
        """The whole text, as it is kept."""
        return self.streamed_text if self._rewritten is None else self._rewritten

    @property
    def streamed_text(self) -> str:
        """The whole text, as it was shown."""
        return "".join(self._answer.text)

    @property
    def reasoning(self) -> str:
        """The whole reasoning."""
        return "".join(self._answer.reasoning)

    @property
    def message(self) -> Message | None:
        """The answer as the transcript has it; None where the model said nothing and asked for nothing."""
        blocks: list[Block] = []
        if self.text:
            blocks.append(Text(self.text))
        blocks.extend(call.block(self._name) for call in self._answer.calls.values())
        if not blocks:
            return None
        vendor = {self._name: self._answer.vendor} if self._answer.vendor else None
        if self.reasoning or vendor:
            blocks.insert(0, Reasoning(self.reasoning, vendor))
        return Message("assistant", tuple(blocks), self.finish.stop_reason)

    def rewrite(self, text: str) -> None:
        """Keep another text than the one that was shown."""
        self._rewritten = text

    def _account(self) -> Iterator[Emission]:
        """Count what a try that failed has used up, and begin anew."""
        tally, self.tally = self.tally, self._tally()
        change = tally.record()
        if change != TurnChange():
            yield Record((), change=change)
        warnings = self._budget.spend(tokens=tally.spent, output=tally.output)
        if warnings:
            yield Tell(warnings)

    def _tally(self) -> Tally:
        return Tally(Model(self._name, self._request.model))

    def _next_try(self, policy: RetryPolicy, attempt: int, error: ProviderError, others: Iterator[Ask]) -> Retrying:
        """Say what comes after a try that failed; where this model's tries are spent, turn to the next.

        Raises:
            ProviderError: the one given; nothing comes after it.
        """
        if not error.is_retryable:
            raise error
        if attempt < policy.max_attempts:
            return Retrying(attempt, policy.max_attempts, error.reason, round(policy.delay(attempt, error) * 1000))
        other = next(others, None)
        if other is None:
            raise error
        self._provider, self._name, self._request = other.provider, other.name, other.request
        return Retrying(attempt, policy.max_attempts, error.reason, 0, other.request.model, other.name)

    async def _ask(self) -> AsyncGenerator[Emission, None]:
        began = clock.monotonic()
        outcome = "error"
        is_first = True
        try:
            async with AsyncExitStack() as stack:
                span = stack.enter_context(self._try())
                next_of = stack.enter_context(self._watch())
                chunks = await stack.enter_async_context(aclosing(self._provider.stream(self._request)))
                while (chunk := await next_of(chunks)) is not None:
                    if is_first:
                        waited = clock.monotonic() - began
                        telemetry.FIRST_TOKEN_SECONDS.labels(self._name).observe(waited)
                        span.tell({"gen_ai.response.time_to_first_chunk": waited})
                        is_first = False
                    emission = self._take(chunk)
                    if emission is not None:
                        yield emission
                span.tell({**of_usage(self.tally.usage), "gen_ai.response.finish_reasons": (self.finish.stop_reason,)})
            outcome = "ok"
        finally:
            telemetry.CALL_SECONDS.labels(self._name, outcome).observe(clock.monotonic() - began)

    def _try(self) -> AbstractContextManager[Span]:
        """Begin the span of a try."""
        model = self._request.model
        own = {"gen_ai.request.max_tokens": self._request.max_tokens, "suricate.step": self.number}
        return self._span.child(f"chat {model}", {**of_model("chat", self._name, model), **own}, "client")

    @contextmanager
    def _watch(self) -> Iterator[Next]:
        """Give what waits for the next chunk, as long as the budget has time; None where there is none."""
        ends_at = self._budget.ends_at
        if ends_at is None:
            yield _next
            return
        left = max(ends_at - clock.monotonic(), 0.0)
        with Watch(left) as watch:

            async def next_in_time(chunks: AsyncGenerator[ModelChunk, None]) -> ModelChunk | None:
                try:
                    return await watch.wait(_next(chunks), left)
                except TimeoutError:
                    raise self._budget.timed_out() from None

            yield next_in_time

    def _take(self, chunk: ModelChunk) -> Emission | None:
        answer = self._answer
        if isinstance(chunk, TextChunk | ReasoningChunk | ToolCallChunk):
            self.tally.streamed += 1 if isinstance(chunk, ToolCallChunk) else chunk.tokens
            self._budget.check_stream(self.tally.streamed)
        match chunk:
            case UsageChunk(usage):
                change = self.tally.report(usage)
                return None if change is None else Record((), change=change)
            case VendorChunk(value):
                answer.vendor.append(value)
                return None
            case TextChunk(text):
                answer.text.append(text)
                return Say(TextDelta(self.number, text), text)
            case ReasoningChunk(text):
                answer.reasoning.append(text)
                return Say(ReasoningDelta(self.number, text), text)
            case ToolCallChunk():
                return self._take_call(chunk)
            case Finish():
                answer.finish = chunk
                self.tally.finish(chunk.usage)
                return None

    def _take_call(self, chunk: ToolCallChunk) -> Emission:
        calls = self._answer.calls
        name = None
        if chunk.index not in calls:
            name = chunk.name or ""
            calls[chunk.index] = _Call(self._own_id(chunk.id or ""), name)
        call = calls[chunk.index]
        call.args.append(chunk.args_delta)
        call.vendor = call.vendor if chunk.vendor is None else chunk.vendor
        return Say(ToolCallDelta(self.number, call.id, name, chunk.args_delta), chunk.args_delta)

    def _own_id(self, wanted: str) -> str:
        taken = self._taken_ids | {call.id for call in self._answer.calls.values()}
        return wanted if wanted and wanted not in taken else f"call_{ids.uuid7().replace('-', '')}"


async def _next(chunks: AsyncGenerator[ModelChunk, None]) -> ModelChunk | None:
    return await anext(chunks, None)


def _parsed(text: str) -> Any:
    try:
        args = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text
    return args if isinstance(args, dict) else text
