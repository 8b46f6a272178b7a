"""What the command lines of those share who ask a run's nodes from outside: where records go, and where nodes are."""

import argparse
from pathlib import Path


def parser(part: str, words: str | None) -> argparse.ArgumentParser:
    """Make the parser of `python -m tests.torture.<part>`, with `--folder` and `--node`."""
    made = argparse.ArgumentParser(prog=f"python -m tests.torture.{part}", description=words)
    made.add_argument("--folder", type=Path, required=True, help="where records go")
    made.add_argument("--node", type=_named, action="append", required=True, help="name=http://…; may repeat")
    return made


def _named(text: str) -> tuple[str, str]:
    """Read `name=address`."""
    name, _, address = text.partition("=")
    return name, address
