"""What of a JSON Schema the vendor's mode is given, and what the caller is told of the rest."""

from typing import Any

from app.providers.gemini_schema import adapt

STRING = {"type": "string"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_what_the_mode_knows_stays_without_a_warning() -> None:
    schema = of(
        city={"type": ["string", "null"], "format": "date", "title": "City", "description": "Where."},
        sizes={"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 3},
        kind={"enum": ["a", 1, 2.5]},
        pair={"type": "array", "prefixItems": [STRING, {"type": "number"}], "items": False},
        either={"anyOf": [STRING, {"type": "integer"}]},
        anything=True,
    ) | {"required": ["city"], "additionalProperties": False}

    adapted = adapt(schema)

    assert adapted.schema == schema | {"properties": schema["properties"] | {"anything": {}}}
    assert adapted.warnings == ()


def test_each_keyword_that_is_left_out_is_told_once_with_its_places() -> None:
    schema = of(a=STRING | {"pattern": "x", "minLength": 2}, b=STRING | {"pattern": "y"}, c=False, d={"enum": [True, None]})

    adapted = adapt(schema)

    assert adapted.schema == of(a=STRING, b=STRING, c={}, d={})
    assert adapted.warnings == (
        "Gemini's schema mode cannot express `pattern`, so it was left out at #/properties/a, #/properties/b.",
        "Gemini's schema mode cannot express `minLength`, so it was left out at #/properties/a.",
        "Gemini's schema mode cannot express `false`, so it was left out at #/properties/c.",
        "Gemini's schema mode cannot express `enum`, so it was left out at #/properties/d.",
    )


def test_one_of_is_read_as_any_of_and_a_constant_as_an_enum() -> None:
    adapted = adapt({"$schema": "x", **of(a={"oneOf": [STRING, {"const": 5}]}), "default": {}})

    assert adapted.schema == of(a={"oneOf": [STRING, {"enum": [5]}]})
    assert adapted.warnings == ("Gemini reads `oneOf` as `anyOf` at #/properties/a.",)


def test_references_lead_to_definitions_alone() -> None:
    schema = of(
        a={"$ref": "#/definitions/city", "description": "Where."},
        b={"$ref": "#/$defs/city", "minLength": 2},
        c={"$ref": "#/properties/a"},
        d={"$ref": "https://example.org/schema"},
    )

    adapted = adapt(schema | {"definitions": {"city": STRING}})

    city = {"$ref": "#/$defs/city"}
    assert adapted.schema == of(a=city, b=city, c={}, d={}) | {"$defs": {"city": STRING}}
    assert [warning.partition(", so")[0] for warning in adapted.warnings] == [
        "Gemini's schema mode cannot express `minLength`",
        "Gemini's schema mode cannot express `$ref`",
    ]


def test_recursion_stays_only_where_a_property_may_be_absent() -> None:
    ref = {"$ref": "#/$defs/node"}
    node = of(next=ref, children={"type": "array", "items": ref}) | {"required": ["children"]}

    adapted = adapt(of(root=ref) | {"required": ["root"], "$defs": {"node": node}})

    opened = of(next=ref, children={"type": "array", "items": {}}) | {"required": ["children"]}
    assert adapted.schema == of(root=ref) | {"required": ["root"], "$defs": {"node": opened}}
    assert len(adapted.warnings) == 1
