"""The registry: tools by name, and arguments held against their schemas."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.tools.builtin import Datetime
from app.tools.registry import NONE, Registry
from tests.agent.doubles import Acting, echo

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture
def weather() -> Acting:
    """A tool with a schema."""
    return Acting(echo, "weather", schema=SCHEMA)


def test_tools_are_told_in_order_of_registration(weather: Acting) -> None:
    registry = Registry([weather, Datetime()])

    assert [spec.name for spec in registry.specs()] == list(registry.names()) == ["weather", "datetime"]


def test_tool_is_found_by_its_name_alone(weather: Acting) -> None:
    registry = Registry([weather])

    assert registry.find("weather") is weather
    assert registry.find("Weather") is None
    assert registry.find("") is None


@pytest.mark.parametrize("args", [{"city": "Paris"}, {"city": "", "days": []}, {"city": "\0", "days": [1, 2]}])
def test_arguments_that_match_have_no_fault(weather: Acting, args: dict[str, Any]) -> None:
    assert Registry([weather]).fault(weather, args) is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "'city' is a required property"),
        ({"city": 7}, "at city: 7 is not of type 'string'"),
        ({"city": "Paris", "days": [1, "two"]}, "at days/1: 'two' is not of type 'integer'"),
        ({"city": "Paris", "extra": None}, "Additional properties are not allowed ('extra' was unexpected)"),
    ],
)
def test_fault_is_one_sentence_that_names_the_place(weather: Acting, args: dict[str, Any], words: str) -> None:
    assert Registry([weather]).fault(weather, args) == words


def test_registry_that_was_prepared_judges_the_same(weather: Acting) -> None:
    registry = Registry([weather])

    registry.prepare()

    assert registry.fault(weather, {"city": 7}) == Registry([weather]).fault(weather, {"city": 7})


def test_registry_of_nothing_offers_nothing() -> None:
    assert (NONE.specs(), NONE.names(), NONE.find("datetime")) == ([], [], None)
