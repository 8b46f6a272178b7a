"""The command: `python -m tests.torture [--minutes N] [--seed S] …`, and its parts."""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app import telemetry
from tests.torture import checker, mutants, run, starts, sweep
from tests.torture.run import Options
from tests.torture.verdict import Verdict

SHOWN_VIOLATIONS = 50


def _torture(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./run torture", description="Break everything under load, and check what was promised."
    )
    parser.add_argument("--minutes", type=float, default=30, help="for which things are broken")
    parser.add_argument("--seed", type=int, default=1, help="what is broken, and asked for, follows from it")
    parser.add_argument("--nodes", type=int, default=3, help="that serve; one worker comes with them")
    parser.add_argument("--clients", type=int, default=40, help="requests at once")
    parser.add_argument("--watchers", type=int, default=16, help="streams at once")
    parser.add_argument("--rate", type=float, default=0, help="acts a second of all clients together; 0: as many as go")
    parser.add_argument("--lease", type=float, default=3, help="of nodes, in seconds")
    parser.add_argument("--folder", type=Path, help="for all that is written down; a fresh one otherwise")
    parser.add_argument("--keep", action="store_true", help="keep it also where nothing was violated")
    given = parser.parse_args(arguments)
    folder = given.folder or run.fresh_folder()
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(
        folder, given.minutes * 60, given.seed, given.nodes, given.clients, given.watchers, given.rate, given.lease
    )
    verdict = run.to_its_end(run.torture(options, lambda line: print(line, flush=True)))
    _show(verdict)
    if verdict.violations or given.keep or given.folder:
        print(f"all that was written down is in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if verdict.violations else 0


def _check(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./run torture check", description="Judge what a run has written down, again.")
    parser.add_argument("folder", type=Path)
    verdict = checker.check(parser.parse_args(arguments).folder)
    _show(verdict)
    return 1 if verdict.violations else 0


def _show(verdict: Verdict) -> None:
    for name, figure in verdict.figures.items():
        print(f"{name:<40} {figure:,}" if isinstance(figure, int) else f"{name:<40} {figure}")
    print(f"{'violations':<40} {verdict.counts.total()}")
    for invariant, text in verdict.violations[:SHOWN_VIOLATIONS]:
        print(f"  {invariant}: {text}")


PARTS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "check": _check,
    "sweep": sweep.main,
    "mutants": mutants.main,
    "starts": starts.main,
}


def main() -> None:
    """Run what is asked for; the exit status is 1 where something was violated."""
    telemetry.configure_logging(threshold=logging.WARNING, style=None)
    part, *rest = sys.argv[1:] or [""]
    raise SystemExit(PARTS[part](rest) if part in PARTS else _torture(sys.argv[1:]))


if __name__ == "__main__":
    main()
