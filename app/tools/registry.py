"""All tools of this server, by name, and the check of a call's arguments against a tool's schema."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.providers.base import ToolSpec
from app.tools.base import Tool


class Registry:
    """Finds tools by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        self._validators: dict[str, Any] = {}

    def extended(self, tools: Iterable[Tool]) -> "Registry":
        """Return one with further tools behind these; the checks that are ready are shared."""
        extended = Registry([*self._tools.values(), *tools])
        extended._validators = dict(self._validators)
        return extended

    def specs(self) -> Sequence[ToolSpec]:
        """Return what a model is told, in order of registration."""
        return [tool.spec for tool in self._tools.values()]

    def find(self, name: str) -> Tool | None:
        """Return the tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> Sequence[str]:
        """Return all names."""
        return list(self._tools)

    def prepare(self) -> None:
        """Make the checks of all tools ready; it takes a quarter of a second, so the start does it beside other work."""
        self._prepare(self._tools.values())

    def _prepare(self, tools: Iterable[Tool]) -> None:
        import jsonschema

        self._validators |= {tool.spec.name: jsonschema.Draft202012Validator(tool.spec.input_schema) for tool in tools}

    def fault(self, tool: Tool, args: Mapping[str, Any]) -> str | None:
        """Say in one sentence how arguments break the tool's schema; None where they do not."""
        if tool.spec.name not in self._validators:
            self._prepare([tool])
        error = next(iter(self._validators[tool.spec.name].iter_errors(args)), None)
        if error is None:
            return None
        place = "/".join(str(part) for part in error.absolute_path)
        return f"at {place}: {error.message}" if place else str(error.message)


NONE = Registry([])
