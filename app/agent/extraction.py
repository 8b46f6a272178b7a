"""The last answer of a turn as a value: what the model is told, what is found in its words, and what it is asked when it errs.

Judging works on the caller's thread for up to a few seconds with the worst of schemas and answers; the loop calls `extract`
on another thread. A schema has passed `schemas.check` before.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.agent.judge import MOST_FAULT_CHARACTERS, Judge, Spent, shorten

MOST_ANSWER_BYTES = 1024 * 1024
MOST_DEPTH = 64
_MOST_FENCES = 8  # the last ones of an answer
_MOST_DIGITS = 20  # of 64 bits and a sign

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # an open string runs to the end: never scanned twice
_BRACKETS = re.compile(r"[\[\]{}]")


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an answer held.

    Args:
        value: the JSON value; None where there is a fault.
        fault: what is wrong, as a short text for the model; None where nothing is.
    """

    value: Any | None
    fault: str | None


def instruction(schema: Mapping[str, Any]) -> str:
    """Return what the system prompt says to a model that has no schema mode of its own."""
    return (
        "Your final answer must be one JSON value that matches the JSON Schema below, and nothing else: "
        "no explanation before or after it, and no code fence. You may call tools before you give it.\n\n"
        f"JSON Schema of the final answer:\n{orjson.dumps(schema).decode()}"
    )


def correction(fault: str) -> str:
    """Return the user message that asks the model again after an answer with a fault."""
    return (
        "Your final answer could not be used as structured output. "
        f"What is wrong: {fault}\n"
        "Answer again with only the corrected JSON value that matches the schema, complete and without any other words."
    )


def extract(text: str, schema: Mapping[str, Any]) -> Extracted:
    """Find the JSON of an answer and hold it against the schema.

    The whole answer is tried first, then its fenced blocks from the last to the first, then all from the first brace to the
    last; the first that fits the schema is the value. Otherwise the fault is of the first that is JSON at all.
    """
    if len(text.encode(errors="replace")) > MOST_ANSWER_BYTES:
        return Extracted(None, f"The answer is longer than {MOST_ANSWER_BYTES} bytes.")
    judge = Judge(schema)
    faults: list[str] = []
    unread = "The answer has no JSON object."
    for candidate in _candidates(text):
        try:
            value = _parse(candidate)
        except ValueError as error:
            unread = f"The answer is not strict JSON: {error}."
            continue
        try:
            fault = judge.fault(value)
        except Spent:
            return Extracted(None, "The answer is too large or too deep to be held against the schema. Give a shorter one.")
        if fault is None:
            return Extracted(value, None)
        faults.append(fault)
    return Extracted(None, shorten(faults[0] if faults else unread, MOST_FAULT_CHARACTERS))


def _candidates(text: str) -> Iterator[str]:
    whole = text.strip()
    if whole and not whole.startswith("```"):
        yield whole
    yield from _fenced(text)
    first, last = text.find("{"), text.rfind("}")
    if first >= 0 and text[first : last + 1] != whole:
        yield text[first : last + 1] if last > first else text[first:]


def _fenced(text: str) -> Sequence[str]:
    blocks: list[str] = []
    lines: list[str] | None = None
    for line in text.split("\n"):
        if not line.lstrip().startswith("```"):
            if lines is not None:
                lines.append(line)
        elif lines is None:
            lines = []
        else:
            blocks.append("\n".join(lines))
            lines = None
    return blocks[: -_MOST_FENCES - 1 : -1]


def _parse(text: str) -> Any:
    """Read strict JSON.

    Raises:
        ValueError: it is none, or what this server cannot keep; the message is the end of a sentence.
    """
    _check_depth(text)
    value = _DECODER.decode(text)
    _check_surrogates(value)
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub("", text)):
        depth += 1 if bracket.group() in "[{" else -1
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested deeper than {MOST_DEPTH}")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string has half a surrogate pair") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, part in pairs:
        if name in value:
            raise ValueError(f"an object has the key {shorten(name, 60)!r} twice")
        value[name] = part
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= _MOST_DIGITS else 2**63
    if not -(2**63) <= value < 2**63:
        raise ValueError("a number does not fit into 64 bits")
    return value


def _number(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError("a number does not fit into a double")
    return value


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_number, parse_constant=_constant)
