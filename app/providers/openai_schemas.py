"""Schemas of answers as OpenAI's strict mode takes them, or as they are where it cannot say the same.

Strict mode knows closed objects whose properties are all required, and a part of JSON Schema's keywords. A keyword that
only narrows is left out, with a warning, since the answer is checked against the whole schema anyway; where the shape itself
cannot be said, the schema is sent as it is and the vendor does its best.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from app.providers.base import NativeSchema

Json: TypeAlias = dict[str, Any]

MAX_DEPTH: Final = 10
MAX_PROPERTIES: Final = 5000
MAX_ENUM_VALUES: Final = 1000
KEY_CHARACTERS: Final = 64
NOT_AT_THE_ROOT: Final = frozenset({"anyOf", "oneOf", "allOf", "enum", "const", "not", "if"})
KEPT: Final = frozenset(
    {"type", "enum", "const", "title", "description", "pattern", "multipleOf", "minimum", "maximum"}
    | {"exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}
)
ANNOTATIONS: Final = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$id", "$comment"}
)
OF_SHAPE: Final = frozenset(
    {"allOf", "patternProperties", "prefixItems", "additionalItems", "unevaluatedProperties", "unevaluatedItems"}
    | {"definitions", "$dynamicRef", "$anchor", "$dynamicAnchor"}
)
OF_OBJECTS: Final = frozenset({"properties", "required", "additionalProperties"})
OF_OTHER_SHAPES: Final = frozenset({"anyOf", "oneOf", "properties"} | OF_SHAPE)
FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def adapt(schema: Mapping[str, Any]) -> NativeSchema | None:
    """Return a schema for the vendor's schema mode; None where its root is not a plain object, which no mode takes.

    Args:
        schema: valid by the meta-schema of draft 2020-12.
    """
    root = _resolved(schema)
    if root.get("type") != "object" or not NOT_AT_THE_ROOT.isdisjoint(root):
        return None
    walk = _Walk(root)
    adapted = walk.schema(root, "", 0)
    return NativeSchema(root, tuple(walk.obstacles)) if walk.obstacles else NativeSchema(adapted, tuple(walk.left_out))


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether strict mode takes a schema as it is."""
    walk = _Walk(schema)
    return walk.schema(dict(schema), "", 0) == schema and not walk.obstacles


