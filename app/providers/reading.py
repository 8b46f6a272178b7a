"""A vendor's JSON, read strictly where an answer hangs on it, and as far as it can be believed where it only counts."""

import json
from typing import Any, Final, TypeAlias

import orjson

from app.providers import refusals

Json: TypeAlias = dict[str, Any]

MAX_TOKEN_COUNT: Final = 1_000_000_000  # a count above it is a vendor's mistake, not a measurement


def event(data: bytes) -> Json:
    """Parse an event; escapes of lone surrogates are the one excuse, and become U+FFFD.

    Raises:
        ProviderError: `PROVIDER_PROTOCOL`; it is no JSON object.
    """
    try:
        return object_of(orjson.loads(data))
    except orjson.JSONDecodeError:
        pass
    try:
        return object_of(orjson.loads(paired(json.dumps(json.loads(data), ensure_ascii=False))))
    except (ValueError, RecursionError):
        raise refusals.malformed("The provider sent an event that is not JSON.") from None


def paired(text: str) -> str:
    """Join surrogate pairs, and put U+FFFD where one stands alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def object_of(value: object) -> Json:
    """Return an object.

    Raises:
        ProviderError: `PROVIDER_PROTOCOL`; it is something else.
    """
    if not isinstance(value, dict):
        raise refusals.malformed("The provider sent something else where an object should be.")
    return value


def list_of(value: object) -> list[Any]:
    """Return a list.

    Raises:
        ProviderError: `PROVIDER_PROTOCOL`; it is something else.
    """
    if not isinstance(value, list):
        raise refusals.malformed("The provider sent something else where a list should be.")
    return value


def text_of(value: object) -> str:
    """Return a text.

    Raises:
        ProviderError: `PROVIDER_PROTOCOL`; it is something else.
    """
    if not isinstance(value, str):
        raise refusals.malformed("The provider sent something else where a text should be.")
    return value


def text_or_empty(value: object) -> str:
    """Return a text; what is none is empty."""
    return value if isinstance(value, str) else ""


def token_count(value: object) -> int:
    """Return a count of tokens; what is absent, negative, absurd or no integer counts as 0."""
    return value if type(value) is int and 0 <= value <= MAX_TOKEN_COUNT else 0
