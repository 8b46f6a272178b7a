"""A fault as the nemesis deals it: what is broken for how long, and what proves that it bit."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tests.torture.fleet import Fleet


@dataclass(slots=True)
class Evidence:
    """What a fault has seen of itself."""

    has_bitten: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


Act: TypeAlias = Callable[[Fleet, str, float], AbstractAsyncContextManager[Evidence]]
"""Breaks a target, gives the evidence to be, and heals what it broke at the end of the block, whatever happens inside.

The number from 0 to 1 is for what else it has to choose.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Args:
        breaks: what it chooses its target from; `postgres`, `provider` and `tools` are one each.
        leases: for how long it holds, from and to, in terms of the lease.
        weight: how often it comes in a round of all kinds.
    """

    name: str
    act: Act
    breaks: Literal["runner", "node", "link", "postgres", "provider", "tools"]
    leases: tuple[float, float]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault to come.

    Args:
        pause_seconds: before it.
        seconds: for which it holds.
    """

    kind: Kind
    target: str
    pause_seconds: float
    seconds: float
    chance: float
