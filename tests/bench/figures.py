"""Small arithmetic on samples."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Samples in short, in their own unit; all are 0 where there was none."""

    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Sort and look."""
        ordered = sorted(samples)
        return cls(len(ordered), quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1] if ordered else 0.0)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the sample below which this share of sorted samples lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def median(samples: Sequence[float]) -> float:
    """Return the middle one of several runs."""
    return quantile(sorted(samples), 0.5)
