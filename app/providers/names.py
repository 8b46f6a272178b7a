"""Ids of tool calls and names of tools as vendors take them, also where another vendor, or a model's fancy, made them."""

import hashlib
import re
from typing import Final

MOST_CHARACTERS: Final = 64  # of an id and of a name, where a vendor does not say otherwise
NOT_PLAIN: Final = re.compile(r"[^a-zA-Z0-9_-]")
DIGEST_CHARACTERS: Final = 32
UNNAMED: Final = "unnamed"


def call_id(own: str, *, prefix: str = "call_", most_characters: int = MOST_CHARACTERS) -> str:
    """Return an id as it is where it is short and of plain characters, else one that is made from it, always the same."""
    if own and len(own) <= most_characters and not NOT_PLAIN.search(own):
        return own
    return prefix + hashlib.sha256(own.encode()).hexdigest()[:DIGEST_CHARACTERS]


def tool_name(own: str, *, forbidden: re.Pattern[str] = NOT_PLAIN, most_characters: int = MOST_CHARACTERS) -> str:
    """Return a name without forbidden characters: models call tools that do not exist, by names that no tool may have."""
    return forbidden.sub("_", own)[:most_characters] or UNNAMED
