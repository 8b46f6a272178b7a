"""Answers as values: found in a model's words, parsed strictly, held against a schema within a bound."""

import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from jsonschema import Draft202012Validator

from app.agent import extraction, schemas
from app.agent.extraction import extract

CITY: Mapping[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city"],
    "additionalProperties": False,
}
PARIS = '{"city": "Paris"}'
ANY: Mapping[str, Any] = {"type": "object"}
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-3, 3) | some.floats(-2, 2) | some.text(max_size=3),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "answer",
    [
        PARIS,
        f"\n  {PARIS}\n",
        f"```json\n{PARIS}\n```",
        f"```\n{PARIS}\n```\n",
        f"Here it is:\n\n  ```JSON\n{PARIS}\n  ```\nAnything else?",
        f"The answer is {PARIS}, I think.",
        f"```json {PARIS} ```",
        f"```json\n{PARIS}",
        f'Not this:\n```json\n{{"town": 1}}\n```\nbut this:\n```json\n{PARIS}\n```',
        f"```json\n{PARIS}\n```\nNot like:\n```json\n{{}}\n```",
        f"```python\nprint({{1}})\n```\n```\n{PARIS}\n```",
    ],
)
def test_value_is_found_in_an_answer(answer: str) -> None:
    assert extract(answer, CITY) == extraction.Extracted({"city": "Paris"}, None)


def test_fence_inside_a_string_is_no_fence() -> None:
    assert extract('{"city": "```json\\n{}\\n```"}', CITY).value == {"city": "```json\n{}\n```"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "The answer has no JSON object."),
        ("I do not know.", "The answer is not strict JSON: Expecting value"),
        ('{"city": "Par', "The answer is not strict JSON: Unterminated string"),
        ('{"city": "Paris",}', "The answer is not strict JSON: "),
        ('{"city": "a", "city": "b"}', "an object has the key 'city' twice"),
        ('{"city": NaN}', "NaN is not JSON"),
        ('{"city": -Infinity}', "-Infinity is not JSON"),
        ('{"city": 1e999}', "a number does not fit into a double"),
        ('{"city": 9223372036854775808}', "a number does not fit into 64 bits"),
        ('{"city": ' + "1" * 5000 + "}", "a number does not fit into 64 bits"),
        ('{"city": "\\ud800"}', "a string has half a surrogate pair"),
        ('{"city": "\ud800"}', "a string has half a surrogate pair"),
        ('{"city": ' + "[" * 100_000, "it is nested deeper than 64"),
        ("{}", "'city' is a required property"),
        ("[]", "[] is not of type 'object'"),
        ('{"city": 7}', "At city: 7 is not of type 'string'"),
        ('{"city": "Paris", "days": [1, "two"]}', "At days/1: 'two' is not of type 'integer'"),
        ('{"city": "Paris", "extra": null}', "Additional properties are not allowed: 'extra'"),
        ('{"city": "' + "x" * 2**20 + '"}', "The answer is longer than 1048576 bytes."),
    ],
)
def test_fault_is_short_and_says_what_is_wrong(answer: str, words: str) -> None:
    found = extract(answer, CITY)

    assert found.value is None
    assert found.fault is not None
    assert words in found.fault
    assert len(found.fault) <= 300


def test_fault_about_a_long_value_still_says_what_is_wrong() -> None:
    found = extract(orjson.dumps({"city": ["x" * 9000]}).decode(), CITY)

    assert found.fault is not None
    assert found.fault.endswith("is not of type 'string'")
    assert len(found.fault) <= 300


def test_number_of_64_bits_is_kept_as_it_is() -> None:
    assert extract('{"n": [9223372036854775807, -9223372036854775808]}', ANY).value == {"n": [2**63 - 1, -(2**63)]}


def test_instruction_and_correction_carry_schema_and_fault() -> None:
    assert orjson.loads(extraction.instruction(CITY).rpartition("\n")[2]) == CITY
    assert "At city: 7 is not of type 'string'" in extraction.correction("At city: 7 is not of type 'string'")


@given(
    some.dictionaries(some.text(max_size=5), VALUES, max_size=4),
    some.sampled_from(["{}", "```json\n{}\n```", "So: {} - done."]),
)
def test_whatever_object_was_written_is_read_again(value: dict[str, Any], frame: str) -> None:
    assert extract(frame.replace("{}", orjson.dumps(value).decode()), ANY).value == value


