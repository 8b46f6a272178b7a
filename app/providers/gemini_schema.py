"""A caller's JSON Schema as Gemini's schema mode takes it: a part of JSON Schema, references to `$defs` alone.

A thing that the mode does not know is left out, never guessed: the adapted schema accepts at least what the caller's accepts.

Source: https://ai.google.dev/api/generate-content#GenerationConfig (`responseJsonSchema`)
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from app.providers.base import NativeSchema

Json: TypeAlias = dict[str, Any]

DEFS: Final = "#/$defs/"
PLAIN: Final = frozenset({
    "type",
    "format",
    "title",
    "description",
    "required",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "propertyOrdering",
})
SUBSCHEMA: Final = frozenset({"items", "additionalProperties"})
SUBSCHEMAS: Final = frozenset({"prefixItems", "anyOf", "oneOf"})
ABOUT_THE_SCHEMA: Final = frozenset({"$schema", "$id", "$anchor", "$comment", "default", "examples", "deprecated", "readOnly"})
PLACES_SHOWN: Final = 3


def adapt(schema: Mapping[str, Any]) -> NativeSchema:
    """Return the schema that the mode takes, and one warning for each keyword that it cannot express."""
    adapter = _Adapter({**_object(schema.get("definitions")), **_object(schema.get("$defs"))})
    adapted = adapter.schema(schema, "#", is_optional=False)
    if definitions := adapter.definitions():
        adapted["$defs"] = definitions
    return NativeSchema(adapted, adapter.warnings())


class _Adapter:
    """Walks one schema and notes what it leaves out."""

    def __init__(self, definitions: Json) -> None:
        self._definitions = definitions
        self._recursive = {name for name in definitions if name in self._reachable(name)}
        self._left_out: dict[str, list[str]] = {}

    def definitions(self) -> Json:
        return {name: self.schema(body, f"{DEFS}{name}", is_optional=False) for name, body in self._definitions.items()}

    def warnings(self) -> tuple[str, ...]:
        return tuple(_sentence(keyword, places) for keyword, places in self._left_out.items())

    def schema(self, schema: object, place: str, *, is_optional: bool) -> Json:
        """Adapt one schema.

        Args:
            is_optional: whether a property that may be absent stands around it, where a recursive reference is allowed.
        """
        if not isinstance(schema, Mapping):
            return {} if schema is True else self._without("false", place)
        if "$ref" in schema:
            return self._reference(schema, place, is_optional=is_optional)
        adapted: Json = {}
        for keyword, value in schema.items():
            if keyword in PLAIN:
                adapted[keyword] = value
            elif keyword == "properties":
                adapted[keyword] = self._properties(schema, place, is_optional=is_optional)
            else:
                adapted |= self._applied(keyword, value, place, is_optional=is_optional)
        return adapted

    def _applied(self, keyword: str, value: Any, place: str, *, is_optional: bool) -> Json:
        if keyword in SUBSCHEMA:
            return {
                keyword: value if isinstance(value, bool) else self.schema(value, f"{place}/{keyword}", is_optional=is_optional)
            }
        if keyword in SUBSCHEMAS:
            places = ((f"{place}/{keyword}/{number}", entry) for number, entry in enumerate(value))
            if keyword == "oneOf":
                self._note(keyword, place)
            return {keyword: [self.schema(entry, at, is_optional=is_optional) for at, entry in places]}
        if keyword in {"enum", "const"}:
            return self._values(keyword, [value] if keyword == "const" else value, place)
        if keyword not in ABOUT_THE_SCHEMA and not (place == "#" and keyword in {"$defs", "definitions"}):
            self._note(keyword, place)
        return {}

    def _properties(self, schema: Mapping[str, Any], place: str, *, is_optional: bool) -> Json:
        required = schema.get("required") or ()
        return {
            name: self.schema(entry, f"{place}/properties/{name}", is_optional=is_optional or name not in required)
            for name, entry in schema["properties"].items()
        }

    def _values(self, keyword: str, values: list[Any], place: str) -> Json:
        """Write what may stand as `enum`, which the mode knows for strings and numbers alone."""
        if all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values):
            return {"enum": values}
        return self._without(keyword, place)

    def _reference(self, schema: Mapping[str, Any], place: str, *, is_optional: bool) -> Json:
        """Write a reference, beside which nothing else may stand."""
        for keyword in schema.keys() - {"$ref"} - ABOUT_THE_SCHEMA - {"title", "description"}:
            if place != "#" or keyword not in {"$defs", "definitions"}:
                self._note(keyword, place)
        name = _referred(schema["$ref"])
        if name not in self._definitions or (name in self._recursive and not is_optional and place.startswith(DEFS)):
            return self._without("$ref", place)
        return {"$ref": DEFS + name}

    def _without(self, keyword: str, place: str) -> Json:
        self._note(keyword, place)
        return {}

    def _note(self, keyword: str, place: str) -> None:
        self._left_out.setdefault(keyword, []).append(place)

    def _reachable(self, name: str) -> set[str]:
        """Return the definitions that this one refers to, itself among them where it is recursive."""
        reached: set[str] = set()
        open_names = [name]
        while open_names:
            found = {_referred(ref) for ref in _references(self._definitions.get(open_names.pop()))} - reached
            reached |= found
            open_names += found
        return reached


def _references(schema: object) -> Iterator[object]:
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for entry in schema:
            yield from _references(entry)


def _referred(reference: object) -> str:
    """Return the definition's name; empty where the reference leads elsewhere."""
    for beginning in (DEFS, "#/definitions/"):
        if isinstance(reference, str) and reference.startswith(beginning):
            return reference.removeprefix(beginning)
    return ""


def _object(value: object) -> Json:
    return dict(value) if isinstance(value, Mapping) else {}


def _sentence(keyword: str, places: list[str]) -> str:
    shown = ", ".join(places[:PLACES_SHOWN]) + (", …" if len(places) > PLACES_SHOWN else "")
    if keyword == "oneOf":
        return f"Gemini reads `oneOf` as `anyOf` at {shown}."
    return f"Gemini's schema mode cannot express `{keyword}`, so it was left out at {shown}."
