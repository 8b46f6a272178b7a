"""A value holds for its seconds from when it was found, and no longer; there are never too many."""

import pytest

from app import cache, clock
from app.cache import TtlCache

NOW = 1000.0


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: NOW)


@pytest.mark.parametrize(("found_at", "found"), [(NOW, "v"), (NOW - 4.9, "v"), (NOW - 5, None), (NOW - 60, None)])
def test_value_holds_from_when_it_was_found(found_at: float, found: str | None) -> None:
    known: TtlCache[str, str] = TtlCache(5)

    known.put("k", "v", found_at=found_at)

    assert known.get("k") == found
    assert known.get("other") is None


def test_newer_value_takes_the_place_of_an_older_one() -> None:
    known: TtlCache[str, str] = TtlCache(5)
    known.put("k", "old", found_at=NOW)

    known.put("k", "new", found_at=NOW)

    assert known.get("k") == "new"


def test_nothing_holds_once_it_is_cleared() -> None:
    known: TtlCache[str, str] = TtlCache(5)
    known.put("k", "v", found_at=NOW)

    known.clear()

    assert known.get("k") is None


def test_no_more_is_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_ENTRIES", 3)
    known: TtlCache[int, int] = TtlCache(5)

    for number in range(10):
        known.put(number, number, found_at=NOW)
        assert sum(known.get(one) is not None for one in range(10)) <= 3

    assert known.get(9) == 9
