"""A stage for each vendor: its double, its adapter, and neutral scripts in its own words.

The behaviours of `test_behaviours.py` are claims about every adapter; what differs between the wires stands here. Texts,
reasoning and tool calls of `scripts` are played by every double as they are.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self

from app.agent.step import RetryPolicy, Step
from app.agent.transcript import StepState, close
from app.errors import ProviderError
from app.messages import Message
from app.providers.anthropic import Anthropic
from app.providers.base import ModelChunk, ModelRequest, Provider, ReasoningChunk, ToolSpec
from app.providers.deadlines import Deadlines
from app.providers.gemini import Gemini
from app.providers.openai import OpenAI
from app.providers.openai_compatible import OpenAICompatible
from app.providers.scripted import Scripted
from tests.provider_double import anthropic, gemini, openai, scripts
from tests.provider_double.anthropic_transcript import signature_of
from tests.provider_double.client import ProviderDouble
from tests.provider_double.scripts import Script
from tests.providers.asking import text_of

KEY = "sk-canary"
THOUGHT = "One moment of thought."
TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"
LONG_ID = "toolu_" + "x" * 80  # longer than any vendor takes, though some give such
ODD_ID = "functions.datetime:1"  # with characters that most vendors refuse
DATETIME = ToolSpec("datetime", "Tell the time.", {"type": "object", "properties": {"timezone": {"type": "string"}}})

Reason = Literal["end_turn", "tool_use", "max_tokens"]


class Adapter(Provider, Protocol):
    """A provider that holds connections."""

    async def aclose(self) -> None:
        """Close all connections."""


class Stage:
    """What every stage has.

    Args:
        name: what the vendor's own things stand under in messages.
        thinking: `provider_params` that make its models reason.
        seal: what the vendor gives with the thought of `reasoned_calls` and wants back; None where it gives nothing.
    """

    name: ClassVar[str]
    model: ClassVar[str] = "m"
    thinking: ClassVar[Mapping[str, Any]] = {"reasoning_effort": "low"}
    reasons: ClassVar[Mapping[str, str]] = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
    seal: ClassVar[str | None] = None

    def adapter(self, deadlines: Deadlines | None = None) -> Adapter:
        """Return the real adapter, pointed at the double; its caller closes it."""
        raise NotImplementedError

    async def play(self, *answers: Script) -> None:
        """Queue answers, one per request."""
        raise NotImplementedError

    def request(self, *messages: Message, **members: Any) -> ModelRequest:
        """Return a request to the stage's model, with one tool."""
        return ModelRequest(self.model, None, messages, tools=(DATETIME,), **members)

    def finish(self, reason: Reason = "end_turn", usage: Any = scripts.DEFAULT_USAGE) -> scripts.Finish:
        """Return the regular end."""
        return scripts.finish(self.reasons[reason], usage=usage)

    def reasoned_calls(self, *call_ids: str, tools: Sequence[str] = (), usage: Any = scripts.DEFAULT_USAGE) -> Script:
        """Return an answer that thinks, speaks, and calls a tool for each id: `datetime` where none are named."""
        named = zip(call_ids, tools or ["datetime"] * len(call_ids), strict=True)
        calls = [scripts.tool_call(tool, {}, index=index, call_id=call_id) for index, (call_id, tool) in enumerate(named)]
        return [scripts.reasoning(THOUGHT), scripts.text("Let me", " look."), *calls, self.finish("tool_use", usage)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


class WiredStage(Stage):
    """What a stage with a wire has besides.

    Args:
        base_url: the double's, once the stage is entered.
        crash, overflow_inside, busy_inside, locked_out_inside: errors inside a 200: a fault, a transcript that is too long,
            too many requests, refused credentials.
        overflow: the answer to a transcript that is too long.
    """

    base_url: str
    crash: ClassVar[scripts.Event]
    overflow_inside: ClassVar[scripts.Event]
    busy_inside: ClassVar[scripts.Event]
    locked_out_inside: ClassVar[scripts.Event]
    overflow: ClassVar[scripts.Status]

    async def bodies(self) -> list[Any]:
        """Return what was asked, oldest first."""
        raise NotImplementedError

    async def rejected(self) -> list[str]:
        """Return why requests were refused as invalid."""
        raise NotImplementedError

    async def hung_up(self) -> bool:
        """Wait until the first request is over; return whether the client closed its connection before it was."""
        raise NotImplementedError

    def refusal(self, status: int, retry_after: str | None = None) -> scripts.Status:
        """Return an error answer."""
        return scripts.status(status, retry_after=retry_after)

    def usage(self, fresh: int, cached: int, output: int) -> Any:
        """Return usage of a prompt that was read from the vendor's cache in part."""
        raise NotImplementedError

    def limit_of(self, body: Any) -> Any:
        """Return the most output tokens that a request asks for."""
        return body["max_tokens"]


class ScriptedStage(Stage):
    """The scripted model: what is played is its scenario."""

    name = "scripted"

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []

    def adapter(self, deadlines: Deadlines | None = None) -> Adapter:
        """Return a scripted model at full speed, which has no waits to limit."""
        assert deadlines is None
        return _Unconnected(tokens_per_second=0)

    async def play(self, *answers: Script) -> None:
        """Make the answers the scenario."""
        self._steps = [_scenario_step(answer) for answer in answers]

    def request(self, *messages: Message, **members: Any) -> ModelRequest:
        """Return a request with the scenario."""
        return super().request(*messages, params={"scenario": {"steps": self._steps}}, **members)


class _Unconnected(Scripted):
    async def aclose(self) -> None:
        """Do nothing; there are no connections."""


def _scenario_step(answer: Script) -> dict[str, Any]:
    texts = [action for action in answer if isinstance(action, scripts.Text)]
    calls = [action for action in answer if isinstance(action, scripts.ToolCall)]
    return {
        "reasoning": "".join(piece for text in texts if text.member != "content" for piece in text.pieces),
        "text": "".join(piece for text in texts if text.member == "content" for piece in text.pieces),
        "tool_calls": [{"name": call.name, "args": json.loads("".join(call.pieces))} for call in calls],
    }


class CompatibleStage(WiredStage):
    """Chat Completions."""

    name = "openai_compatible"
    crash = scripts.error_event()
    overflow = scripts.context_overflow()
    overflow_inside = scripts.error_event(code="context_length_exceeded")
    busy_inside = scripts.error_event(code=429)
    locked_out_inside = scripts.error_event(code=401)

    def __init__(self, double: ProviderDouble) -> None:
        self._double = double

    async def __aenter__(self) -> Self:
        await self._double.reset()
        self.base_url = self._double.base_url
        return self

    def adapter(self, deadlines: Deadlines | None = None) -> Adapter:
        return OpenAICompatible(self.base_url, KEY, deadlines=deadlines)

    async def play(self, *answers: Script) -> None:
        await self._double.play(*answers)

    async def bodies(self) -> list[Any]:
        return [record.body for record in await self._double.requests()]

    async def rejected(self) -> list[str]:
        return [record.rejected for record in await self._double.requests() if record.rejected]

    async def hung_up(self) -> bool:
        return (await self._double.ended(1)).closed_by_client_at is not None

    def usage(self, fresh: int, cached: int, output: int) -> Any:
        details = {"cached_tokens": cached}
        return {"prompt_tokens": fresh + cached, "prompt_tokens_details": details, "completion_tokens": output}


class LoopStage(WiredStage):
    """A stage whose double runs in the test's own loop."""

    def __init__(self, double: anthropic.AnthropicDouble | openai.OpenAIDouble | gemini.GeminiDouble) -> None:
        self._running = double

    async def play(self, *answers: Script) -> None:
        self._running.play(*answers)

    async def bodies(self) -> list[Any]:
        return self._running.bodies

    async def rejected(self) -> list[str]:
        return self._running.rejected

    async def __aenter__(self) -> Self:
        await self._running.__aenter__()
        self.base_url = self._running.base_url
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._running.__aexit__(kind, error, at)


class AnthropicStage(LoopStage):
    """Anthropic's Messages."""

    name = "anthropic"
    thinking: ClassVar = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    reasons: ClassVar = {"end_turn": "end_turn", "tool_use": "tool_use", "max_tokens": "max_tokens"}
    seal = signature_of(THOUGHT)
    crash = scripts.event(anthropic.error_body("api_error"))
    overflow = anthropic.error(400, "invalid_request_error", TOO_LONG)
    overflow_inside = scripts.event(anthropic.error_body("invalid_request_error", TOO_LONG))
    busy_inside = scripts.event(anthropic.error_body("rate_limit_error"))
    locked_out_inside = scripts.event(anthropic.error_body("authentication_error"))
    kinds: ClassVar = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}

    def __init__(self) -> None:
        self._double = anthropic.AnthropicDouble(KEY)
        super().__init__(self._double)

    def adapter(self, deadlines: Deadlines | None = None) -> Adapter:
        return Anthropic(self.base_url, KEY, deadlines=deadlines)

    async def hung_up(self) -> bool:
        return await self._double.closed_by_client.wait()

    def refusal(self, status: int, retry_after: str | None = None) -> scripts.Status:
        return anthropic.error(status, self.kinds.get(status, "api_error"), retry_after=retry_after)

    def usage(self, fresh: int, cached: int, output: int) -> Any:
        return {"input_tokens": fresh, "cache_read_input_tokens": cached, "output_tokens": output}


