"""A model that needs no key and no network: it plays a scenario through the real loop.

Which step of the scenario comes next is read from the transcript alone (how often tools have answered since the user spoke),
so a turn that another node takes over goes on where it was. Words in the user's prompt change the default scenario: `slow`,
`fail`, `long`, `tool` (one more call), `tools` (two calls at once). In a scenario `{prompt}` and `{tool_output}` are replaced;
its last step is played again as often as it is asked for.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from pydantic import Field

from app.errors import InvalidRequest, ProviderError
from app.messages import Message, StopReason, ToolResult, Usage
from app.providers import provider_params
from app.providers.base import Finish, ModelChunk, ModelRequest, NativeSchema, ReasoningChunk, TextChunk, ToolCallChunk

DEFAULT_TOKENS_PER_SECOND: Final = 50.0
SLOW_FACTOR: Final = 10
LONG_TOKENS: Final = 2000
QUOTE_CHARACTERS: Final = 1000  # of a prompt or a tool's output; the rest is an ellipsis
LEAST_SLEEP_SECONDS: Final = 0.005  # at high rates several tokens go out after one sleep
TOKENS_BETWEEN_BREATHS: Final = 64  # at full speed others get a turn after so many
ARGUMENT_CHARACTERS: Final = 8  # of one piece of a call's arguments
FILLER: Final = tuple(TextChunk(word) for word in (" and", " so", " on", " it", " goes", " word", " after", " word"))
WORD: Final = re.compile(r"\s*\S+|\s+\Z")
NO_TOOL: Final = "no tool was at hand"


class ScenarioCall(provider_params.Strict):
    """A tool call of a scenario."""

    name: str = Field(min_length=1, max_length=64)
    args: dict[str, Any] = Field(default_factory=dict)


class ScenarioStep(provider_params.Strict):
    """One model call of a scenario; without a stop reason it ends as its tool calls suggest."""

    reasoning: str = ""
    text: str = ""
    tool_calls: tuple[ScenarioCall, ...] = Field(default=(), strict=False)
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "content_filter"] | None = None


class Scenario(provider_params.Strict):
    """What the model does, step by step."""

    steps: tuple[ScenarioStep, ...] = Field(min_length=1, strict=False)


class Params(provider_params.Strict):
    """What a session's `provider_params` may hold.

    Args:
        tokens_per_second: 0 is as fast as possible; None is the server's rate.
        tokens: an answer of exactly so many tokens of text and nothing else.
        scenario: one to play in place of the default.
    """

    tokens_per_second: float | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    scenario: Scenario | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """What is played in one call."""

    chunks: Iterator[ModelChunk]
    stop_reason: StopReason
    tokens_per_second: float


class Scripted:
    """Plays scenarios.

    Args:
        tokens_per_second: the rate where `provider_params` names none; 0 is as fast as possible.
    """

    def __init__(self, tokens_per_second: float = DEFAULT_TOKENS_PER_SECOND) -> None:
        self._tokens_per_second = tokens_per_second
        self._scenario = Scenario.model_validate_json(Path(__file__).with_name("scripted.json").read_bytes())

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept a session's `provider_params`.

        Raises:
            InvalidRequest: a key is unknown or a value out of range; `loc` is `provider_params.<key>`.
        """
        given = provider_params.parse(Params, params)
        if given.tokens is not None and given.scenario is not None:
            raise InvalidRequest.at("provider_params.tokens", "Give tokens or a scenario, not both.")

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return None: the answer is asked for in words, and validated."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Play the step that the transcript has come to, word by word, `Finish` last.

        Raises:
            ProviderError: `PROVIDER_UNAVAILABLE`; the prompt asked for it.
        """
        part = self._part(request)
        stop_reason, spoken = part.stop_reason, 0
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for chunk in part.chunks:
            if spoken == request.max_tokens:
                stop_reason = "max_tokens"
                break
            if part.tokens_per_second:
                early = began_at + spoken / part.tokens_per_second - loop.time()
                if early >= LEAST_SLEEP_SECONDS:
                    await asyncio.sleep(early)
            elif spoken % TOKENS_BETWEEN_BREATHS == 0:
                await asyncio.sleep(0)
            spoken += 1
            yield chunk
        yield Finish(stop_reason, Usage(input_tokens=_count(request), output_tokens=spoken))

    def _part(self, request: ModelRequest) -> _Part:
        given = provider_params.parse(Params, request.params)
        rate = self._tokens_per_second if given.tokens_per_second is None else given.tokens_per_second
        if given.tokens is not None:
            return _Part(itertools.islice(itertools.cycle(FILLER), given.tokens), "end_turn", rate)
        prompt, outputs = _since_the_user_spoke(request.messages)
        words = set() if given.scenario else set(re.findall(r"\w+", prompt.lower()))
        if "fail" in words:
            raise ProviderError("PROVIDER_UNAVAILABLE", "The scripted model was asked to fail.")
        steps = _adapted((given.scenario or self._scenario).steps, words)
        step = _playable(steps[min(len(outputs), len(steps) - 1) :], {tool.name for tool in request.tools})
        quotes = {"{prompt}": prompt, "{tool_output}": outputs[-1] if outputs else NO_TOOL}
        filler = LONG_TOKENS if "long" in words and not step.tool_calls else 0
        chunks = itertools.chain(
            _chunks(step, quotes, f"scripted_{len(request.messages)}"),
            itertools.islice(itertools.cycle(FILLER), filler),
        )
        stop_reason = step.stop_reason or ("tool_use" if step.tool_calls else "end_turn")
        return _Part(chunks, stop_reason, rate / SLOW_FACTOR if "slow" in words else rate)


def _since_the_user_spoke(messages: Sequence[Message]) -> tuple[str, list[str]]:
    """Return the user's last words, and what tools have answered since, one text for each round."""
    outputs: list[str] = []
    for message in reversed(messages):
        if message.role == "user":
            return message.text, outputs[::-1]
        if message.role == "tool":
            outputs.append(" ".join(block.content for block in message.content if isinstance(block, ToolResult)))
    return "", outputs[::-1]


