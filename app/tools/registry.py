"""All tools of this server, by name, and the check of a call's arguments against a tool's schema.

Most tools are there from start to end. A source, such as an MCP server, has tools that come and go; a turn takes a snapshot, so
that its list stays as it was when it began.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from app.errors import StartupError
from app.providers.base import ToolSpec
from app.tools.base import Tool

SEPARATOR: Final = "__"  # between a source's name and its tool's; no other tool has it in its name


class Source(Protocol):
    """Something whose tools may change while the server runs."""

    @property
    def name(self) -> str:
        """What the names of its tools begin with, before the separator."""

    def tools(self) -> Sequence[Tool]:
        """Return its tools as they are now; their names are those of no other source."""


class Registry:
    """Finds tools by name.

    Args:
        tools: there from start to end.
        sources: their tools are found in snapshots alone.

    Raises:
        StartupError: two tools or two sources have one name, or a tool's name is like a source's.
    """

    def __init__(self, tools: Iterable[Tool], sources: Iterable[Source] = ()) -> None:
        tools, self.sources = list(tools), list(sources)
        _refuse_doubles([tool.spec.name for tool in tools])
        _refuse_doubles([source.name for source in self.sources])
        self._tools = {tool.spec.name: tool for tool in tools}
        self._validators: dict[str, Any] = {}
        for source in self.sources:
            for name in self._tools:
                if name.startswith(source.name + SEPARATOR):
                    raise StartupError(f"The tool {name!r} is named like one of {source.name!r}; rename one of the two.")

    def snapshot(self) -> "Registry":
        """Return the tools as they are now, those of all sources too, in a registry that does not change."""
        if not self.sources:
            return self
        found = {tool.spec.name: tool for source in self.sources for tool in source.tools()}
        snapshot = Registry([*self._tools.values(), *found.values()])
        snapshot._validators = dict(self._validators)
        return snapshot

    def without(self, names: Collection[str]) -> "Registry":
        """Return one that lacks some tools."""
        reduced = Registry([tool for name, tool in self._tools.items() if name not in names])
        reduced._validators = dict(self._validators)
        return reduced

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
        self._validators = {name: _validator(tool.spec) for name, tool in self._tools.items()}

    def fault(self, tool: Tool, args: Mapping[str, Any]) -> str | None:
        """Say in one sentence how arguments break the tool's schema; None where they do not."""
        from referencing.exceptions import Unresolvable

        validator = self._validators.get(tool.spec.name)
        if validator is None:
            validator = self._validators[tool.spec.name] = _validator(tool.spec)
        try:
            error = next(iter(validator.iter_errors(args)), None)
        except (Unresolvable, RecursionError):
            return "the schema itself cannot be applied; use another tool"
        if error is None:
            return None
        place = "/".join(str(part) for part in error.absolute_path)
        return f"at {place}: {error.message}" if place else str(error.message)


def _validator(spec: ToolSpec) -> Any:
    """Make a check that fetches nothing: a schema's references lead to places inside it, or nowhere."""
    import jsonschema
    import referencing

    return jsonschema.Draft202012Validator(spec.input_schema, registry=referencing.Registry())


def _refuse_doubles(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise StartupError(f"Two tools or servers are named {name!r}; rename one of them.")
