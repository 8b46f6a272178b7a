"""What the checker comes to."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOST_OF_ONE = 100  # violations of one invariant that are told; all are counted


@dataclass
class Verdict:
    """Violations, each an invariant and what broke it, and figures of the run."""

    violations: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, invariant: str, text: str) -> None:
        """Put a violation on record."""
        self.counts[invariant] += 1
        if self.counts[invariant] <= MOST_OF_ONE:
            self.violations.append((invariant, text))

    def claim(self, invariant: str, holds: object, text: str) -> None:
        """Put a violation on record unless something holds."""
        if not holds:
            self.add(invariant, text)
