"""Suricate with its walls taken out, as a process: what part m compares the walled one with.

Row-level security is passed over, since a superuser's connections are kept; nobody is asked who they are, nothing is limited,
and nothing goes on the audit trail. All else is as it ships.
"""

from typing import Any

from fastapi import Request

from app import audit, cli
from app.api import access
from app.audit import Act
from app.credentials.caller import OPEN
from app.db import walls
from app.db.engine import Connection

_make_role = walls.role


async def _role(db: Any) -> dict[str, str]:
    await _make_role(db)
    return {}


async def _admit(request: Request) -> None:
    request.state.caller = OPEN


async def _record(db: Connection, act: Act) -> None:
    """Leave no trail."""


if __name__ == "__main__":
    walls.role = _role
    access.admit = _admit
    audit.record = _record
    cli.main()
