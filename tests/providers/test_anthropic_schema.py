"""A caller's schema as Anthropic's JSON outputs take it: adapted with warnings, or not at all."""

from typing import Any

import pytest

from app.providers.anthropic import Anthropic
from app.providers.anthropic_schema import adapted

CLOSED = {"additionalProperties": False}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def test_schema_that_the_mode_knows_is_kept_as_it_is() -> None:
    part = an_object(day={"type": "string", "format": "date"}) | CLOSED
    schema = an_object(
        city={"type": "string", "description": "Where."},
        kind={"enum": ["a", 1, None]},
        days={"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 1},
        either={"anyOf": [{"type": "integer"}, {"type": "null"}]},
    )
    schema |= CLOSED | {"$defs": {"day": part}}

    native = Anthropic("http://127.0.0.1:9", None).native_schema(schema)

    assert native is not None
    assert (native.schema, native.warnings) == (schema, ())


def test_each_thing_that_is_lost_has_a_sentence() -> None:
    schema = an_object(
        age={"type": "integer", "minimum": 1, "default": 3},
        names={"type": "array", "items": {"type": "string", "pattern": "^a"}, "minItems": 2, "uniqueItems": True},
        mail={"type": "string", "format": "odd"},
        either={"oneOf": [{"type": "integer"}, {"const": "x"}]},
        maybe={"type": ["string", "null"], "maxLength": 3},
    )

    native = adapted(schema)

    assert native is not None
    assert list(native.warnings) == [
        "The model sends no properties at # other than those named.",
        "`minimum` at #/properties/age is not told to the model.",
        "`pattern` at #/properties/names/items is not told to the model.",
        "`minItems` at #/properties/names is not told to the model.",
        "`uniqueItems` at #/properties/names is not told to the model.",
        "`format` at #/properties/mail is not told to the model.",
        "`oneOf` at #/properties/either is `anyOf` for the model.",
        "`maxLength` at #/properties/maybe/0 is not told to the model.",
    ]
    assert (
        native.schema
        == an_object(
            age={"type": "integer"},
            names={"type": "array", "items": {"type": "string"}},
            mail={"type": "string"},
            either={"anyOf": [{"type": "integer"}, {"const": "x"}]},
            maybe={"anyOf": [{"type": "string"}, {"type": "null"}]},
        )
        | CLOSED
    )


TREE = {"$ref": "#/$defs/tree"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        an_object(any={}),
        an_object(any=True),
        an_object(list={"type": "array"}),
        an_object(odd={"type": "tuple"}),
        an_object(all={"allOf": [{"type": "string"}]}),
        an_object(deep={"enum": [{"x": 1}]}),
        an_object(none={"enum": []}),
        an_object(far={"$ref": "https://example.com/x.json"}),
        an_object(gone={"$ref": "#/$defs/gone"}),
        an_object(tree=TREE) | {"$defs": {"tree": an_object(left=TREE)}},
        an_object(x={"type": "string"}) | {"required": ["y"]},
        an_object(**{f"p{n}": {"type": "string"} for n in range(25)}) | {"required": []},
        an_object(**{f"p{n}": {"type": ["string", "null"]} for n in range(17)}),
    ],
    ids=str,
)
def test_schema_whose_meaning_the_mode_cannot_hold_is_not_sent(schema: dict[str, Any]) -> None:
    assert adapted(schema) is None
