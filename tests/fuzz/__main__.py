"""The command: `python -m tests.fuzz [--seconds N] [--only NAME]`.

The inputs are made by atheris, which learns from the lines of code that each of them reaches. What broke a property is shown
as base64: `--again` tries it once more.
"""

import argparse
import base64
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.targets import Target, targets

SLACK_SECONDS = 60  # to start, and to try what is in the folder already
MOST_BYTES = 8_192
SLOWEST_SECONDS = 5  # an input that takes longer is a finding
MOST_MEGABYTES = 2_048


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the fuzzing of one target came to."""

    name: str
    tried: int
    reached: int
    found: bytes | None
    words: str


def main() -> None:
    """Fuzz, print what was tried, and say by the exit status whether anything broke."""
    given = _arguments()
    if given.again:
        targets()[given.only].check(base64.b64decode(given.again))
        return
    chosen = {name: target for name, target in targets().items() if given.only in {None, name}}
    outcomes = [_fuzzed(name, target, given.seconds / len(chosen)) for name, target in chosen.items()]
    _print(outcomes)
    sys.exit(any(outcome.found is not None for outcome in outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run fuzz", description="Feed what reads strangers' bytes with any bytes.")
    parser.add_argument("--seconds", type=float, default=120, help="how long, for all targets together")
    parser.add_argument("--only", choices=list(targets()), help="one target")
    parser.add_argument("--again", help="one input in base64, for the target that --only names")
    given = parser.parse_args()
    if given.again and not given.only:
        parser.error("--again needs --only")
    return given


def _fuzzed(name: str, target: Target, seconds: float) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="suricate-fuzz-") as home:
        folder = Path(home) / "inputs"
        folder.mkdir()
        for number, seed in enumerate(target.seeds):
            (folder / f"seed-{number}").write_bytes(seed)
        options = [
            f"-max_total_time={max(1, round(seconds))}", f"-max_len={MOST_BYTES}", f"-timeout={SLOWEST_SECONDS}",
            f"-rss_limit_mb={MOST_MEGABYTES}", f"-artifact_prefix={home}/found-", "-print_final_stats=1",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.worker", name, *options, str(folder)],
            capture_output=True, text=True, errors="replace", timeout=seconds + SLACK_SECONDS, check=False,
        )  # fmt: skip
        found = next(iter(sorted(Path(home).glob("found-*"))), None)
        words = done.stdout + done.stderr
        if done.returncode and found is None:
            raise SystemExit(f"the fuzzer of {name} did not run:\n{words[-2000:]}")
        return Outcome(name, _number("executed_units", words), _reached(words), found.read_bytes() if found else None, words)


def _number(stat: str, words: str) -> int:
    match = re.search(rf"stat::number_of_{stat}:\s+(\d+)", words)
    return int(match[1]) if match else 0


def _reached(words: str) -> int:
    return max((int(number) for number in re.findall(r"\bcov: (\d+)", words)), default=0)


def _print(outcomes: list[Outcome]) -> None:
    console = Console()
    table = Table("target", "inputs tried", "places reached", "broken by")
    for outcome in outcomes:
        found = "nothing" if outcome.found is None else base64.b64encode(outcome.found).decode()
        table.add_row(outcome.name, f"{outcome.tried:,}", f"{outcome.reached:,}", found)
    console.print(table)
    for outcome in outcomes:
        if outcome.found is not None:
            console.print(f"{outcome.name}:\n{outcome.words[-3000:]}", markup=False)
    console.print(f"{sum(outcome.tried for outcome in outcomes):,} inputs tried")


if __name__ == "__main__":
    main()
