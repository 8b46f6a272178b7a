"""The command: `python -m tests.bench [--only c,d] [--quick] [--write]`."""

import argparse
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from rich.console import Console

from app import clock
from tests.bench import carriers, ground, idle, ledger, live, page, stored, times, turns, walls
from tests.bench.ground import Ground
from tests.bench.table import Row, rich_table

Part = Callable[..., Awaitable[list[Row]]]
PARTS: dict[str, Part] = {
    "a": ledger.appends,
    "b": live.chunk_to_client,
    "c": turns.short_turns,
    "d": turns.long_replies,
    "e": live.crowd,
    "f": live.readers,
    "g": stored.replay,
    "h": stored.full_house,
    "i": times.interrupts,
    "j": times.starts,
    "k": carriers.carriers,
    "l": idle.idle_streams,
    "m": walls.price_of_walls,
}
DISK = Path("/var/tmp")  # where systems keep what is large and on a disk


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure Suricate beside a floor and a plain app.")
    parser.add_argument("--only", default="".join(PARTS), help="letters of the parts to measure, e.g. a,c")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--folder", type=Path, default=DISK if DISK.is_dir() else Path(tempfile.gettempdir()),
                        help="folder for the database; on a disk, since commits are what is measured")  # fmt: skip
    return parser.parse_args()


async def _measure(given: argparse.Namespace, console: Console) -> list[Row]:
    rows: list[Row] = []
    async with ground.opened(given.folder) as ready:
        for letter, part in PARTS.items():
            if letter in given.only:
                rows += await _measured(letter, part, ready, given.quick, console)
    return rows


async def _measured(letter: str, part: Part, ready: Ground, quick: bool, console: Console) -> list[Row]:
    began = clock.monotonic()
    rows = await part(ready, quick=quick)
    console.print(f"part {letter}: {clock.monotonic() - began:.0f} s")
    return rows


def main() -> None:
    """Measure, and print the table."""
    given = _arguments()
    console = Console()
    rows = uvloop.run(_measure(given, console))
    rows = page.explained(rows)
    console.print(rich_table(rows))
    if given.write:
        page.write(rows)


if __name__ == "__main__":
    main()
