"""The door's check: what is let in can be judged; what is refused is told with its place."""

import time
from typing import Any

import pytest

from app.agent import schemas
from app.agent.extraction import extract
from app.errors import InvalidRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return {"type": "object", **schema}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": ["object"]},
        {"$schema": DIALECT, "$id": "https://example.invalid/s", "type": "object"},
        {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
        {"$ref": "#/definitions/a~1b%25", "definitions": {"a/b%": {"type": "object"}}},
        {"allOf": [{"minProperties": 1}, {"type": "object"}]},
        {"anyOf": [{"type": "object"}, {"$ref": "#/$defs/node"}], "$defs": {"node": NODE}},
        {"type": "object", "properties": {"any": True, "none": False, "same": {"$ref": "#/properties/any"}}},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#n"}, "b": {"$dynamicRef": "#d"}},
            "$defs": {"n": {"$anchor": "n"}, "d": {"$dynamicAnchor": "d"}},
        },
        {"type": "object", "properties": {"$ref": {"type": "string"}, "$schema": {"const": {"$ref": "http://a.invalid"}}}},
        {"type": "object", "properties": {str(n): {"type": "string"} for n in range(900)}},
        _nested(31),
    ],
)
def test_schema_that_can_be_judged_is_let_in(schema: dict[str, Any]) -> None:
    schemas.check(schema)

    assert "too large" not in (extract("{}", schema).fault or "")


@pytest.mark.parametrize(
    ("schema", "loc", "words"),
    [
        ({}, "", "The root must be a schema of objects"),
        ({"type": "array"}, "", "The root must be a schema of objects"),
        ({"type": ["object", "null"]}, "", "The root must be a schema of objects"),
        ({"properties": {}}, "", "The root must be a schema of objects"),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, "", "The root must be a schema of objects"),
        ({"anyOf": [{"type": "object"}, True]}, "", "The root must be a schema of objects"),
        ({"type": "objekt"}, ".type", "'objekt' is not valid"),
        ({"type": "object", "properties": []}, ".properties", "is not of type 'object'"),
        ({"type": "object", "required": [{}] * 9000}, ".required", "an array of strings"),
        ({"type": "object", "dependentRequired": {"a": [{}] * 9000}}, ".dependentRequired.a", "an array of strings"),
        ({"type": "object", "multipleOf": 0}, ".multipleOf", "0 is less than or equal"),
        ({"type": "object", "items": [{}]}, ".items", "is not of type 'object', 'boolean'"),
        ({"type": "object", "$ref": "https://example.invalid/a"}, ".$ref", "Nothing is fetched"),
        ({"type": "object", "$dynamicRef": "file:///etc/passwd"}, ".$dynamicRef", "Nothing is fetched"),
        ({"type": "object", "not": {"$ref": "other#/a"}}, ".not.$ref", "Nothing is fetched"),
        ({"type": "object", "$ref": 7}, ".$ref", "Nothing is fetched"),
        ({"type": "object", "$ref": "#/$defs/gone"}, ".$ref", "leads to no subschema"),
        ({"type": "object", "$ref": "#gone"}, ".$ref", "leads to no subschema"),
        ({"type": "object", "$ref": "#/properties", "properties": {}}, ".$ref", "leads to no subschema"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, ".$schema", "Only the root"),
        ({"type": "object", "not": {"$schema": DIALECT}}, ".not.$schema", "Only the root"),
        ({"type": "object", "not": {"$id": "a"}}, ".not.$id", "Only the root"),
        ({"type": "object", "dependencies": {}}, ".dependencies", "older draft"),
        ({"type": "object", "unevaluatedProperties": False}, ".unevaluatedProperties", "bounded time"),
        ({"type": "object", "$ref": "#"}, "", "refers to itself"),
        ({"type": "object", "anyOf": [{"not": {"$ref": "#"}}]}, "", "refers to itself"),
        ({"type": "object", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, ".$defs.a", "refers to itself"),
        ({"type": "object", "properties": {"a": {"pattern": r"(a)\1"}}}, ".properties.a.pattern", "backreference"),
        ({"type": "object", "patternProperties": {"(?=a)": {}}}, ".patternProperties.(?=a)", "looks ahead"),
        (
            {"type": "object", "patternProperties": {f"a{n}": {} for n in range(65)}},
            ".patternProperties.a64",
            "more than 64 patterns",
        ),
        ({"type": "object", "properties": {str(n): {} for n in range(1000)}}, "", "more than 1000 subschemas"),
        ({"type": "object", "enum": ["x" * 70_000]}, "", "larger than 65536 bytes"),
        ({"type": "object", "anyOf": [{"minimum": 1}] * 500}, "", "more than 500 subschemas at once"),
        (_nested(32), "", "nested deeper than 32"),
        (_nested(2000), "", "nested too deeply"),
        ({"type": "object", "x": {1, 2}}, "", "is not JSON"),
    ],
)
def test_schema_that_cannot_be_judged_is_refused_with_its_place(schema: dict[str, Any], loc: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        schemas.check(schema)

    errors: Any = refused.value.members["errors"]
    assert [error["loc"] for error in errors] == [f"output_schema{loc}"]
    assert words in errors[0]["msg"]
    assert len(errors[0]["msg"]) < 400


def test_references_that_double_are_counted_before_anything_is_judged() -> None:
    doubling = {f"n{n}": {"allOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(12)}

    with pytest.raises(InvalidRequest) as refused:
        schemas.check({"type": "object", "$ref": "#/$defs/n0", "$defs": {**doubling, "n12": {}}})

    assert "more than 500 subschemas at once" in str(refused.value.members)


@pytest.mark.parametrize("backwards", [False, True])
def test_long_chain_of_references_is_refused_wherever_it_is_entered(*, backwards: bool) -> None:
    chain = [(f"n{n}", {"$ref": f"#/$defs/n{n + 1}"}) for n in range(400)]
    chain.append(("n400", {}))

    with pytest.raises(InvalidRequest) as refused:
        schemas.check({"type": "object", "$defs": dict(reversed(chain) if backwards else chain)})

    assert "subschemas follow each other" in str(refused.value.members)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {f"p{n}": {"type": ["string", "null"], "title": "t" * 20} for n in range(900)}},
        {"type": "object", "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(900)}, "$defs": {"a": {}}},
        {"type": "object", "enum": [[]] * 20_000},
        {"type": "object", "patternProperties": {f"([^a]{{{900 + n}}})[b-y]*(a|b)*": {} for n in range(64)}},
    ],
)
def test_largest_schemas_are_answered_within_a_bound(schema: dict[str, Any]) -> None:
    began = time.process_time()

    schemas.check(schema)

    assert time.process_time() - began < 3