class OpenAIStage(LoopStage):
    """OpenAI's Responses."""

    name = "openai"
    seal = "encrypted rs_1_0"  # the double's, for the first item of the first answer
    crash = openai.error_event("server_error")
    overflow = scripts.context_overflow()
    overflow_inside = openai.failed("context_length_exceeded")
    busy_inside = openai.failed("rate_limit_exceeded")
    locked_out_inside = openai.failed("invalid_api_key")

    def __init__(self) -> None:
        self._double = openai.OpenAIDouble(KEY)
        super().__init__(self._double)

    def adapter(self, deadlines: Deadlines | None = None) -> Adapter:
        return OpenAI(self.base_url, KEY, deadlines=deadlines)

    async def hung_up(self) -> bool:
        return (await self._double.ledger.wait(1, "ended")).closed_by_client_at is not None

    def usage(self, fresh: int, cached: int, output: int) -> Any:
        details = {"cached_tokens": cached, "cache_write_tokens": 0}
        return {"input_tokens": fresh + cached, "input_tokens_details": details, "output_tokens": output}

    def limit_of(self, body: Any) -> Any:
        return body["max_output_tokens"]


class GeminiStage(LoopStage):
    """Google's generateContent."""

    name = "gemini"
    model = "gemini-3-pro"
    thinking: ClassVar = {"thinking_level": "low"}
    seal = gemini.SIGNATURE
    crash = scripts.event(gemini.error(500, "INTERNAL", "It crashed."))
    overflow = gemini.context_overflow()
    overflow_inside = scripts.event(gemini.error(400, "INVALID_ARGUMENT", "The input token count exceeds the maximum."))
    busy_inside = scripts.event(gemini.error(429, "RESOURCE_EXHAUSTED", "Slow."))
    locked_out_inside = scripts.event(gemini.error(401, "UNAUTHENTICATED", "Who?"))

    def __init__(self) -> None:
        self._double = gemini.GeminiDouble(KEY)
        super().__init__(self._double)

    def adapter(self, deadlines: Deadlines | None = None) -> Adapter:
        return Gemini(self.base_url, KEY, deadlines=deadlines)

    async def hung_up(self) -> bool:
        return (await self._double.ended(1)).closed_by_client_at is not None

    def refusal(self, status: int, retry_after: str | None = None) -> scripts.Status:
        return gemini.refusal(status, "UNAVAILABLE", retry_after=retry_after)

    def reasoned_calls(self, *call_ids: str, tools: Sequence[str] = (), usage: Any = scripts.DEFAULT_USAGE) -> Script:
        """Return the answer with its first call signed, as the vendor signs it."""
        named = zip(call_ids, tools or ["datetime"] * len(call_ids), strict=True)
        signatures = itertools.chain([gemini.SIGNATURE], itertools.repeat(None))
        calls = [gemini.call(tool, {}, call_id=call_id, signature=next(signatures)) for call_id, tool in named]
        return [scripts.reasoning(THOUGHT), scripts.text("Let me", " look."), *calls, self.finish(usage=usage)]

    def usage(self, fresh: int, cached: int, output: int) -> Any:
        prompt = {"promptTokenCount": fresh + cached, "cachedContentTokenCount": cached}
        return prompt | {"candidatesTokenCount": output}

    def limit_of(self, body: Any) -> Any:
        return body["generationConfig"]["maxOutputTokens"]


