"""Regular expressions of callers' schemas, run in time that grows with the text alone.

Python's `re` tries again and again, holds the interpreter while it does, and cannot be stopped. Here a pattern becomes states,
and a text is read once with all states it may be in, so that no pattern blows up. What this way of reading cannot express
(backreferences, looking ahead or behind) is refused. Words mean what ECMA-262 says, as JSON Schema asks: `\\d` and `\\w` are
ASCII, and `$` is the end of the text and nothing before it.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from re import _parser
from typing import Any, Literal, TypeAlias

MOST_LENGTH = 1000  # characters of a pattern
MOST_STATES = 5000  # of one pattern, its counted repetitions written out

Test: TypeAlias = Callable[[str], bool]
Spend: TypeAlias = Callable[[int], None]
Before: TypeAlias = Literal["start", "word", "other"]

_SPACE = frozenset("\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff") | {chr(c) for c in range(0x2000, 0x200B)}
_LINE_ENDS = frozenset("\n\r\u2028\u2029")
_CHARACTERS_PER_UNIT = 16


@dataclass(slots=True)
class _State:
    """A point in a pattern.

    Args:
        targets: the states that come next.
        test: what the next character must be; None where none is read.
        place: the name of what must hold between two characters; None where nothing must.
    """

    targets: Sequence[int] = ()
    test: Test | None = None
    place: str | None = None


_Step: TypeAlias = tuple[frozenset[int], Before, bool]


class Pattern:
    """A pattern that can be looked for."""

    def __init__(self, states: Sequence[_State], start: int) -> None:
        self._states = states
        self._start = start
        self._steps: dict[tuple[frozenset[int], Before, str | None], _Step] = {}

    def is_in(self, text: str, spend: Spend) -> bool:
        """Say whether the pattern matches somewhere in a text.

        Args:
            spend: told of work before the next is begun; whatever it raises ends the search.
        """
        spend(1 + len(text) // _CHARACTERS_PER_UNIT)
        states: frozenset[int] = frozenset({self._start})
        before: Before = "start"
        for char in text:
            states, before, is_found = self._steps.get((states, before, char)) or self._step(states, before, char, spend)
            if is_found:
                return True
        return self._step(states, before, None, spend)[2]

    def _step(self, states: frozenset[int], before: Before, char: str | None, spend: Spend) -> _Step:
        reached = self._reach(states, before, char)
        spend(1 + len(reached))
        following = {self._start}
        for state in (self._states[number] for number in reached):
            if char is not None and state.test is not None and state.test(char):
                following.update(state.targets)
        step: _Step = (frozenset(following), "word" if _is_word(char) else "other", _END in reached)
        self._steps[states, before, char] = step
        return step

    def _reach(self, states: Iterable[int], before: Before, char: str | None) -> set[int]:
        reached = set(states)
        waiting = list(reached)
        while waiting:
            state = self._states[waiting.pop()]
            if state.test is None and (state.place is None or _holds(state.place, before, char)):
                waiting.extend(set(state.targets) - reached)
                reached.update(state.targets)
        return reached


_END = 0


def compile(pattern: str) -> Pattern:  # noqa: A001 - read as patterns.compile
    """Make a pattern ready.

    Raises:
        ValueError: not a regular expression, or one that cannot be run in bounded time; the message is a sentence's end that
            follows "The pattern".
    """
    if len(pattern) > MOST_LENGTH:
        raise ValueError(f"is longer than {MOST_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that other engines read otherwise
            parsed = _parser.parse(pattern)
        if parsed.state.flags & ~re.UNICODE:
            raise ValueError("sets flags, which JSON Schema does not know")
        builder = _Builder()
        return Pattern(builder.states, builder.sequence(parsed, _END))
    except (re.error, OverflowError) as error:
        raise ValueError(f"is not a regular expression that this server reads: {error}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


class _Builder:
    """Writes states from the end of a pattern to its beginning."""

    def __init__(self) -> None:
        self.states = [_State()]

    def sequence(self, nodes: Iterable[tuple[Any, Any]], following: int) -> int:
        """Write nodes one behind the other, and return where they begin."""
        for operation, argument in reversed(list(nodes)):
            following = self._node(str(operation), argument, following)
        return following

    def _add(self, state: _State) -> int:
        if len(self.states) >= MOST_STATES:
            raise ValueError("repeats too much to be run in bounded time")
        self.states.append(state)
        return len(self.states) - 1

    def _node(self, operation: str, argument: Any, following: int) -> int:
        match operation:
            case "AT":
                return self._add(_State([following], place=str(argument)))
            case "BRANCH":
                return self._add(_State([self.sequence(branch, following) for branch in argument[1]]))
            case "SUBPATTERN":
                return self._group(argument, following)
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(argument, following)
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return self._add(_State([following], test=_test(operation, argument)))
            case _:
                raise ValueError(
                    "has a backreference, looks ahead or behind, or never gives back, which cannot be run in bounded time"
                )

    def _group(self, argument: Any, following: int) -> int:
        _, flags_on, flags_off, nodes = argument
        if flags_on or flags_off:
            raise ValueError("sets flags, which JSON Schema does not know")
        return self.sequence(nodes, following)

    def _repeat(self, argument: Any, following: int) -> int:
        least, most, nodes = argument
        if most == _parser.MAXREPEAT:
            loop = self._add(_State())
            self.states[loop].targets = [self.sequence(nodes, loop), following]
            following = loop
        else:
            after = following
            for _ in range(most - least):
                following = self._add(_State([self.sequence(nodes, following), after]))
        for _ in range(least):
            begin = self.sequence(nodes, following)
            if begin == following:  # repeating nothing is nothing
                break
            following = begin
        return following


def _test(operation: str, argument: Any) -> Test:
    match operation:
        case "LITERAL":
            return chr(argument).__eq__
        case "NOT_LITERAL":
            return chr(argument).__ne__
        case "ANY":
            return lambda char: char not in _LINE_ENDS
        case "RANGE":
            low, high = argument
            return lambda char: low <= ord(char) <= high
        case "CATEGORY":
            return _CATEGORIES[str(argument)]
        case _:
            return _one_of([(str(kind), value) for kind, value in argument])


def _one_of(members: Sequence[tuple[str, Any]]) -> Test:
    is_negated = members[0][0] == "NEGATE"
    tests = [_test(kind, value) for kind, value in members if kind != "NEGATE"]
    return lambda char: any(test(char) for test in tests) != is_negated


def _is_word(char: str | None) -> bool:
    return char is not None and char.isascii() and (char.isalnum() or char == "_")


def _holds(place: str, before: Before, char: str | None) -> bool:
    match place:
        case "AT_BEGINNING" | "AT_BEGINNING_STRING":
            return before == "start"
        case "AT_END" | "AT_END_STRING":
            return char is None
        case "AT_BOUNDARY":
            return (before == "word") != _is_word(char)
        case _:
            return (before == "word") == _is_word(char)


_CATEGORIES: dict[str, Test] = {
    "CATEGORY_DIGIT": lambda char: "0" <= char <= "9",
    "CATEGORY_NOT_DIGIT": lambda char: not "0" <= char <= "9",
    "CATEGORY_WORD": _is_word,
    "CATEGORY_NOT_WORD": lambda char: not _is_word(char),
    "CATEGORY_SPACE": lambda char: char in _SPACE,
    "CATEGORY_NOT_SPACE": lambda char: char not in _SPACE,
}
