"""What a tool is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from app import redaction
from app.providers.base import ToolSpec

_call_id: ContextVar[str | None] = ContextVar("tool_call_id", default=None)


class ToolError(Exception):
    """A tool could not do what was asked; the message is for the model, and made without secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(redaction.redacted(message))


class Tool(Protocol):
    """One tool that a model may call."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""

    @property
    def is_idempotent(self) -> bool:
        """Whether running it twice does no more than once; after a crash only such a tool is run again."""

    async def run(self, args: Mapping[str, Any]) -> str:
        """Do the work with arguments that match the schema, and return what the model reads.

        Raises:
            ToolError: it could not be done.
        """


def call_id() -> str | None:
    """Return the id of the tool call that runs in this task, unique in its session; None outside of one."""
    return _call_id.get()


@contextmanager
def calling(tool_call_id: str) -> Iterator[None]:
    """Let `call_id` return this id inside the block."""
    token = _call_id.set(tool_call_id)
    try:
        yield
    finally:
        _call_id.reset(token)