WIRED = ("openai_compatible", "anthropic", "openai", "gemini")
ALL = ("scripted", *WIRED)
SEALING = ("anthropic", "openai", "gemini")  # those that want something back with a message


def staged(name: str, running_double: ProviderDouble) -> Stage:
    """Return a vendor's stage, to be entered."""
    return ScriptedStage() if name == "scripted" else wired(name, running_double)


def wired(name: str, running_double: ProviderDouble) -> WiredStage:
    """Return the stage of a vendor with a wire, to be entered."""
    if name == "openai_compatible":
        return CompatibleStage(running_double)
    kinds: dict[str, type[AnthropicStage | OpenAIStage | GeminiStage]]
    kinds = {"anthropic": AnthropicStage, "openai": OpenAIStage, "gemini": GeminiStage}
    return kinds[name]()


async def outcome(
    stage: Stage, request: ModelRequest, deadlines: Deadlines | None = None
) -> tuple[list[ModelChunk], ProviderError | None]:
    """Make one call; return its chunks, and the error that ended it."""
    chunks: list[ModelChunk] = []
    async with aclosing(stage.adapter(deadlines)) as adapter, aclosing(adapter.stream(request)) as stream:
        try:
            async for chunk in stream:
                chunks += [chunk]
        except ProviderError as error:
            return chunks, error
    return chunks, None


async def kept(stage: Stage, *messages: Message) -> Message:
    """Make one call; return its answer as the loop would keep it."""
    taken = [use.id for message in messages for use in message.tool_uses]
    async with aclosing(stage.adapter()) as adapter:
        step = Step(adapter, stage.name, stage.request(*messages), number=1, taken_ids=taken)
        async with aclosing(step.run(RetryPolicy(max_attempts=1))) as emissions:
            async for _ in emissions:
                pass
    assert step.message is not None
    return step.message


async def kept_of_a_cut(stage: Stage, *messages: Message) -> Message:
    """Make one call that is cut; return what the loop would keep of it."""
    chunks, _ = await outcome(stage, stage.request(*messages))
    closing = close(StepState(1, 1, [text_of(chunks)], [reasoning_of(chunks)]))
    [message] = closing.messages
    return message


def reasoning_of(chunks: Sequence[ModelChunk]) -> str:
    """Return the whole reasoning."""
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk))
