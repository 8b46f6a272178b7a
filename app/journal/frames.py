"""An event as it is stored and as it is sent.

The JSON text made here is what is stored and what is sent; only the number in front of it comes from the database.
"""

from app.journal.event import Event

_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
"""Characters that JSON leaves as they are and at which many clients split lines, though SSE does not."""


def body(event: Event, *, session_id: str, turn_id: str | None, at: str) -> str:
    """Write an event's envelope without its opening brace and `seq`, which the commit gives.

    Args:
        at: RFC 3339.

    Returns:
        The JSON text that is stored; `{"seq":N,` in front of it makes the envelope.
    """
    turn = f'"{turn_id}"' if turn_id is not None and not event.is_of_session else "null"
    own = event.payload().decode()
    if not own.isascii():
        own = own.translate(_LINE_ENDS)
    rest = "}" if own == "{}" else "," + own[1:]
    return f'"session_id":"{session_id}","turn_id":{turn},"type":"{event.type}","at":"{at}","scope_id":"primary"{rest}'


def envelope(seq: int, stored: str) -> str:
    """Make the whole JSON object of a stored event."""
    return f'{{"seq":{seq},{stored}'


def frame(seq: int, kind: str, stored: str) -> bytes:
    """Make the SSE frame of a stored event. JSON escapes CR and LF, so one `data` line always suffices."""
    return f'id: {seq}\nevent: {kind}\ndata: {{"seq":{seq},{stored}\n\n'.encode()
