"""Schemas of answers: strict where that keeps their meaning, as they are where it does not."""

from typing import Any

import orjson
import pytest

from app.messages import Message, Text
from app.providers.base import ModelRequest, NativeSchema
from app.providers.openai import BASE_URL, OpenAI
from app.providers.openai_responses import write_request
from app.providers.openai_schemas import is_strict
from tests.provider_double.openai_input import Issued, complaints, strict_complaints

STRING: dict[str, Any] = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def with_a(schema: Any) -> dict[str, Any]:
    return closed(a=schema)


def adapted(schema: dict[str, Any]) -> NativeSchema:
    native = OpenAI(BASE_URL, "k").native_schema(schema)
    assert native is not None
    return native


KEPT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it is": (closed(a=STRING), closed(a=STRING)),
    "open by silence": ({"type": "object", "properties": {"a": STRING}, "required": ["a"]}, closed(a=STRING)),
    "optional, but null will do": (
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"anyOf": [STRING, {"type": "null"}]}}},
        closed(a={"type": ["string", "null"]}, b={"anyOf": [STRING, {"type": "null"}]}),
    ),
    "enum without a type": (
        with_a({"enum": ["x", None, "y"]}), with_a({"type": ["null", "string"], "enum": ["x", None, "y"]}),
    ),
    "annotations": (
        {"$schema": "s", "title": "T", **with_a({"type": "integer", "default": 1, "examples": [2]})},
        {"title": "T", **with_a({"type": "integer"})},
    ),
    "objects within": (
        with_a({"type": "array", "items": {"type": "object", "properties": {"b": STRING}, "required": ["b"]}}),
        with_a({"type": "array", "items": closed(b=STRING)}),
    ),
    "reference at the root": (
        {"$ref": "#/$defs/T", "$defs": {"T": with_a({"type": "array", "items": {"$ref": "#/$defs/T"}})}},
        {
            **with_a({"type": "array", "items": {"$ref": "#/$defs/T"}}),
            "$defs": {"T": with_a({"type": "array", "items": {"$ref": "#/$defs/T"}})},
        },
    ),
    "reference with a title": (
        {**with_a({"title": "A", "allOf": [{"$ref": "#/$defs/S"}]}), "$defs": {"S": STRING}},
        {**with_a({"$ref": "#/$defs/S"}), "$defs": {"S": STRING}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_schema_that_keeps_its_meaning_is_strict_without_a_warning(name: str) -> None:
    given, expected = KEPT[name]

    assert adapted(given) == NativeSchema(expected, ())
    assert list(strict_complaints(expected)) == []
    assert is_strict(expected)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "string", "minLength": 1}, "minLength"),
        ({"type": "string", "format": "uri"}, "format"),
        ({"type": "array", "items": STRING, "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "not": {"const": 3}}, "not"),
        ({"oneOf": [STRING, {"type": "null"}]}, "oneOf"),
        ({"type": "string", "x-" + "y" * 100: 1}, "x-y"),
    ],
)
def test_keyword_that_only_narrows_is_left_out_with_a_warning(schema: dict[str, Any], word: str) -> None:
    native = adapted(with_a(schema))

    [warning] = native.warnings
    assert word in warning
    assert "/properties/a" in warning
    assert len(warning) < 200
    assert list(strict_complaints(native.schema)) == []
    assert is_strict(native.schema)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "object", "properties": {"b": STRING}}, "optional"),
        ({"type": "object"}, "does not name"),
        ({"type": ["object", "null"]}, "does not name"),
        ({"type": "object", "additionalProperties": STRING}, "does not name"),
        ({**closed(b=STRING), "additionalProperties": True}, "does not name"),
        ({**closed(b=STRING), "required": ["b", "c"]}, "does not describe"),
        ({}, "what shape"),
        (True, "what shape"),
        ({"enum": [[1]]}, "what shape"),
        ({"type": "array"}, "what its items are"),
        ({"type": "object", "allOf": [closed(b=STRING), closed(c=STRING)], **closed()}, "allOf"),
        ({**closed(b=STRING), "patternProperties": {"^x": STRING}}, "patternProperties"),
        ({"$ref": "https://example.org/schema"}, "reference"),
        ({"$ref": "#/$defs/nowhere"}, "reference"),
        ({"$ref": "#", "minLength": 1}, "reference"),
        ({"enum": [str(number) for number in range(1001)]}, "limits"),
    ],
)
def test_schema_of_another_shape_is_sent_whole_and_not_strict_with_a_warning(schema: Any, word: str) -> None:
    native = adapted(with_a(schema))

    assert native.schema == with_a(schema)
    assert any(word in warning for warning in native.warnings)
    assert not is_strict(native.schema)


@pytest.mark.parametrize(
    "schema", [{"type": "array", "items": STRING}, {"anyOf": [closed(), closed(a=STRING)]}, {}, {"type": "object", "anyOf": []}]
)
def test_root_that_no_mode_takes_has_no_native_schema(schema: dict[str, Any]) -> None:
    assert OpenAI(BASE_URL, "k").native_schema(schema) is None


@pytest.mark.parametrize(("schema", "expected"), [(closed(a=STRING), True), (with_a({}), False)])
def test_request_says_whether_its_schema_is_strict(schema: dict[str, Any], expected: bool) -> None:
    request = ModelRequest("m", None, [Message("user", (Text("Hi"),))], output_schema=adapted(schema).schema)

    body = orjson.loads(write_request(request))

    assert body["text"]["format"]["strict"] is expected
    assert list(complaints(body, Issued())) == []
