"""Holds values against a caller's schema, with a bound on the work.

The library does the judging; every keyword it applies is paid for from a budget, in units of work and not of time, so that the
same answer gets the same verdict on a busy machine. Where the library runs `re`, or compares everything with everything, other
words stand in. Schemas come here after `schemas.check`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, TypeAlias

from app.agent import patterns
from app.agent.patterns import Pattern

MOST_UNITS = 400_000  # of work on one answer; a unit is about ten microseconds
MOST_FAULT_CHARACTERS = 300
_MOST_ERRORS = 20  # looked through for the one that says most
_CHARACTERS_PER_UNIT = 16  # of an error's text, which the library writes whether or not it is read
_PARTS_PER_UNIT = 8  # of values that are compared or looked through


class Spent(Exception):
    """The budget is used up; nothing is known of the value."""


class _Validator(Protocol):
    """What is used of the library's validator."""

    def descend(self, instance: Any, schema: Any, path: Any = None, schema_path: Any = None) -> Iterator[Any]:
        """Judge a part of a value by a part of the schema."""


_Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class Judge:
    """Judges values by one schema, out of one budget.

    `format` says what a string means and is not judged, as JSON Schema has it by default.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema import Draft202012Validator, validators
        from referencing import Registry

        self._units = MOST_UNITS
        self._patterns: dict[str, Pattern] = {}
        self._choices: dict[int, frozenset[Any]] = {}  # by the identity of the schema's list, which lives as long
        known: dict[str, _Keyword] = {**Draft202012Validator.VALIDATORS, **self._own_keywords()}
        paid = {name: self._paid(keyword) for name, keyword in known.items()}
        kind = validators.extend(Draft202012Validator, paid)  # type: ignore[no-untyped-call]
        # The library leaves this class for its own at a `$schema`, and resolves against an `$id`; neither says more here.
        plain = {name: value for name, value in schema.items() if name not in {"$schema", "$id"}}
        self._validator = kind(plain, registry=Registry())

    def fault(self, value: Any) -> str | None:
        """Say in one short sentence how a value breaks the schema; None where it does not.

        Raises:
            Spent: the value could not be judged within the budget.
        """
        from jsonschema.exceptions import best_match

        try:
            error = best_match(islice(self._validator.iter_errors(value), _MOST_ERRORS))
        except RecursionError as stopped:
            raise Spent from stopped
        if error is None:
            return None
        place = "/".join(str(part) for part in error.absolute_path)
        return f"At {shorten(place, 100)}: {_said(error)}" if place else _said(error)

    def spend(self, units: int) -> None:
        """Take work from the budget before it is done.

        Raises:
            Spent: there is not that much left.
        """
        self._units -= units
        if self._units < 0:
            raise Spent

    def _paid(self, keyword: _Keyword) -> _Keyword:
        def judged(validator: Any, expected: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self.spend(1 + (len(expected) // _PARTS_PER_UNIT if isinstance(expected, list | dict) else 0))
            for error in keyword(validator, expected, instance, schema) or ():
                self.spend(1 + len(error.message) // _CHARACTERS_PER_UNIT)
                yield error

        return judged

    def _own_keywords(self) -> Mapping[str, _Keyword]:
        return {
            "pattern": self._pattern,
            "patternProperties": self._pattern_properties,
            "additionalProperties": self._additional_properties,
            "uniqueItems": self._unique_items,
            "enum": self._enum,
            "const": self._const,
        }

    def _matches(self, pattern: str, text: str) -> bool:
        if pattern not in self._patterns:
            self._patterns[pattern] = patterns.compile(pattern)
        return self._patterns[pattern].is_in(text, self.spend)

    def _pattern(self, _validator: _Validator, pattern: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not self._matches(pattern, instance):
            yield _error(f"{instance!r} does not match {pattern!r}")

    def _pattern_properties(self, validator: _Validator, expected: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if isinstance(instance, dict):
            for pattern, subschema in expected.items():
                for name, value in instance.items():
                    if self._matches(pattern, name):
                        yield from validator.descend(value, subschema, path=name, schema_path=pattern)

    def _additional_properties(self, validator: _Validator, expected: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        named, matched = schema.get("properties", {}), schema.get("patternProperties", {})
        extras = [name for name in instance if name not in named and not any(self._matches(each, name) for each in matched)]
        if expected is False and extras:
            yield _error(f"Additional properties are not allowed: {', '.join(map(repr, extras))}")
        elif expected is not False:
            for name in extras:
                yield from validator.descend(instance[name], expected, path=name)

    def _unique_items(self, _validator: _Validator, expected: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if expected and isinstance(instance, list) and len({self._canonical(item) for item in instance}) != len(instance):
            yield _error(f"{instance!r} has the same item twice")

    def _enum(self, _validator: _Validator, expected: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if id(expected) not in self._choices:
            self._choices[id(expected)] = frozenset(self._canonical(choice) for choice in expected)
        if self._canonical(instance) not in self._choices[id(expected)]:
            yield _error(f"{instance!r} is not one of {', '.join(map(repr, expected))}")

    def _const(self, _validator: _Validator, expected: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if self._canonical(instance) != self._canonical(expected):
            yield _error(f"{instance!r} is not {expected!r}")

    def _canonical(self, value: Any) -> Any:
        """Write a value so that what JSON Schema calls equal is equal: 1 and 1.0 are, 1 and true are not."""
        if isinstance(value, list | dict):
            self.spend(1 + _size(value) // _PARTS_PER_UNIT)
            return json.dumps(_plain(value), sort_keys=True)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value, "number"
        return value, type(value)


def shorten(text: str, most: int) -> str:
    """Leave out the middle of a text that is too long: the end of an error says what is wrong."""
    if len(text) <= most:
        return text
    head = most // 3
    return f"{text[:head]} … {text[-(most - head - 3) :]}"


def _said(error: Any) -> str:
    return shorten(str(error.message), MOST_FAULT_CHARACTERS - 150)


def _error(message: str) -> Any:
    from jsonschema import ValidationError

    return ValidationError(message)


def _size(value: Any) -> int:
    """Count the values in a value, itself included."""
    if not isinstance(value, list | dict):
        return 1
    return 1 + sum(map(_size, value if isinstance(value, list) else value.values()))


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case list():
            return [_plain(part) for part in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value
