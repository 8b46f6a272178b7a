"""The door's check of a caller's output schema: what is let in can be judged, without the network and in bounded work.

It looks for what the library would only meet while it judges: references that lead nowhere or round in circles, patterns that
cannot be run, schemas too large or too deep. What is not looked at here is left to the metaschema of JSON Schema 2020-12.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote

import orjson

from app.agent import patterns
from app.agent.judge import shorten
from app.errors import InvalidRequest

MOST_BYTES = 64 * 1024
MOST_DEPTH = 32  # levels of the schema's own JSON
MOST_SUBSCHEMAS = 1000
MOST_PATTERNS = 64
MOST_PER_VALUE = 500  # subschemas that one value of an answer is held against at once
MOST_CHAIN = 32  # subschemas one behind the other, without a step into the value

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ONE = frozenset({"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"})
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
_REFERENCES = ("$ref", "$dynamicRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")
_REFUSED = {
    "$recursiveRef": "belongs to an older draft; use $ref",
    "$recursiveAnchor": "belongs to an older draft; use $anchor",
    "$vocabulary": "is for metaschemas",
    "dependencies": "belongs to an older draft; use dependentRequired or dependentSchemas",
    "unevaluatedItems": "cannot be judged in bounded time; use items or prefixItems",
    "unevaluatedProperties": "cannot be judged in bounded time; use additionalProperties",
}

Path = tuple[str, ...]


def check(schema: Mapping[str, Any]) -> None:
    """Let a schema in, or say what is wrong with it.

    Raises:
        InvalidRequest: it is too large, not JSON Schema 2020-12, not of objects, or cannot be judged in bounded work without
            the network; `loc` begins with `output_schema` and names the place.
    """
    _check_size(schema)
    survey = _Survey(schema)
    survey.check_chains()
    _check_metaschema(schema)
    if not survey.is_of_objects(()):
        _refuse((), 'The root must be a schema of objects: "type": "object".')


@dataclass(frozen=True, slots=True)
class _Chain:
    """What one value is held against: `count` subschemas in all, at most `length` one behind the other."""

    count: int
    length: int


class _Survey:
    """All subschemas of a schema by their place, each looked at once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._places: dict[Path, Mapping[str, Any]] = {}
        self._anchors: dict[str, Path] = {}
        self._chains: dict[Path, _Chain | None] = {}
        self._patterns: set[str] = set()
        self._enter((), schema)

    def check_chains(self) -> None:
        """Refuse references that lead nowhere, and what would be judged in circles or too often.

        Raises:
            InvalidRequest: there is such a reference.
        """
        for path in self._places:
            self._chain(path, 0)

    def is_of_objects(self, path: Path) -> bool:
        """Say whether a subschema lets nothing but objects through, as far as its words show."""
        schema = self._places[path]
        if schema.get("type") in ("object", ["object"]):
            return True
        if any(self.is_of_objects(target) for target in self._targets(path)):
            return True
        if any(self.is_of_objects((*path, "allOf", str(n))) for n in range(len(schema.get("allOf", ())))):
            return True
        return any(
            all(self.is_of_objects((*path, word, str(n))) for n in range(len(schema[word])))
            for word in ("anyOf", "oneOf")
            if word in schema
        )

    def _enter(self, path: Path, schema: Any) -> None:
        if isinstance(schema, bool):
            schema = {}  # says nothing that could go wrong
        if not isinstance(schema, Mapping):
            return
        if len(self._places) >= MOST_SUBSCHEMAS:
            _refuse((), f"The schema has more than {MOST_SUBSCHEMAS} subschemas.")
        self._places[path] = schema
        _check_words(path, schema)
        self._note_anchors(path, schema)
        self._note_patterns(path, schema)
        for further, subschema in _subschemas(schema, _ONE | _MANY | _NAMED):
            self._enter((*path, *further), subschema)

    def _note_anchors(self, path: Path, schema: Mapping[str, Any]) -> None:
        for word in _ANCHORS:
            name = schema.get(word)
            if not isinstance(name, str):
                continue
            if self._anchors.setdefault(name, path) != path:
                _refuse((*path, word), "Another subschema has this anchor.")
            if "definitions" in path:
                _refuse((*path, word), "An anchor under definitions is not found; use $defs.")

    def _note_patterns(self, path: Path, schema: Mapping[str, Any]) -> None:
        named = schema.get("patternProperties")
        found = [((*path, "pattern"), schema.get("pattern"))]
        found += [((*path, "patternProperties", name), name) for name in (named if isinstance(named, Mapping) else ())]
        for place, pattern in found:
            if not isinstance(pattern, str) or pattern in self._patterns:
                continue
            self._patterns.add(pattern)
            if len(self._patterns) > MOST_PATTERNS:
                _refuse(place, f"The schema has more than {MOST_PATTERNS} patterns.")
            try:
                patterns.compile(pattern)
            except ValueError as error:
                _refuse(place, f"The pattern {shorten(str(error), 200)}.")

    def _chain(self, path: Path, depth: int) -> _Chain:
        if path in self._chains:
            known = self._chains[path]
            return known or _refuse(path, "The schema refers to itself without a step into a property or an item.")
        self._chains[path] = None
        inner = [self._chain(target, depth + 1) for target in self._in_place(path, depth)]
        chain = _Chain(1 + sum(each.count for each in inner), 1 + max((each.length for each in inner), default=0))
        if chain.count > MOST_PER_VALUE:
            _refuse(path, f"One value would be held against more than {MOST_PER_VALUE} subschemas at once.")
        if chain.length > MOST_CHAIN:
            _refuse(path, f"More than {MOST_CHAIN} subschemas follow each other without a step into the value.")
        self._chains[path] = chain
        return chain

    def _in_place(self, path: Path, depth: int) -> Iterator[Path]:
        if depth > MOST_CHAIN:
            _refuse(path, f"More than {MOST_CHAIN} subschemas follow each other without a step into the value.")
        yield from self._targets(path)
        for further, _ in _subschemas(self._places[path], _IN_PLACE):
            if (*path, *further) in self._places:
                yield (*path, *further)

    def _targets(self, path: Path) -> Iterator[Path]:
        for word in _REFERENCES:
            if word in self._places[path]:
                yield self._target((*path, word), self._places[path][word])

    def _target(self, place: Path, reference: Any) -> Path:
        if not isinstance(reference, str) or not reference.startswith("#"):
            _refuse(place, 'A reference stays inside the schema: it begins with "#". Nothing is fetched.')
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            return self._anchors[fragment] if fragment in self._anchors else _refuse(place, _LOST)
        target = tuple(part.replace("~1", "/").replace("~0", "~") for part in fragment.split("/")[1:])
        return target if target in self._places else _refuse(place, _LOST)


