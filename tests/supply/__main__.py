"""`python -m tests.supply licences`, or `python -m tests.supply sbom [PATH]`."""

import sys
from pathlib import Path

from tests.supply import licences, pinned, sbom


def main(command: str, *arguments: str) -> int:
    """Carry a command out, and return the process' status."""
    if command == "sbom":
        path = Path(*arguments or ("sbom.json",))
        print(f"{path}: {sbom.write(path)} packages")
        return 0
    packages = pinned.read_file("requirements-dev.txt")
    faults = licences.faults(packages)
    elsewhere = [one.name for one in packages if not one.is_for_here]
    print(f"licences: {len(packages) - len(elsewhere)} packages looked at; for other systems, not here: {', '.join(elsewhere)}")
    print(*faults, sep="\n", end="")
    return 1 if faults else 0


sys.exit(main(*sys.argv[1:]))
