"""What a tool is."""

from collections.abc import Mapping
from typing import Any, Protocol

from app.providers.base import ToolSpec


class ToolError(Exception):
    """A tool could not do what was asked; the message is for the model."""


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
