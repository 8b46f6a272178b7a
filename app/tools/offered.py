"""The check of what a session wants offered to its model."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import InvalidRequest
from app.tools.registry import SEPARATOR, Registry

MOST_SCHEMA_CHARACTERS = 64 * 1024


def check(tools: Registry, external_tools: Sequence[Mapping[str, Any]], approval_tools: Sequence[str]) -> None:
    """Accept the tools that a caller runs, and the names of those that wait for approval.

    Raises:
        InvalidRequest: a name is taken or names no tool, or a schema is none with an object root.
    """
    names = list(tools.snapshot().names())
    for index, tool in enumerate(external_tools):
        if tool["name"] in names:
            raise InvalidRequest.at(f"external_tools.{index}.name", "There is a tool of this name already.")
        if SEPARATOR in tool["name"]:
            raise InvalidRequest.at(f"external_tools.{index}.name", f"A name with {SEPARATOR!r} is one of a tool server's.")
        names.append(tool["name"])
        fault = _fault(tool["input_schema"])
        if fault is not None:
            raise InvalidRequest.at(f"external_tools.{index}.input_schema", fault)
    for index, name in enumerate(approval_tools):
        if name not in names:
            raise InvalidRequest.at(f"approval_tools.{index}", "There is no tool of this name.")


def _fault(schema: Mapping[str, Any]) -> str | None:
    import jsonschema  # a quarter of a second, which only those pay who bring tools

    if schema.get("type") != "object":
        return "The root of the schema must be of type object."
    if len(str(schema)) > MOST_SCHEMA_CHARACTERS:
        return f"The schema is longer than {MOST_SCHEMA_CHARACTERS} characters."
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return "This is not a JSON Schema (2020-12)."
    return None
