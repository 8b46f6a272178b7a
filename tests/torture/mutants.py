"""Breaks the service on purpose (`mutations`), tortures it, and tells who noticed: `./run torture mutants [--only NAME] …`.

Each provocation is first gone through by the service as it is, in which nobody may find anything.
"""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture import mutations, run
from tests.torture.mutations import MUTATIONS, Mutation, Provocation
from tests.torture.run import Options
from tests.torture.verdict import Verdict

NODES, CLIENTS, WATCHERS, RATE, LEASE_SECONDS = 2, 12, 8, 90, 2
HEAD = f"{'':24}{'caught by':56}{'faults':>8}{'seconds':>8}"


@dataclass(frozen=True, slots=True)
class Trial:
    """A service that is tried: one mutation of it, or as it is.

    Args:
        folder: with all that was written down; it is gone where the trial came out as it should.
    """

    provocation: Provocation
    mutation: Mutation | None = None
    folder: Path = field(default_factory=run.fresh_folder)

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return self.mutation.name if self.mutation else f"(unbroken, {self.provocation.name})"

    async def judge(self, seconds: float, seed: int) -> Verdict:
        """Run it, and judge what came of it.

        Args:
            seconds: 0 for as long as its provocation says.
        """
        code = mutations.broken_copy(self.mutation.edits if self.mutation else (), self.folder / "code")
        how = self.provocation
        options = Options(
            self.folder, seconds or how.seconds, seed, NODES, CLIENTS, WATCHERS, RATE, LEASE_SECONDS,
            sessions=how.sessions, calling=how.calling, faulty=how.faulty, kinds=how.kinds, links=how.links, code=code,
        )  # fmt: skip
        return await run.torture(options, lambda _line: None)

    def is_right(self, verdict: Verdict) -> bool:
        """Tell whether a break was noticed by one who should, or nothing was found where there is none."""
        if self.mutation is None:
            return not verdict.counts
        return bool(self.mutation.caught_by & verdict.counts.keys())

    def row(self, verdict: Verdict, seconds: float) -> str:
        """Write it as the table has it."""
        expected = self.mutation.caught_by if self.mutation else frozenset()
        found = sorted(verdict.counts.items(), key=lambda one: (one[0] not in expected, -one[1]))
        told = ", ".join(f"{invariant} {count}" for invariant, count in found if invariant in expected or not expected)
        others = sum(count for invariant, count in found if invariant not in expected) if expected else 0
        caught = (told or "nobody") + (f", others {others}" if others else "")
        return f"{self.name:24}{caught:56}{verdict.figures['faults proven']:>8}{seconds or self.provocation.seconds:>8.0f}"


def trials(chosen: Sequence[Mutation]) -> Iterator[Trial]:
    """Make the trials of some mutations, and before them those of the service as it is."""
    for provocation in dict.fromkeys(mutation.provocation for mutation in chosen):
        yield Trial(provocation)
    for mutation in chosen:
        yield Trial(mutation.provocation, mutation)


async def _try_all(given: argparse.Namespace) -> int:
    """Go through all trials; return how many came out wrong."""
    failures = 0
    print(HEAD, flush=True)
    for trial in trials([mutation for mutation in MUTATIONS if given.only in {None, mutation.name}]):
        verdict = await trial.judge(given.seconds, given.seed)
        print(trial.row(verdict, given.seconds), flush=True)
        if trial.is_right(verdict):
            shutil.rmtree(trial.folder)
            continue
        failures += 1
        print(f"  wrong; all that was written down is in {trial.folder}")
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Try them, print the table, and return 1 where a break was missed or an unbroken service found at fault."""
    parser = argparse.ArgumentParser(prog="./run torture mutants", description="Break the service; each break must be noticed.")
    parser.add_argument("--only", choices=[mutation.name for mutation in MUTATIONS], help="this one alone")
    parser.add_argument("--seconds", type=float, default=0, help="for which things are broken; 0: what each one needs")
    parser.add_argument("--seed", type=int, default=1, help="what is broken, and asked for, follows from it")
    return 1 if run.to_its_end(_try_all(parser.parse_args(arguments))) else 0
