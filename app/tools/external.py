"""Tools that the caller runs: the model calls them like any other, and the turn waits for the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.providers.base import ToolSpec
from app.tools.base import ToolError


@dataclass(frozen=True, slots=True)
class External:
    """One tool of a session that its caller runs.

    Args:
        timeout_seconds: how long a call waits for its result; None is the server's limit.
    """

    spec: ToolSpec
    timeout_seconds: float | None = None
    is_idempotent: bool = True

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "External":
        """Read one as the session keeps it: the wire's fields."""
        spec = ToolSpec(raw["name"], raw["description"], raw["input_schema"])
        return cls(spec, raw.get("timeout_seconds"))

    async def run(self, args: Mapping[str, Any]) -> str:  # noqa: ARG002 - as every tool has it
        """Refuse: the loop hands such a call to the caller."""
        raise ToolError("This tool is run by the caller.")