def _resolved(schema: Mapping[str, Any]) -> Json:
    """Put in the place of a root that only refers to a definition what it refers to."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    target = schema.get("$defs", {}).get(name) if "$ref" in schema else None
    if not isinstance(target, dict):
        return dict(schema)
    return {**target, "$defs": schema["$defs"]}


class _Walk:
    """One pass over a schema; `obstacles` are why strict mode cannot say it, `left_out` what it says less of."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._references = {"#", *(f"#/$defs/{name}" for name in root.get("$defs", ()))}
        self.obstacles: list[str] = []
        self.left_out: list[str] = []
        self._properties = 0
        self._enum_values = 0
        self._handlers: dict[str, Callable[[Json, str, int], Json]] = {
            "items": lambda node, path, depth: {"items": self.schema(node["items"], f"{path}/items", depth + 1)},
            "anyOf": lambda node, path, depth: {"anyOf": self._each(node["anyOf"], f"{path}/anyOf", depth)},
            "oneOf": self._one_of,
            "$defs": self._definitions,
            "format": self._format,
        }

    def schema(self, given: object, path: str, depth: int) -> Json:
        """Return a schema adapted; what stands in the way is noted."""
        if not isinstance(given, dict):
            self._hinder(path, "does not say what shape it allows")
            return {}
        node = _without_single_all_of(given)
        if "$ref" in node:
            return self._reference(node, path)
        self._check_size(node, path, depth)
        adapted = self._types(node, path)
        for keyword, value in node.items():
            if handler := self._handlers.get(keyword):
                adapted |= handler(node, path, depth)
            elif keyword in KEPT:
                adapted[keyword] = value
            elif keyword not in ANNOTATIONS and keyword not in OF_OBJECTS:
                self._miss(keyword, path)
        return adapted | self._object(node, path, depth)

    def _types(self, node: Json, path: str) -> Json:
        """Give a type to what has none, where its values tell it."""
        if "type" in node or not OF_OTHER_SHAPES.isdisjoint(node):
            if node.get("type") == "array" and "items" not in node:
                self._hinder(path, "does not say what its items are")
            return {}
        values = node.get("enum", [node["const"]] if "const" in node else [])
        types = sorted({TYPES.get(type(value), "") for value in values})
        if not types or "" in types:
            self._hinder(path, "does not say what shape it allows")
        return {"type": types[0] if len(types) == 1 else types}

    def _object(self, node: Json, path: str, depth: int) -> Json:
        if "properties" not in node and "object" not in _listed(node.get("type")):
            return {}
        properties, required = node.get("properties", {}), node.get("required", [])
        if node.get("additionalProperties", not properties) is not False:
            self._hinder(path, "allows properties that it does not name")
        if not set(required) <= properties.keys():
            self._hinder(path, "requires properties that it does not describe")
        for name, schema in properties.items():
            if name not in required and not _may_be_null(schema):
                self._hinder(_under(path, name), "is optional")
        adapted = {name: self.schema(schema, _under(path, name), depth + 1) for name, schema in properties.items()}
        return {"properties": adapted, "required": list(properties), "additionalProperties": False}

    def _reference(self, node: Json, path: str) -> Json:
        """Return a reference, beside which strict mode takes nothing."""
        if node["$ref"] not in self._references or node.keys() - ANNOTATIONS - {"$ref"}:
            self._hinder(path, "is more than a reference to the root or one of its $defs")
        return {"$ref": node["$ref"]}

    def _each(self, schemas: list[Any], path: str, depth: int) -> list[Json]:
        return [self.schema(schema, f"{path}/{position}", depth) for position, schema in enumerate(schemas)]

    def _one_of(self, node: Json, path: str, depth: int) -> Json:
        if "anyOf" in node:
            self._hinder(path, "has both anyOf and oneOf")
        self.left_out.append(f"The provider takes oneOf at {_place(path)} as anyOf; the answer is checked for it afterwards.")
        return {"anyOf": self._each(node["oneOf"], f"{path}/oneOf", depth)}

    def _definitions(self, node: Json, path: str, _depth: int) -> Json:
        return {"$defs": {name: self.schema(node, f"{path}/$defs/{name}", 0) for name, node in node["$defs"].items()}}

    def _format(self, node: Json, path: str, _depth: int) -> Json:
        if node["format"] in FORMATS:
            return {"format": node["format"]}
        self._miss("this format", path)
        return {}

    def _check_size(self, node: Json, path: str, depth: int) -> None:
        self._properties += len(node.get("properties", ()))
        self._enum_values += len(node.get("enum", ()))
        if depth > MAX_DEPTH or self._properties > MAX_PROPERTIES or self._enum_values > MAX_ENUM_VALUES:
            self._hinder(path, "is beyond the vendor's limits of depth, properties or enum values")

    def _miss(self, keyword: str, path: str) -> None:
        name, place = keyword[:KEY_CHARACTERS], _place(path)
        if keyword in OF_SHAPE:
            self._hinder(path, f"uses {name}")
        self.left_out.append(f"The provider is not told {name} at {place}; the answer is checked for it afterwards.")

    def _hinder(self, path: str, why: str) -> None:
        self.obstacles.append(f"The provider does not hold its answer to the schema strictly, since {_place(path)} {why}.")


def _without_single_all_of(node: Json) -> Json:
    """Put in the place of an `allOf` of one schema that schema, as generators write it around references."""
    parts = node.get("allOf")
    if (
        not isinstance(parts, list)
        or len(parts) != 1
        or node.keys() - ANNOTATIONS - {"allOf"}
        or not isinstance(parts[0], dict)
    ):
        return node
    return {**{name: value for name, value in node.items() if name != "allOf"}, **parts[0]}


def _may_be_null(schema: object) -> bool:
    """Whether a property may be required without forcing a value on it."""
    if not isinstance(schema, dict):
        return False
    return "null" in _listed(schema.get("type")) or any(map(_may_be_null, schema.get("anyOf", ())))


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _under(path: str, name: str) -> str:
    return f"{path}/properties/{name[:KEY_CHARACTERS]}"


def _place(path: str) -> str:
    return path or "the root"
