"""Rows of the one table: a figure of ours, what it is compared with, and the aim."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound on a figure."""

    bound: float
    sense: Literal["<=", ">="] = "<="

    def is_met(self, figure: float) -> bool:
        """Tell whether a figure keeps to it."""
        return figure <= self.bound if self.sense == "<=" else figure >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.sense == '<=' else '≥'} {shown(self.bound)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        part: the letter of the part.
        others: what it is compared with, measured in the same run.
        because: why the aim is missed, where it is.
        key: names the row among all, for reasons.
    """

    part: str
    key: str
    what: str
    unit: str
    figure: float
    others: Mapping[str, float] = field(default_factory=dict)
    aim: Aim | None = None
    because: str | None = None

    @property
    def compared(self) -> str:
        """The other figures in words."""
        return "; ".join(f"{name}: {shown(figure)}" for name, figure in self.others.items()) or "–"

    @property
    def verdict(self) -> str:
        """The aim, and whether it is met."""
        if self.aim is None:
            return "–"
        if self.aim.is_met(self.figure):
            return f"{self.aim}: met"
        return f"{self.aim}: missed, because {self.because or 'it is not fast enough yet'}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as texts."""
        return (self.part, f"{self.what}, {self.unit}", shown(self.figure), self.compared, self.verdict)


HEAD = ("", "what", "Suricate", "compared with", "aim")


def shown(figure: float) -> str:
    """Write a figure with three digits that matter."""
    if abs(figure) >= 1000:
        return f"{figure:,.0f}"
    if abs(figure) >= 100:
        return f"{figure:.0f}"
    return f"{figure:.3g}"


def rich_table(rows: list[Row]) -> Table:
    """Make the table for a terminal."""
    table = Table(*HEAD, show_lines=False)
    for row in rows:
        table.add_row(*row.cells)
    return table


def markdown_table(rows: list[Row]) -> str:
    """Make the table for a page."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