def _adapted(steps: tuple[ScenarioStep, ...], words: set[str]) -> tuple[ScenarioStep, ...]:
    """Change the calls as the prompt's words ask: `tools` doubles the first step's, `tool` makes them once more."""
    first, *rest = steps
    if "tools" in words:
        first = first.model_copy(update={"tool_calls": first.tool_calls * 2})
    if "tool" in words:
        rest.insert(0, ScenarioStep(text="I look once more.", tool_calls=first.tool_calls))
    return first, *rest


def _playable(steps: Sequence[ScenarioStep], tools: set[str]) -> ScenarioStep:
    """Return the first step whose tools are there; else the last one without its calls."""
    for step in steps:
        if all(call.name in tools for call in step.tool_calls):
            return step
    return steps[-1].model_copy(update={"tool_calls": ()})


def _chunks(step: ScenarioStep, quotes: Mapping[str, str], call_prefix: str) -> Iterator[ModelChunk]:
    yield from (ReasoningChunk(word) for word in WORD.findall(_quoting(step.reasoning, quotes)))
    yield from (TextChunk(word) for word in WORD.findall(_quoting(step.text, quotes)))
    for index, call in enumerate(step.tool_calls):
        args = orjson.dumps(call.args).decode()
        yield ToolCallChunk(index, f"{call_prefix}_{index}", call.name, args[:ARGUMENT_CHARACTERS])
        for start in range(ARGUMENT_CHARACTERS, len(args), ARGUMENT_CHARACTERS):
            yield ToolCallChunk(index, None, None, args[start : start + ARGUMENT_CHARACTERS])


def _quoting(text: str, quotes: Mapping[str, str]) -> str:
    return re.sub(r"\{prompt\}|\{tool_output\}", lambda found: _cut(quotes[found[0]]), text)


def _cut(text: str) -> str:
    return text if len(text) <= QUOTE_CHARACTERS else text[:QUOTE_CHARACTERS] + "…"


def _count(request: ModelRequest) -> int:
    """Count the words that the model was given."""
    texts = [request.system or "", *(message.text for message in request.messages)]
    results = (block for message in request.messages for block in message.content if isinstance(block, ToolResult))
    return sum(len(text.split()) for text in [*texts, *(result.content for result in results)])
