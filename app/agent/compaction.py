"""Compaction: for the model, a summary that it writes itself stands in for the older messages of its transcript.

The summary is asked for in one call without tools, of the older messages as plain text, so that any model can write it whatever
they hold. Nothing is deleted from the history; what is kept as it is begins where a transcript may begin.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from app.errors import AgentError, ProviderError
from app.journal.asides import CompactionCompleted
from app.journal.entry import Model
from app.messages import Image, Message, Reasoning, Text, ToolResult, ToolUse, Usage
from app.providers.base import Finish, ModelRequest, Provider, TextChunk, UsageChunk

CHARACTERS_A_TOKEN = 4
IMAGE_TOKENS = 1500
DUE_AT = 0.8  # of the model's context
KEPT_SHARE = 0.25  # of the transcript, at most, stays as it is
LEAST_NEW_MESSAGES = 4  # since the last summary; one that helped little is not made again at once
MOST_BLOCK_CHARACTERS = 4000  # of one block that is summed up
MOST_SUMMARY_TOKENS = 2000

_SYSTEM = (
    "You sum up a conversation between a user and an assistant so that the assistant can go on without it. Keep what the user "
    "wants, facts, names, numbers, decisions, results of tools, and what is still to be done. Answer with the summary alone."
)
_OPENING = "Summary of the conversation so far:\n\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """A transcript in two parts: what is summed up, and what stays."""

    older: Sequence[Message]
    kept: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Summary:
    """What stands in for the older messages.

    Args:
        usage: of the call that made it.
    """

    message: Message
    usage: Usage


class Unsummed(AgentError):
    """No summary was to be had, or none that helps.

    Args:
        usage: what the provider reported of the call all the same.
    """

    def __init__(self, reason: str, message: str, usage: Usage) -> None:
        super().__init__(reason, message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Compacted:
    """A transcript after its older messages were summed up.

    Args:
        kept: how many of its last messages stay as they are.
        model: whose summary it is.
    """

    summary: Summary
    told: CompactionCompleted
    kept: int
    model: Model

    @classmethod
    def of(cls, parts: Cut, summary: Summary, model: Model) -> "Compacted":
        """Put a summary before what is kept."""
        before, kept = len(parts.older) + len(parts.kept), len(parts.kept)
        told = CompactionCompleted(tokens_of([summary.message]), before, kept + 1, summary.usage)
        return cls(summary, told, kept, model)


def tokens_of(messages: Sequence[Message]) -> int:
    """Estimate how many tokens messages take."""
    return sum(map(_characters, messages)) // CHARACTERS_A_TOKEN


def cut(messages: Sequence[Message]) -> Cut | None:
    """Divide a transcript; None where there is nothing to sum up, or a summary alone.

    At least the last message stays, with the calls that it answers.
    """
    most = tokens_of(messages) * KEPT_SHARE
    place: int | None = None
    size = 0
    for begin in range(len(messages) - 1, 0, -1):
        size += _characters(messages[begin])
        if messages[begin].role == "tool":
            continue
        if place is not None and size // CHARACTERS_A_TOKEN > most:
            break
        place = begin
    if place is None or (place == 1 and messages[0].text.startswith(_OPENING)):
        return None
    return Cut(messages[:place], messages[place:])


async def sum_up(provider: Provider, model: str, parts: Cut, *, context_tokens: int) -> Summary:
    """Have the model sum up the older messages.

    Raises:
        Unsummed: `COMPACTION_FAILED`; it did not, or the summary is no shorter than what it sums up.
    """
    request = ModelRequest(model, _SYSTEM, [_asking(parts.older, context_tokens)], max_tokens=MOST_SUMMARY_TOKENS)
    texts: list[str] = []
    usage = Usage()
    try:
        async with aclosing(provider.stream(request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextChunk):
                    texts.append(chunk.text)
                elif isinstance(chunk, UsageChunk | Finish):
                    usage = chunk.usage
    except ProviderError as error:
        raise Unsummed("COMPACTION_FAILED", f"The summary could not be had: {error.detail}", usage) from error
    message = Message("user", (Text(_OPENING + "".join(texts).strip()),))
    if not texts or tokens_of([message]) >= tokens_of(parts.older):
        raise Unsummed("COMPACTION_FAILED", "The summary is not shorter than what it sums up.", usage)
    return Summary(message, usage)


class Memory:
    """Watches how near a transcript comes to what its model reads, and has it summed up.

    Args:
        context_tokens: most that the model reads.
    """

    def __init__(self, provider: Provider, model: str, context_tokens: int) -> None:
        self._provider = provider
        self._model = model
        self._context_tokens = context_tokens
        self._summed_up_at = -LEAST_NEW_MESSAGES

    def is_due(self, messages: Sequence[Message]) -> bool:
        """Tell whether a summary is due; not so soon after the last one."""
        if len(messages) < self._summed_up_at + LEAST_NEW_MESSAGES:
            return False
        return tokens_of(messages) >= self._context_tokens * DUE_AT and cut(messages) is not None

    async def sum_up(self, parts: Cut) -> Summary:
        """Have the model sum up; as `sum_up`."""
        return await sum_up(self._provider, self._model, parts, context_tokens=self._context_tokens)

    def take(self, messages: Sequence[Message]) -> None:
        """Take note of the transcript after a summary."""
        self._summed_up_at = len(messages)


def _asking(older: Sequence[Message], context_tokens: int) -> Message:
    """Write the older messages as one text; of one that is too long for the model the oldest part is left out."""
    text = "\n\n".join(f"{message.role}: {_told(message)}" for message in older)
    most = int(context_tokens * DUE_AT) * CHARACTERS_A_TOKEN
    return Message("user", (Text(text[-most:]),))


def _told(message: Message) -> str:
    return "\n".join(_words(block)[:MOST_BLOCK_CHARACTERS] for block in message.content)


def _words(block: object) -> str:
    match block:
        case Text(text=text):
            return text
        case ToolUse():
            return f"[calls {block.name} with {orjson.dumps(block.args).decode()}]"
        case ToolResult():
            return f"[result: {block.content}]"
        case Image():
            return "[an image]"
        case _:
            return ""


def _characters(message: Message) -> int:
    return sum(map(_size, message.content))


def _size(block: object) -> int:
    match block:
        case Image():
            return IMAGE_TOKENS * CHARACTERS_A_TOKEN
        case Reasoning():
            return len(block.text)
        case _:
            return len(_words(block))
