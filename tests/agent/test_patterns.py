"""Patterns: what they match, what is refused, and that none of them takes its time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from app.agent import patterns


def _is_in(pattern: str, text: str) -> bool:
    return patterns.compile(pattern).is_in(text, lambda units: None)


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("", ["", "a"], []),
        ("b", ["b", "abc"], ["", "a"]),
        ("^[a-z0-9]+(?:-[a-z0-9]+)*$", ["a", "a-b-9"], ["", "-a", "a--b", "a-", "a\n"]),
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", ["a@b.c", "a@b.c.d"], ["a@b", "a@@b.c", "a @b.c"]),
        (r"^\d{4}-\d{2}-\d{2}$", ["2025-01-31"], ["2025-1-31", "20250-01-31", "٢٠٢٥-01-31"]),
        (r"^(red|green|blue)$", ["red", "blue"], ["", "redgreen", "re"]),
        (r"^#?([0-9a-fA-F]{3}){1,2}$", ["#fff", "0aF9be"], ["#ffff", "g00"]),
        (r"^.{1,2000}$", ["a", "a" * 2000], ["", "a" * 2001, "a\nb"]),
        (r"^a{2,}?$", ["aa", "aaaa"], ["a", ""]),
        (r"\bcat\b", ["cat", "a cat."], ["cats", "concat"]),
        (r"\Bcat", ["concat"], ["cat", "a cat"]),
        (r"^\w+\W\S\s\D$", ["ab-c x"], ["ab-c x1", "é-c x"]),
        (r"^[^\d\n]$", ["a", "é"], ["1", "\n"]),
        (r"^\u00e9\x41\.\/\-$", ["éA./-"], ["eA./-"]),
        ("^(?:a|b|)*$", ["", "abba"], ["c"]),
        ("^(a*)*$", ["", "aaa"], ["b"]),
        ("(){9999}x", ["x"], [""]),
        ("a$|^b", ["a", "ca", "bc"], ["ab"[:0], "cb"]),
    ],
)
def test_pattern_matches_what_it_says(pattern: str, fitting: list[str], others: list[str]) -> None:
    assert [text for text in fitting if not _is_in(pattern, text)] == []
    assert [text for text in others if _is_in(pattern, text)] == []


PARTS = some.sampled_from(["a", "b", "[ab]", "[^a]", ".", "^", "$", r"\b", r"\B", "(?:a|b)", "(a|)", "(ab)"])
TIMES = some.sampled_from(["", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])
PATTERNS = some.lists(
    some.tuples(PARTS, TIMES).map(lambda pair: pair[0] + (pair[1] if pair[0] not in {"^", "$", r"\b", r"\B"} else "")),
    max_size=6,
).map("".join)


@given(some.lists(PATTERNS, min_size=1, max_size=3).map("|".join), some.text("abc ", min_size=1, max_size=8))
@settings(max_examples=500, deadline=None)
def test_short_patterns_match_as_the_standard_library_has_it(pattern: str, text: str) -> None:
    assert _is_in(pattern, text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "is not a regular expression"),
        ("a{2,1}", "is not a regular expression"),
        ("a{99999999999}", "is not a regular expression"),
        (r"\p{L}", "is not a regular expression"),
        (r"(a)\1", "has a backreference"),
        ("(?P<n>a)(?P=n)", "has a backreference"),
        ("(?=a)a", "looks ahead"),
        ("(?<!a)b", "looks ahead or behind"),
        ("(?>a)", "never gives back"),
        ("a*+", "never gives back"),
        ("(?i)a", "sets flags"),
        ("(?i:a)", "sets flags"),
        ("(((a{99}){99}){99})", "repeats too much"),
        ("((a?){9999}){9999}", "repeats too much"),
        ("((){9999}?){9999}" * 2 + "((|){99}){99}", "repeats too much"),
        ("a" * 1001, "is longer than 1000 characters"),
        ("(" * 499 + ")" * 499, "is nested too deeply"),
    ],
)
def test_what_cannot_be_run_in_bounded_time_is_refused(pattern: str, words: str) -> None:
    began = time.process_time()

    with pytest.raises(ValueError, match=words):
        patterns.compile(pattern)

    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a|aa)+$",
        "^([a-zA-Z]+)*$",
        "(a*)*b",
        "a*a*a*a*a*a*a*a*b",
        "^(.*a){20}$",
        "(.*)(.*)(.*)(.*)[^a]{3}",
        "(x+x+)+y",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        "^(?:a?){60}a{60}$",
        r"(\w+\s?)*!$",
    ],
)
def test_patterns_that_blow_up_elsewhere_are_answered_at_once(pattern: str) -> None:
    began = time.process_time()

    _is_in(pattern, "a" * 20_000 + "\n")

    assert time.process_time() - began < 2


def test_work_is_told_before_it_is_done_and_can_be_stopped() -> None:
    told: list[int] = []

    def spend(units: int) -> None:
        told.append(units)
        if sum(told) > 5000:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        patterns.compile("(a|b)*a(a|b){400}c").is_in("abaab" * 100_000, spend)

    assert len(told) < 5000
