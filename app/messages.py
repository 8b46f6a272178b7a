"""What a model reads and writes: messages made of blocks. Pure values; nothing here does anything.

`orjson` writes these dataclasses as the wire and the `messages` table have them; `type` comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, assert_never

import orjson

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
StopReason: TypeAlias = Literal["end_turn", "max_tokens", "stop_sequence", "content_filter", "tool_use", "interrupted"]


@dataclass(frozen=True, slots=True)
class Text:
    """Words for or from the model."""

    type: Literal["text"] = field(default="text", init=False)
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought on the way; kept in history, sent back only where a vendor needs it."""

    type: Literal["reasoning"] = field(default="reasoning", init=False)
    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that the model asks for. `args` is what it sent: an object, or the raw text where that was no JSON object."""

    type: Literal["tool_use"] = field(default="tool_use", init=False)
    id: str
    name: str
    args: Any


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The one answer to a tool use, in the next message, in request order."""

    type: Literal["tool_result"] = field(default="tool_result", init=False)
    tool_use_id: str
    content: str
    is_error: bool


Block: TypeAlias = Text | Reasoning | ToolUse | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it enters the transcript. `stop_reason` is the assistant's alone."""

    role: Role
    content: tuple[Block, ...]
    stop_reason: StopReason | None = None

    @property
    def text(self) -> str:
        """The text blocks, joined by an empty line."""
        return "\n\n".join(block.text for block in self.content if isinstance(block, Text))

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The calls that this message asks for, in order."""
        return tuple(block for block in self.content if isinstance(block, ToolUse))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider reported them; `input_tokens` is without cached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


NO_USAGE = Usage()


def dump_content(content: Sequence[Block]) -> str:
    """Write blocks as the JSON text that is stored and sent."""
    return orjson.dumps(list(content)).decode()


def load_content(text: str) -> tuple[Block, ...]:
    """Read blocks back from their stored JSON text."""
    return tuple(_block(raw) for raw in orjson.loads(text))


def _block(raw: dict[str, Any]) -> Block:
    kind: Literal["text", "reasoning", "tool_use", "tool_result"] = raw["type"]
    match kind:
        case "text":
            return Text(raw["text"])
        case "reasoning":
            return Reasoning(raw["text"])
        case "tool_use":
            return ToolUse(raw["id"], raw["name"], raw["args"])
        case "tool_result":
            return ToolResult(raw["tool_use_id"], raw["content"], raw["is_error"])
        case _:
            assert_never(kind)