_LOST = "The reference leads to no subschema."


def _subschemas(schema: Mapping[str, Any], words: frozenset[str]) -> Iterator[tuple[Path, Any]]:
    for word, value in schema.items():
        if word not in words:
            continue
        if word in _ONE:
            yield (word,), value
        elif word in _MANY and isinstance(value, list):
            yield from (((word, str(number)), part) for number, part in enumerate(value))
        elif word in _NAMED and isinstance(value, Mapping):
            yield from (((word, name), part) for name, part in value.items())


def _check_size(schema: Mapping[str, Any]) -> None:
    if not isinstance(schema, Mapping):
        _refuse((), "A JSON Schema is an object.")
    try:
        size = len(orjson.dumps(schema))
    except TypeError:
        _refuse((), "The schema is not JSON, or is nested too deeply.")
    if size > MOST_BYTES:
        _refuse((), f"The schema is larger than {MOST_BYTES} bytes.")
    level: list[Any] = [schema]
    for _ in range(MOST_DEPTH):
        level = [part for value in level for part in _parts(value)]
    if level:
        _refuse((), f"The schema is nested deeper than {MOST_DEPTH}.")


def _parts(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, Mapping) else value
    yield from (part for part in inner if isinstance(part, Mapping | list))


def _check_words(path: Path, schema: Mapping[str, Any]) -> None:
    for word, reason in _REFUSED.items():
        if word in schema:
            _refuse((*path, word), f"This keyword {reason}.")
    if "$schema" in schema and (path or str(schema["$schema"]).removesuffix("#") != _DIALECT):
        _refuse((*path, "$schema"), f'Only the root may name a dialect, and only "{_DIALECT}".')
    if path and "$id" in schema:
        _refuse((*path, "$id"), "Only the root may have an $id.")
    for word in ("required", "type"):
        _check_texts((*path, word), schema.get(word))
    dependent = schema.get("dependentRequired")
    for name, texts in dependent.items() if isinstance(dependent, Mapping) else ():
        _check_texts((*path, "dependentRequired", name), texts)


def _check_texts(place: Path, texts: Any) -> None:
    """Refuse what the metaschema would compare each with each before it finds it wrong."""
    if isinstance(texts, list) and not all(isinstance(text, str) for text in texts):
        _refuse(place, "This must be an array of strings.")


def _check_metaschema(schema: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    try:
        error = next(iter(validator.iter_errors(schema)), None)
    except RecursionError:
        _refuse((), "The schema is nested too deeply.")
    if error is not None:
        _refuse(tuple(str(part) for part in error.absolute_path), f"{shorten(error.message, 200)}.")


def _refuse(path: Path, sentence: str) -> NoReturn:
    raise InvalidRequest.at(shorten(".".join(("output_schema", *path)), 300), sentence)
