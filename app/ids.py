"""Identifiers: UUIDv7 in lower case, made here because Postgres makes them only from version 18 on."""

import os
import re
import uuid
from typing import NewType

from app import clock

SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
NodeId = NewType("NodeId", str)

_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def session_id() -> SessionId:
    """Make the id of a new session."""
    return SessionId(uuid7())


def turn_id() -> TurnId:
    """Make the id of a new turn."""
    return TurnId(uuid7())


def node_id() -> NodeId:
    """Make the id of this process among the nodes on one database."""
    return NodeId(uuid7())


def is_id(text: str) -> bool:
    """Tell whether a text has the form of an id; anything else can name nothing that exists."""
    return _FORM.match(text) is not None


def uuid7() -> str:
    """Make a UUIDv7: 48 bits of milliseconds, then 74 random bits.

    Source: RFC 9562, section 5.7.
    """
    value = clock.epoch_milliseconds() << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
