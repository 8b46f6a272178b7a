"""What all events have in common."""

from dataclasses import dataclass, fields
from typing import ClassVar

import orjson


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have in common. A subclass's fields are its payload, in order."""

    type: ClassVar[str]
    is_of_session: ClassVar[bool] = False
    """Whether it stands outside any turn."""
    is_terminal: ClassVar[bool] = False
    """Whether its turn has ended with it."""

    def payload(self) -> bytes:
        """Write the own fields as a JSON object."""
        return orjson.dumps(self)


def without_none(event: Event, *names: str) -> bytes:
    """Write an event's own fields, leaving the named ones out where they are None."""
    own = {field.name: getattr(event, field.name) for field in fields(event)}
    return orjson.dumps({name: value for name, value in own.items() if value is not None or name not in names})
