"""The registry: tools by name, and arguments held against their schemas."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from app.errors import StartupError
from app.tools.base import Tool
from app.tools.builtin import Datetime
from app.tools.registry import Registry
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
    assert (Registry([]).specs(), Registry([]).names(), Registry([]).find("datetime")) == ([], [], None)


class Shifting:
    """A source whose tools the test sets."""

    name = "files"

    def __init__(self, *names: str) -> None:
        self.names = names

    def tools(self) -> Sequence[Tool]:
        return [Acting(echo, f"{self.name}__{name}") for name in self.names]


def test_snapshot_has_the_tools_of_its_sources_and_stays_as_it_was(weather: Acting) -> None:
    source = Shifting("read", "list")
    registry = Registry([weather], [source])

    before = registry.snapshot()
    source.names = ("write",)

    assert before.names() == ["weather", "files__read", "files__list"]
    assert registry.snapshot().names() == ["weather", "files__write"]
    assert registry.names() == ["weather"]


def test_snapshot_judges_arguments_as_the_registry_does(weather: Acting) -> None:
    registry = Registry([weather], [Shifting("read")])
    registry.prepare()

    assert registry.snapshot().fault(weather, {"city": 7}) == registry.fault(weather, {"city": 7})


def test_names_that_are_given_twice_stop_the_start(weather: Acting) -> None:
    with pytest.raises(StartupError, match="named 'weather'"):
        Registry([weather, Acting(echo, "weather")])
    with pytest.raises(StartupError, match="named 'files'"):
        Registry([], [Shifting(), Shifting()])
    with pytest.raises(StartupError, match="'files__read' is named like one of 'files'"):
        Registry([Acting(echo, "files__read")], [Shifting()])


@pytest.mark.parametrize("ref", ["http://127.0.0.1:1/schema.json", "file:///etc/hostname", "#/$defs/none", "#"])
def test_schema_whose_references_lead_nowhere_refuses_the_call_and_fetches_nothing(ref: str) -> None:
    tool = Acting(echo, "odd", schema={"type": "object", "$ref": ref})

    assert Registry([tool]).fault(tool, {}) == "the schema itself cannot be applied; use another tool"
