"""A turn as its row has it: read, list, show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import orjson

from app import clock, ids
from app.db.engine import Connection, Row
from app.errors import TurnNotFound
from app.messages import StopReason, Usage

Status: TypeAlias = Literal["queued", "running", "waiting", "completed", "failed", "interrupted", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "running", "waiting", "completed", "failed", "interrupted", "cancelled")
LIVE = frozenset({"running", "waiting"})
PENDING = LIVE | {"queued"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Args:
        prompt: JSON text: a string or blocks.
        overrides: options that hold for this turn alone.
        attempt: 0 until a node has claimed it.
        recoveries: attempts that ended in a crash.
        pending: calls that callers are to answer, as the wire shows them, and since when they wait.
        allowed: ids of calls that were allowed to run.
        steering: JSON texts of prompts that wait for the next step.
        stop_note: JSON text; not None once the turn is to end after its step.
    """

    session_id: str
    id: str
    number: int
    status: Status
    prompt: str
    overrides: Mapping[str, Any]
    owner: str | None
    attempt: int
    recoveries: int
    steps: int
    tool_calls: int
    text: str | None
    stop_reason: StopReason | None
    error: str | None
    usage: Usage
    first_seq: int
    last_seq: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    pending: Sequence[Mapping[str, Any]] = ()
    allowed: Sequence[str] = ()
    steering: Sequence[str] = ()
    stop_note: str | None = None
    spent_tokens: int = 0
    running_ms: int = 0
    structured_output: str | None = None
    schema_warnings: Sequence[str] = ()

    @property
    def is_over(self) -> bool:
        """Whether it has its terminal event."""
        return self.status not in PENDING


_COLUMNS = """t.session_id, t.id, t.number, t.status, t.prompt, t.overrides, t.owner, t.attempt, t.recoveries, t.steps,
t.tool_calls, t.text, t.stop_reason, t.error, t.input_tokens, t.output_tokens, t.cache_creation_tokens, t.cache_read_tokens,
t.first_seq, coalesce(t.last_seq, s.last_seq) AS last_seq, t.created_at, t.started_at, t.ended_at, t.pending, t.allowed,
t.steering, t.stop_note, t.spent_tokens, t.running_ms, t.structured_output, t.schema_warnings"""
_PENDING = ("id", "name", "args", "kind", "expires_at")
_FROM = "FROM turns t JOIN sessions s ON s.id = t.session_id WHERE t.session_id = $1"


async def get(db: Connection, session_id: str, turn_id: str) -> Turn:
    """Read one turn.

    Raises:
        TurnNotFound: the session has none of that id.
    """
    row = None
    if ids.is_id(turn_id):
        row = await db.fetchrow(f"SELECT {_COLUMNS} {_FROM} AND t.id = $2", session_id, turn_id)
    if row is None:
        raise TurnNotFound
    return _turn(row)


async def find(
    db: Connection, session_id: str, *, status: Status | None, after: int, limit: int
) -> tuple[list[Turn], int | None]:
    """List a session's turns from behind a number, oldest first.

    Returns:
        The page, and the number to go on behind or None where this is the last page.
    """
    if limit == 0:
        return [], None
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} {_FROM} AND t.number > $2 AND ($3::text IS NULL OR t.status = $3)
            ORDER BY t.number LIMIT $4""",
        session_id,
        after,
        status,
        limit + 1,
    )
    found = [_turn(row) for row in rows[:limit]]
    return found, found[-1].number if len(rows) > limit else None


async def queued(db: Connection, session_id: str) -> Sequence[Turn]:
    """Read a session's queued turns in order of acceptance."""
    rows = await db.fetch(f"SELECT {_COLUMNS} {_FROM} AND t.status = 'queued' ORDER BY t.number", session_id)
    return [_turn(row) for row in rows]


def view(turn: Turn) -> dict[str, Any]:
    """Show a turn."""
    return {
        "session_id": turn.session_id,
        "turn_id": turn.id,
        "number": turn.number,
        "status": turn.status,
        "text": turn.text,
        "steps": turn.steps,
        "tool_calls": turn.tool_calls,
        "attempt": max(turn.attempt, 1),
        "usage": asdict(turn.usage) | {"total_tokens": turn.usage.total_tokens},
        "stop_reason": turn.stop_reason,
        "structured_output": None if turn.structured_output is None else orjson.Fragment(turn.structured_output),
        "schema_warnings": turn.schema_warnings,
        "skill_diagnostics": None,
        "pending_tool_calls": [{name: call[name] for name in _PENDING} for call in turn.pending],
        "error": None if turn.error is None else orjson.Fragment(turn.error),
        "created_at": clock.rfc3339(turn.created_at),
        "started_at": clock.rfc3339(turn.started_at) if turn.started_at else None,
        "ended_at": clock.rfc3339(turn.ended_at) if turn.ended_at else None,
        "first_seq": turn.first_seq,
        "last_seq": turn.last_seq,
    }


def _turn(row: Row) -> Turn:
    return Turn(
        session_id=str(row["session_id"]),
        id=str(row["id"]),
        number=row["number"],
        status=row["status"],
        prompt=row["prompt"],
        overrides=orjson.loads(row["overrides"]),
        owner=None if row["owner"] is None else str(row["owner"]),
        attempt=row["attempt"],
        recoveries=row["recoveries"],
        steps=row["steps"],
        tool_calls=row["tool_calls"],
        text=None if row["text"] is None else orjson.loads(row["text"]),
        stop_reason=row["stop_reason"],
        error=row["error"],
        usage=Usage(row["input_tokens"], row["output_tokens"], row["cache_creation_tokens"], row["cache_read_tokens"]),
        first_seq=row["first_seq"],
        last_seq=row["last_seq"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        pending=orjson.loads(row["pending"] or "[]"),
        allowed=orjson.loads(row["allowed"] or "[]"),
        steering=[orjson.dumps(prompt).decode() for prompt in orjson.loads(row["steering"] or "[]")],
        stop_note=row["stop_note"],
        spent_tokens=row["spent_tokens"],
        running_ms=row["running_ms"],
        structured_output=row["structured_output"],
        schema_warnings=orjson.loads(row["schema_warnings"] or "[]"),
    )
