"""What a turn may use up: the caller's budgets for session and turn, and the server's own limits, all hard.

A meter counts one thing against one limit. Tokens are those that the provider reported, or, of an answer that was cut off, the
pieces that it had streamed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from app import clock
from app.errors import AgentError
from app.journal.asides import BudgetWarning

Kind: TypeAlias = Literal["tokens", "time", "tool_calls"]
"""Of what a caller may set limits."""
KEYS: Mapping[str, Kind] = {"max_tokens": "tokens", "max_duration_seconds": "time", "max_tool_calls": "tool_calls"}
WARNED_AT = 0.8
_WORDS = {"tokens": "tokens", "output": "tokens of output", "time": "seconds", "tool_calls": "tool calls"}


@dataclass(frozen=True, slots=True)
class Used:
    """What was used up before this attempt, of a session or of a turn."""

    tokens: int = 0
    seconds: float = 0.0
    tool_calls: int = 0

    def of(self, kind: Kind) -> float:
        """Return one of them."""
        return {"tokens": self.tokens, "time": self.seconds, "tool_calls": self.tool_calls}[kind]


@dataclass(slots=True)
class Meter:
    """One limit, and what is used of it.

    Args:
        reason: how the turn fails where the limit is met.
    """

    kind: Kind | Literal["output"]
    limit: float
    used: float
    reason: Literal["BUDGET_EXHAUSTED", "TURN_TIMEOUT", "OUTPUT_LIMIT"] = "BUDGET_EXHAUSTED"
    is_warned: bool = False

    @property
    def left(self) -> float:
        """What is left of it."""
        return self.limit - self.used


@dataclass(slots=True)
class Budget:
    """All meters of one attempt; the clock runs from its making."""

    meters: Sequence[Meter] = ()
    _since: float = field(default_factory=clock.monotonic)

    @property
    def ends_at(self) -> float | None:
        """When the time is up, on the monotonic clock; None is never."""
        lefts = [meter.left for meter in self.meters if meter.kind == "time"]
        return self._since + min(lefts) if lefts else None

    def check(self) -> None:
        """Refuse a model call that may not be made.

        Raises:
            AgentError: a limit is met.
        """
        self._run_clock()
        for meter in self.meters:
            if meter.used >= meter.limit and meter.kind != "tool_calls":
                raise _met(meter)

    def check_stream(self, tokens: int) -> None:
        """Refuse to go on with an answer that has streamed so many tokens.

        Raises:
            AgentError: it has passed what was left.
        """
        for meter in self.meters:
            if meter.kind in {"tokens", "output"} and tokens > meter.left:
                raise _met(meter)

    def refusal(self, calls: int) -> AgentError | None:
        """Return how the turn fails because so many tool calls would pass a limit: none of them may run."""
        passed = (meter for meter in self.meters if meter.kind == "tool_calls" and calls > meter.left)
        meter = next(passed, None)
        return None if meter is None else _met(meter)

    def timed_out(self) -> AgentError:
        """Return how the turn fails when its time is up."""
        return _met(min((meter for meter in self.meters if meter.kind == "time"), key=lambda meter: meter.left))

    def spend(self, *, tokens: int = 0, output: int = 0, tool_calls: int = 0) -> list[BudgetWarning]:
        """Count what was used, and the time that has run; return the warnings that are due."""
        for meter in self.meters:
            meter.used += {"tokens": tokens, "output": output, "tool_calls": tool_calls, "time": 0}[meter.kind]
        self._run_clock()
        return list(self._warnings())

    def _run_clock(self) -> None:
        now = clock.monotonic()
        for meter in self.meters:
            if meter.kind == "time":
                meter.used += now - self._since
        self._since = now

    def _warnings(self) -> Iterator[BudgetWarning]:
        for meter in self.meters:
            if meter.kind == "output" or meter.is_warned or meter.reason != "BUDGET_EXHAUSTED":
                continue
            if 0 < meter.limit * WARNED_AT <= meter.used:
                meter.is_warned = True
                percent = int(meter.used / meter.limit * 100)
                yield BudgetWarning(meter.kind, _shown(meter.used), _shown(meter.limit), percent)


def meters(limits: Mapping[str, Any] | None, used: Used) -> list[Meter]:
    """Make the meters of a caller's `budget_limits`."""
    return [
        Meter(kind, limits[key], used.of(kind))
        for key, kind in KEYS.items()
        if limits is not None and limits.get(key) is not None
    ]


def _met(meter: Meter) -> AgentError:
    message = f"The limit of {_shown(meter.limit):g} {_WORDS[meter.kind]} is met."
    return AgentError(meter.reason, message)


def _shown(value: float) -> float:
    return int(value) if float(value).is_integer() else round(value, 3)
