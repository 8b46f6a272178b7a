"""An event stream as the standard has it, read in the plainest way: what the encoder and the parsers are held against.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import re
from dataclasses import dataclass, field

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass
class Event:
    """One event; fields that it does not have are empty."""

    id: bytes = b""
    type: bytes = b""
    data: list[bytes] = field(default_factory=list)


def events(stream: bytes) -> list[Event]:
    """Return the events that a browser would dispatch."""
    *lines, _ = _LINE_END.split(stream.removeprefix(b"\xef\xbb\xbf"))
    dispatched: list[Event] = []
    event = Event()
    for line in lines:
        if line:
            _take(event, line)
        else:
            if event.data:
                dispatched.append(event)
            event = Event()
    return dispatched


def _take(event: Event, line: bytes) -> None:
    name, _, value = line.partition(b":")
    value = value.removeprefix(b" ")
    if name == b"data":
        event.data.append(value)
    elif name == b"event":
        event.type = value
    elif name == b"id" and b"\0" not in value:
        event.id = value
