"""A caller's JSON Schema as Anthropic's JSON outputs take it.

The mode knows a part of JSON Schema and closes every object. What only narrows a value is dropped with a warning, since the
answer is validated against the whole schema anyway; where the adapted schema would leave no room for a right answer, there
is none.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from app.providers.base import NativeSchema

Json: TypeAlias = dict[str, Any]

MAX_OPTIONAL_PROPERTIES: Final = 24  # the vendor refuses a request with more
MAX_UNIONS: Final = 16  # likewise
MAX_DEPTH: Final = 64
FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
DEFINITIONS: Final = ("$defs", "definitions")
KEPT: Final = frozenset({"title", "description"})
READ: Final = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", *DEFINITIONS})
SILENT: Final = frozenset({"$schema", "$id", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly"})
# What says nothing about values of a type is no loss there.
OF_TYPE: Final = {
    "properties": "object", "required": "object", "additionalProperties": "object", "patternProperties": "object",
    "propertyNames": "object", "minProperties": "object", "maxProperties": "object", "dependentRequired": "object",
    "items": "array", "minItems": "array", "maxItems": "array", "uniqueItems": "array", "prefixItems": "array",
    "contains": "array", "pattern": "string", "minLength": "string", "maxLength": "string", "format": "string",
}  # fmt: skip


class _InexpressibleError(Exception):
    """The mode cannot hold the schema's meaning."""


def adapted(schema: Mapping[str, Any]) -> NativeSchema | None:
    """Return the schema as the mode takes it, with a sentence for each thing that it loses; None where it cannot be one."""
    adapter = _Adapter()
    try:
        root = adapter.whole(schema)
    except _InexpressibleError:
        return None
    if adapter.optional_count > MAX_OPTIONAL_PROPERTIES or adapter.union_count > MAX_UNIONS or _is_recursive(root):
        return None
    return NativeSchema(root, tuple(adapter.warnings))


class _Adapter:
    """Adapts one schema; counts what the vendor limits."""

    def __init__(self) -> None:
        self.warnings: dict[str, None] = {}  # in order, each once
        self.optional_count = 0
        self.union_count = 0

    def whole(self, schema: Mapping[str, Any]) -> Json:
        """Adapt the root with its definitions."""
        root = self._schema(schema, "#")
        for place in DEFINITIONS:
            if isinstance(schema.get(place), dict):
                root[place] = {name: self._schema(part, f"#/{place}/{name}") for name, part in schema[place].items()}
        return root

    def _schema(self, schema: object, at: str) -> Json:
        if not isinstance(schema, Mapping) or at.count("/") > 2 * MAX_DEPTH:
            raise _InexpressibleError
        if "$ref" in schema:
            return self._reference(schema, at)
        kept: Json = {name: schema[name] for name in KEPT if isinstance(schema.get(name), str)}
        if variants := self._variants(schema, at):
            self.union_count += 1
            return kept | {"anyOf": [self._schema(variant, f"{at}/{n}") for n, variant in enumerate(variants)]}
        if "enum" in schema or "const" in schema:
            return kept | self._literals(schema, at)
        return kept | self._typed(schema, at)

    def _reference(self, schema: Mapping[str, Any], at: str) -> Json:
        target = schema["$ref"]
        if not isinstance(target, str) or not target.startswith(tuple(f"#/{place}/" for place in DEFINITIONS)):
            raise _InexpressibleError
        self._drop(schema, at, schema.keys() - {"$ref", *DEFINITIONS})
        return {"$ref": target}

    def _variants(self, schema: Mapping[str, Any], at: str) -> list[Any]:
        """Return what the value may be one of; a list of types is one schema for each."""
        found = [name for name in ("anyOf", "oneOf") if name in schema]
        if "allOf" in schema or len(found) > 1 or (found and "properties" in schema):
            raise _InexpressibleError
        if found:
            if found == ["oneOf"]:
                self._warn(f"`oneOf` at {at} is `anyOf` for the model.")
            self._drop(schema, at, schema.keys() - READ)
            return list(schema[found[0]])
        types = schema.get("type")
        if not isinstance(types, list) or "enum" in schema or "const" in schema:
            return []
        rest = {name: value for name, value in schema.items() if name not in {*KEPT, *DEFINITIONS}}
        return [rest | {"type": kind} for kind in types]

    def _literals(self, schema: Mapping[str, Any], at: str) -> Json:
        name = "const" if "const" in schema else "enum"
        values = [schema["const"]] if name == "const" else schema["enum"]
        if not isinstance(values, list) or not values or any(isinstance(value, dict | list) for value in values):
            raise _InexpressibleError
        self._drop(schema, at, schema.keys() - READ)
        return {name: schema[name]}

    def _typed(self, schema: Mapping[str, Any], at: str) -> Json:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if kind not in TYPES:
            raise _InexpressibleError
        if kind == "object":
            shape = self._object(schema, at)
        elif kind == "array":
            shape = self._array(schema, at)
        else:
            shape = {"format": schema["format"]} if kind == "string" and schema.get("format") in FORMATS else {}
        dropped = {name for name in schema if OF_TYPE.get(name, kind) == kind} - READ - shape.keys()
        self._drop(schema, at, dropped - {"additionalProperties"})
        return {"type": kind} | shape

    def _object(self, schema: Mapping[str, Any], at: str) -> Json:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        is_closed = schema.get("additionalProperties") is False
        if set(required) - properties.keys() or not (properties or is_closed):
            raise _InexpressibleError
        if not is_closed:
            self._warn(f"The model sends no properties at {at} other than those named.")
        self.optional_count += len(properties.keys() - set(required))
        parts = {name: self._schema(part, f"{at}/properties/{name}") for name, part in properties.items()}
        return {"properties": parts, "required": list(required), "additionalProperties": False}

    def _array(self, schema: Mapping[str, Any], at: str) -> Json:
        if "items" not in schema:
            raise _InexpressibleError
        fewest = {"minItems": schema["minItems"]} if schema.get("minItems") in {0, 1} else {}
        return {"items": self._schema(schema["items"], f"{at}/items")} | fewest

    def _drop(self, schema: Mapping[str, Any], at: str, names: set[str]) -> None:
        for name in schema:
            if name in names and name not in KEPT | SILENT:
                self._warn(f"`{name}` at {at} is not told to the model.")

    def _warn(self, sentence: str) -> None:
        self.warnings[sentence] = None


def _is_recursive(root: Json) -> bool:
    """Whether a definition leads back to itself, or to one that is not there."""
    targets = {f"#/{place}/{name}": part for place in DEFINITIONS for name, part in root.get(place, {}).items()}
    done: set[str] = set()

    def leads_back(part: object, trail: tuple[str, ...]) -> bool:
        for target in _references(part):
            if target in trail or target not in targets:
                return True
            if target not in done and leads_back(targets[target], (*trail, target)):
                return True
            done.add(target)
        return False

    return leads_back({name: part for name, part in root.items() if name not in DEFINITIONS}, ()) or any(
        leads_back(part, (target,)) for target, part in targets.items()
    )


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for name, member in part.items():
            if name == "$ref" and isinstance(member, str):
                yield member
            else:
                yield from _references(member)
    elif isinstance(part, list):
        for member in part:
            yield from _references(member)
