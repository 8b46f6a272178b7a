"""Exports: a session as one document. Live and queued turns, and those behind them, are not part of it."""

from typing import Any

import orjson

from app import clock, sessions
from app.copies import forks
from app.copies.document import FORMAT, VERSION
from app.db.engine import Connection, Row
from app.errors import SessionPersistenceDisabled
from app.journal import reader
from app.journal.frames import envelope
from app.sessions import Session


async def export(db: Connection, session_id: str, *, has_events: bool) -> dict[str, Any]:
    """Read a session as an export document, from one snapshot.

    Args:
        db: in a transaction that has done nothing yet.
        has_events: whether the session's whole log is part of it.

    Raises:
        SessionNotFound: there is none of that id.
        SessionPersistenceDisabled: it is ephemeral.
    """
    await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    session = await sessions.get(db, session_id)
    if session.is_ephemeral:
        raise SessionPersistenceDisabled
    turns = await forks.finished(db, session)
    messages = await db.fetch(forks.MESSAGES, session.id, [row["id"] for row in turns])
    document = {
        "format": FORMAT,
        "version": VERSION,
        "session": _session(session),
        "turns": [_turn(row) for row in turns],
        "messages": [_message(row) for row in messages],
    }
    return document | {"events": await _events(db, session)} if has_events else document


def _session(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "created_at": clock.rfc3339(session.created_at),
        "updated_at": clock.rfc3339(session.updated_at),
        "title": session.title,
        "labels": session.labels,
        "options": session.options,
        "kept_prompt": _fragment(session.kept_prompt),
        "usage": session.usage,
    }


def _turn(row: Row) -> dict[str, Any]:
    usage = ("input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens")
    return {
        "turn_id": str(row["id"]),
        "number": row["number"],
        "status": row["status"],
        "prompt": _fragment(row["prompt"]),
        "text": _fragment(row["text"]),
        "steps": row["steps"],
        "tool_calls": row["tool_calls"],
        "attempt": row["attempt"],
        "usage": {name: row[name] for name in usage},
        "stop_reason": row["stop_reason"],
        "error": _fragment(row["error"]),
        "structured_output": _fragment(row["structured_output"]),
        "schema_warnings": orjson.loads(row["schema_warnings"] or "[]"),
        "created_at": clock.rfc3339(row["created_at"]),
        "started_at": clock.rfc3339(row["started_at"]) if row["started_at"] else None,
        "ended_at": clock.rfc3339(row["ended_at"]),
    }


def _message(row: Row) -> dict[str, Any]:
    """Show a message with what only its vendor reads, unlike the history that callers are shown."""
    shown = {
        "ordinal": row["place"],
        "role": row["role"],
        "turn_id": None if row["turn_id"] is None else str(row["turn_id"]),
        "content": _fragment(row["content"]),
        "created_at": clock.rfc3339(row["created_at"]),
    }
    if row["is_summary"]:
        return shown | {"summary": True, "sums_up_to": row["sums_up_to"]}
    return shown | {"stop_reason": row["stop_reason"]} if row["role"] == "assistant" else shown


async def _events(db: Connection, session: Session) -> list[orjson.Fragment]:
    found: list[orjson.Fragment] = []
    after, is_last = 0, False
    while not is_last:
        page = await reader.page(db, session.id, after)
        if page is None:
            break
        found += [orjson.Fragment(envelope(event.seq, event.body)) for event in page.events]
        after, is_last = page.read_to, page.is_last
    return found


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
