"""Ids and names as vendors take them."""

import re

import pytest

from app.providers import names

ODD = ("", "b:1", "ü" * 90, "x" * 65, "a b", "call_a\n")


@pytest.mark.parametrize("own", ODD)
def test_odd_id_becomes_a_plain_one_that_is_always_the_same(own: str) -> None:
    made = names.call_id(own, most_characters=40)

    assert re.fullmatch(r"call_[0-9a-f]{32}", made)
    assert made == names.call_id(own, most_characters=40)


def test_odd_ids_stay_different() -> None:
    assert len({names.call_id(own) for own in ODD}) == len(ODD)


def test_plain_id_and_name_stay_as_they_are() -> None:
    assert names.call_id("toolu_01-A") == names.tool_name("toolu_01-A") == "toolu_01-A"


@pytest.mark.parametrize("own", ODD)
def test_name_is_of_characters_that_vendors_take(own: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", names.tool_name(own))
