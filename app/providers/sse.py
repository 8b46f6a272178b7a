"""Server-Sent Events as model vendors send them: bytes in any pieces in, the `data` of whole events out.

Only `data` matters here: the vendors repeat an event's name in its JSON. Nothing is decoded, so a character that is
split over two pieces needs no care. Line ends may be LF, CRLF or CR, even mixed; what stands after the last empty line is
no event.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from app.errors import ProviderError

MAX_EVENT_BYTES = 4 * 1024 * 1024  # as much as a request's body may have; no real event comes near it
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseParser:
    """Cuts a stream into events; holds at most one unfinished event."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []  # the pieces of a line whose end has not come
        self._line_bytes = 0
        self._data: list[bytes] = []  # the data lines of an event whose empty line has not come
        self._data_bytes = 0
        self._ended_in_cr = False
        self._is_first_line = True

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that this piece completes, in order.

        Raises:
            ProviderError: `PROVIDER_PROTOCOL`; a line, or an event's data lines together, are over the limit.
        """
        if self._ended_in_cr or b"\r" in piece:
            piece = self._with_line_feeds(piece)
        *lines, rest = piece.split(b"\n")
        if lines and (self._line or self._is_first_line):
            lines[0] = self._whole_line(lines[0])
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
            self._check(self._line_bytes)
        return self._events(lines)

    def _whole_line(self, end: bytes) -> bytes:
        line = b"".join([*self._line, end])
        self._line.clear()
        self._line_bytes = 0
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        return line

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data.clear()
                    self._data_bytes = 0
            elif line.startswith(b"data:") or line == b"data":
                self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
                self._data_bytes += len(line)
                self._check(self._data_bytes)
            else:
                self._check(len(line))  # a comment or another field
        return events

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            message = f"The provider sent an event of over {self._max_event_bytes} bytes."
            raise ProviderError("PROVIDER_PROTOCOL", message, is_retryable=True)

    def _with_line_feeds(self, piece: bytes) -> bytes:
        """Turn CRLF and CR into LF; a LF that belongs to the CR before this piece goes."""
        if not piece:
            return piece
        if self._ended_in_cr:
            piece = piece.removeprefix(b"\n")
        self._ended_in_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
