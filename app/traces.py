"""Spans as rooms know them: what an attempt, a model call and a tool took, told to whoever follows a trace.

Nothing here knows OpenTelemetry; `app/otlp.py` does, where it is switched on. A span holds names, counts and reasons: no
prompt, no answer, no argument. A parent is handed down as a value, never looked up, so that a generator may hold a span open.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeAlias

from app.messages import Usage

Attributes: TypeAlias = Mapping[str, str | int | float | tuple[str, ...] | None]
"""By the names of OpenTelemetry's conventions for generative AI; None is left out."""
Kind: TypeAlias = Literal["internal", "client"]

PROVIDERS: Final = {"gemini": "gcp.gemini"}
"""Names of vendors where the convention has another than we do."""


class Span(Protocol):
    """Something that takes time; it ends with its block, and an error that leaves the block is told by its kind alone."""

    def child(self, name: str, attributes: Attributes, kind: Kind = "internal") -> "AbstractContextManager[Span]":
        """Begin a part of it."""

    def tell(self, attributes: Attributes) -> None:
        """Add what is known by now."""

    def fail(self, error_type: str) -> None:
        """Say that it did not succeed, by a word of few."""


class Tracer(Protocol):
    """Begins traces, or goes on with that of the request under way."""

    def attempt(self, attributes: Attributes) -> AbstractContextManager[Span]:
        """Begin an attempt at a turn. What is begun inside the block and is no child belongs to no trace."""


class _Nothing:
    """Tells nobody."""

    def child(self, name: str, attributes: Attributes, kind: Kind = "internal") -> Self:  # noqa: ARG002
        """Return itself."""
        return self

    def attempt(self, attributes: Attributes) -> Self:  # noqa: ARG002
        """Return itself."""
        return self

    def tell(self, attributes: Attributes) -> None:
        """Do nothing."""

    def fail(self, error_type: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


_NOTHING: Final = _Nothing()
NO_SPAN: Final[Span] = _NOTHING
NO_TRACER: Final[Tracer] = _NOTHING


def of_model(operation: Literal["invoke_agent", "chat"], provider: str, model: str) -> Attributes:
    """Return what a call of a model is known by."""
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
    }


def of_usage(usage: Usage) -> Attributes:
    """Return tokens by the convention, which counts cached ones as input too."""
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens + usage.cache_creation_tokens + usage.cache_read_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_creation_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
    }
