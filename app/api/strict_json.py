"""The one JSON door: reads what the contract calls strict JSON, and refuses the rest with a typed error.

Python's own parser takes duplicate keys, NaN, infinities, lone surrogates and any depth; each would be stored or would break
something later.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from app.errors import MalformedJson

MOST_DEPTH = 64
_SAFE_INTEGER = 2**63

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # an open string runs to the end: never scanned twice
_BRACKETS = re.compile(rb"[\[\]{}]")


def parse(data: bytes) -> Any:
    """Read a JSON text.

    Raises:
        MalformedJson: not UTF-8, not JSON, a duplicate key, NaN, a number beyond a double or 64 bits, a lone surrogate, or
            nested deeper than 64.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson("The body is not UTF-8.") from error
    _check_depth(data)
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedJson("The body is not JSON.") from error
    if b"\\u" in data:
        _check_surrogates(value)
    return value


def _check_depth(data: bytes) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", data)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MOST_DEPTH:
            raise MalformedJson(f"The body is nested deeper than {MOST_DEPTH}.")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise MalformedJson("A string has a lone surrogate.") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedJson("An object has the same key twice.")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 20 else _SAFE_INTEGER  # noqa: PLR2004 - digits of 64 bits and a sign
    if not -_SAFE_INTEGER <= value < _SAFE_INTEGER:
        raise MalformedJson("A number does not fit into 64 bits.")
    return value


def _number(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise MalformedJson("A number does not fit into a double.")
    return value


def _constant(_text: str) -> Any:
    raise MalformedJson("NaN and Infinity are not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_number, parse_constant=_constant)