@given(some.text(alphabet='{}[]"`\\,:1ae \nu', max_size=80))
def test_no_answer_makes_it_raise(answer: str) -> None:
    found = extract(answer, CITY)

    assert (found.value is None) != (found.fault is None)


@given(VALUES, VALUES)
@settings(max_examples=200)
def test_own_keywords_judge_as_the_library_does(value: Any, other: Any) -> None:
    answer = {"one": value, "two": [value, other, 1, True, [1], [1.0]], "x1": other}
    schema = {
        "type": "object",
        "properties": {"one": {"anyOf": [{"enum": [other, 1]}, {"const": other}]}, "two": {"uniqueItems": True}},
        "patternProperties": {"^x": {"const": value}},
        "additionalProperties": False,
    }

    found = extract(orjson.dumps(answer).decode(), schema)

    assert (found.fault is None) == Draft202012Validator(schema).is_valid(answer)


def test_names_that_match_no_pattern_are_additional() -> None:
    schema = {
        "type": "object",
        "patternProperties": {"^x-[a-z]+$": {"type": "integer"}},
        "additionalProperties": {"type": "null"},
    }
    schemas.check(schema)

    assert extract('{"x-a": 1, "y": null}', schema).fault is None
    assert extract('{"x-a": "1"}', schema).fault == "At x-a: '1' is not of type 'integer'"
    assert extract('{"x-1": 1}', schema).fault == "At x-1: 1 is not of type 'null'"


def test_recursive_schema_with_dialect_and_id_is_judged_without_the_network() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.invalid/node",
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"$ref": "#n"}}},
            "n": {"$anchor": "n", "maximum": 3},
        },
    }
    schemas.check(schema)

    assert extract('{"next": {"next": {"n": 3}}}', schema).fault is None
    assert extract('{"next": {"next": {"n": 4}}}', schema).fault == "At next/next/n: 4 is greater than the maximum of 3"


def _doubling(levels: int) -> dict[str, Any]:
    again = {"properties": {"a": {"$ref": "#"}}}
    return {"type": "object", "allOf": [again] * levels}


SELF: dict[str, Any] = {"additionalProperties": {"$ref": "#"}}
HEAVY: list[tuple[dict[str, Any], Any]] = [
    ({"type": "object", "allOf": [SELF] * 3, **SELF}, '{"a":' * 60 + "{}" + "}" * 60),
    (_doubling(20), '{"a":' * 60 + "1" + "}" * 60),
    ({"type": "object", "additionalProperties": {"uniqueItems": True}}, orjson.dumps({"a": [{}] * 300_000}).decode()),
    (
        {"type": "object", "additionalProperties": {"anyOf": [{"minItems": 10**9}] * 400}},
        orjson.dumps({"a": [0] * 500_000}).decode(),
    ),
    (
        {"type": "object", "patternProperties": {f"^(a|b{n})*c": {} for n in range(64)}},
        orjson.dumps({f"{n}": 0 for n in range(100_000)}).decode(),
    ),
    (
        {"type": "object", "additionalProperties": {"pattern": "[^a]{990}[^b]{990}x"}},
        orjson.dumps({"a": "".join(map(chr, range(0xE000, 0xFFFF))) * 30}).decode(),
    ),
    (
        {"type": "object", "additionalProperties": {"items": {"enum": list(range(10_000))}}},
        orjson.dumps({"a": [-1] * 300_000}).decode(),
    ),
    (
        {"type": "object", "additionalProperties": {"allOf": [{"const": [0] * 9_000}] * 3}},
        orjson.dumps({str(n): [0] * 8_999 for n in range(50)}).decode(),
    ),
]


@pytest.mark.parametrize(("schema", "answer"), HEAVY)
def test_worst_answers_are_given_up_within_a_bound(schema: dict[str, Any], answer: str) -> None:
    schemas.check(schema)
    began = time.process_time()

    found = extract(answer, schema)

    assert found.fault is not None
    assert time.process_time() - began < 15


def test_large_but_honest_answer_is_judged_whole() -> None:
    places = [{"city": f"City {n}", "days": [n, n + 1]} for n in range(5_000)]
    schema = {"type": "object", "properties": {"places": {"type": "array", "items": CITY, "uniqueItems": True}}}

    assert extract(orjson.dumps({"places": places}).decode(), schema).value == {"places": places}
