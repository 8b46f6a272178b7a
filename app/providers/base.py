"""The seam between the loop and the vendors: one request in, a stream of chunks out.

A provider knows nothing of sessions, events or retries: it makes one call, yields what comes, and raises `ProviderError`
with one of the contract's reasons. The loop decides what is tried again. A stream without `Finish` is never an answer.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from app.messages import Message, StopReason, Usage


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model is told of it; `input_schema` is a JSON Schema with an object root."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """All that one model call needs.

    Args:
        messages: user, assistant and tool messages, oldest first; each tool use has its result in the next message.
        max_tokens: most output tokens; None leaves it to the vendor.
        params: what the provider's `check_params` accepted.
        output_schema: JSON Schema of the final answer, as the provider's `native_schema` gave it; None is free text.
    """

    model: str
    system: str | None
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    max_tokens: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A piece of the answer; never empty. `tokens` is how many pieces of the vendor's it joins."""

    text: str
    tokens: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    """A piece of the reasoning; never empty. `tokens` is how many pieces of the vendor's it joins."""

    text: str
    tokens: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class VendorChunk:
    """Something that belongs to the reasoning and that the vendor wants back with the message; JSON, kept in order."""

    value: Any


@dataclass(frozen=True, slots=True)
class ToolCallChunk:
    """A piece of a tool call.

    Args:
        index: which call of this answer, from 0; pieces of several calls may interleave.
        id, name: given with the first piece of a call, None after it; an id is empty where the vendor gives none.
        args_delta: the next part of the arguments' JSON text; may be empty.
        vendor: what the vendor wants back with the call, JSON; None is nothing.
    """

    index: int
    id: str | None
    name: str | None
    args_delta: str
    vendor: Any = None


@dataclass(frozen=True, slots=True)
class UsageChunk:
    """What the vendor has counted of this answer so far; it takes the place of the report before."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finish:
    """The vendor said that the answer is complete; always the last chunk, exactly once."""

    stop_reason: StopReason
    usage: Usage


ModelChunk: TypeAlias = TextChunk | ReasoningChunk | VendorChunk | ToolCallChunk | UsageChunk | Finish


@dataclass(frozen=True, slots=True)
class NativeSchema:
    """A JSON Schema as a vendor's own schema mode takes it.

    Args:
        schema: for `ModelRequest.output_schema`.
        warnings: one sentence for each thing of the caller's schema that the mode cannot express; the answer is still
            validated against the whole of it.
    """

    schema: Mapping[str, Any]
    warnings: Sequence[str] = ()


class Provider(Protocol):
    """One vendor's wire."""

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept a session's `provider_params`.

        Raises:
            InvalidRequest: a key is unknown or a value out of range; `loc` is `provider_params.<key>`.
        """

    def native_schema(self, schema: Mapping[str, Any]) -> NativeSchema | None:
        """Return a caller's schema as this vendor's own schema mode takes it; None where it has none."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """Make one model call and yield its chunks, `Finish` last. Closing the generator closes the connection.

        Raises:
            ProviderError: with a contract reason; whether chunks came before does not matter here.
        """
