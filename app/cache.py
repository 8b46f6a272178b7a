"""What was found out and holds for some seconds, so that a busy caller costs no question each time."""

from typing import Final, Generic, TypeVar

from app import clock

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

MOST_ENTRIES: Final = 10_000  # past it all are forgotten, and found out again


class TtlCache(Generic[_Key, _Value]):
    """A dictionary whose values are gone after some seconds.

    Args:
        seconds: for which a value holds, from when it was found.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: dict[_Key, tuple[_Value, float]] = {}

    def get(self, key: _Key) -> _Value | None:
        """Return what holds; None where nothing does."""
        entry = self._entries.get(key)
        return entry[0] if entry is not None and clock.monotonic() < entry[1] else None

    def put(self, key: _Key, value: _Value, *, found_at: float) -> None:
        """Keep a value.

        Args:
            found_at: on the monotonic clock; of what a question has found, when it was asked.
        """
        if len(self._entries) >= MOST_ENTRIES:
            self._entries.clear()
        self._entries[key] = value, found_at + self._seconds

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
