"""What a model reads and writes: messages made of blocks. Pure values; nothing here does anything.

`orjson` writes these dataclasses as the wire and the `messages` table have them; `type` comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
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
class Image:
    """A picture for the model.

    Args:
        media_type: e.g. `image/png`; None where `url` says where it is.
        data: base64; None where `url` says where it is.
        url: https; None where the picture itself is given.
    """

    type: Literal["image"] = field(default="image", init=False)
    media_type: str | None
    data: str | None
    url: str | None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought on the way; kept in history, sent back only where a vendor needs it.

    Args:
        vendor: what a vendor wants back to go on from its own reasoning, under its provider's name; never shown to callers.
    """

    type: Literal["reasoning"] = field(default="reasoning", init=False)
    text: str
    vendor: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that the model asks for. `args` is what it sent: an object, or the raw text where that was no JSON object.

    Args:
        vendor: what a vendor wants back with its call, under its provider's name; never shown to callers.
    """

    type: Literal["tool_use"] = field(default="tool_use", init=False)
    id: str
    name: str
    args: Any
    vendor: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The one answer to a tool use, in the next message, in request order."""

    type: Literal["tool_result"] = field(default="tool_result", init=False)
    tool_use_id: str
    content: str
    is_error: bool


Block: TypeAlias = Text | Image | Reasoning | ToolUse | ToolResult


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

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))


NO_USAGE = Usage()


def dump_content(content: Sequence[Block]) -> str:
    """Write blocks as the JSON text that is stored; `shown_content` is what callers see of it."""
    return orjson.dumps([_dumped(block) for block in content]).decode()


def shown_content(text: str) -> bytes:
    """Return stored blocks as callers see them: without what only a vendor reads."""
    if '"vendor"' not in text:
        return text.encode()
    blocks = [{name: value for name, value in raw.items() if name != "vendor"} for raw in orjson.loads(text)]
    return orjson.dumps([block for block in blocks if block != {"type": "reasoning", "text": ""}])


def load_content(text: str) -> tuple[Block, ...]:
    """Read blocks back from their stored JSON text."""
    return tuple(_block(raw) for raw in orjson.loads(text))


def _dumped(block: Block) -> Any:
    match block:
        case Reasoning() | ToolUse() if block.vendor is None:
            return {item.name: getattr(block, item.name) for item in fields(block) if item.name != "vendor"}
        case Image():
            return shown_image(block)
        case _:
            return block


def shown_image(image: Image) -> dict[str, Any]:
    """Write an image as the wire has it."""
    if image.url is not None:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.data}}


def _block(raw: dict[str, Any]) -> Block:
    kind: Literal["text", "image", "reasoning", "tool_use", "tool_result"] = raw["type"]
    match kind:
        case "text":
            return Text(raw["text"])
        case "image":
            source = raw["source"]
            return Image(source.get("media_type"), source.get("data"), source.get("url"))
        case "reasoning":
            return Reasoning(raw["text"], raw.get("vendor"))
        case "tool_use":
            return ToolUse(raw["id"], raw["name"], raw["args"], raw.get("vendor"))
        case "tool_result":
            return ToolResult(raw["tool_use_id"], raw["content"], raw["is_error"])
        case _:
            assert_never(kind)
