"""What a stream's bytes are looked at for, as cheaply as the question allows."""

import re

from app import clock

DELTA = b'"delta":'
ENDS = (b"event: turn_completed", b"data: [DONE]")
STAMP = re.compile(rb"(\d+\.\d{6})(?!\d)")


class Tally:
    """Notes when the first delta came, how many bytes, and whether the end was seen."""

    def __init__(self) -> None:
        self.asked_at = clock.monotonic()
        self.first_at: float | None = None
        self.is_complete = False
        self.bytes = 0
        self._tail = b""

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self.bytes += len(piece)
        if self.first_at is None and DELTA in piece:
            self.first_at = clock.monotonic()
        seen = self._tail + piece
        self.is_complete = self.is_complete or any(end in seen for end in ENDS)
        self._tail = seen[-32:]


class Stamps(Tally):
    """Compares the time at which each token left the provider with now; the machine has one monotonic clock."""

    def __init__(self, tokens: list[tuple[float, float]]) -> None:
        super().__init__()
        self._tokens = tokens  # when each left, and how late it was
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the body, and read the stamps of all whole frames."""
        super().__call__(piece)
        now = clock.monotonic()
        *frames, self._rest = (self._rest + piece).split(b"\n\n")
        for frame in frames:
            if DELTA in frame:
                self._tokens += [(left_at, now - left_at) for left_at in map(float, STAMP.findall(frame))]


class Frames:
    """Counts the events of a log's stream; `is_over` once the turn's end has come."""

    def __init__(self) -> None:
        self.events = 0
        self.is_over = False
        self._tail = b""

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self.events += piece.count(b"\ndata: ")
        seen = self._tail + piece
        self.is_over = self.is_over or ENDS[0] in seen
        self._tail = seen[-32:]
