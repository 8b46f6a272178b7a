"""Imports: a session begins from an export document, under the id, times and numbers that stand there."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from app import sessions
from app.copies import document, opening
from app.copies.document import ExportedTurn, SessionExport
from app.errors import InvalidRequest, SessionExists, SessionNotFound, SessionPersistenceDisabled
from app.ids import SessionId
from app.journal.journal import Transaction
from app.sessions import Beginning, Options, Session

_TURNS = f"""
INSERT INTO turns (session_id, id, number, status, prompt, overrides, attempt, steps, tool_calls, text, stop_reason, error,
                   input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, first_seq, last_seq,
                   created_at, started_at, ended_at, structured_output, schema_warnings)
SELECT $1, id, number, status, prompt, '{{}}', attempt, steps, tool_calls, text, stop_reason, error,
       input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, {opening.FIRST_SEQ}, {opening.LAST_SEQ},
       created_at, started_at, ended_at, structured_output, schema_warnings
FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::int[], $7::int[], $8::int[], $9::text[], $10::text[],
            $11::text[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::timestamptz[], $17::timestamptz[],
            $18::timestamptz[], $19::text[], $20::text[])
  AS t(id, number, status, prompt, attempt, steps, tool_calls, text, stop_reason, error, input_tokens, output_tokens,
       cache_creation_tokens, cache_read_tokens, created_at, started_at, ended_at, structured_output, schema_warnings)
"""
_TURN_COLUMNS = 19
_MESSAGES = """
INSERT INTO messages (session_id, ordinal, turn_id, role, content, stop_reason, created_at, sums_up_to, is_summary)
SELECT $1, m.*, sums_up_to IS NOT NULL
FROM unnest($2::int[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::int[])
  AS m(ordinal, turn_id, role, content, stop_reason, created_at, sums_up_to)
"""
_MESSAGE_COLUMNS = 7


async def resume(tx: Transaction, exported: SessionExport, *, config_generation: int) -> Session:
    """Open a session from a document; its log begins with `session_created`.

    Args:
        config_generation: of the realm's configuration as it is now.

    Raises:
        InvalidRequest: turns and messages do not belong together as they must; each place is named.
        SessionExists: its id is taken.
        SessionPersistenceDisabled: its id is that of an ephemeral session.
    """
    wrong = [{"loc": f"resume_session.{place}", "msg": words} for place, words in document.faults(exported)]
    if wrong:
        raise InvalidRequest("The request is not valid.", errors=wrong)
    begun = replace(_beginning(exported), config_generation=config_generation)
    if not await sessions.begin(tx, begun):
        await _refuse(tx, begun.id)
    await tx.db.execute(_TURNS, begun.id, *_columns([_turn_row(turn) for turn in exported.turns], _TURN_COLUMNS))
    rows = [
        (
            message.ordinal,
            message.turn_id,
            message.role,
            document.stored(message.content),
            getattr(message, "stop_reason", None),
            _time(message.created_at),
            getattr(message, "sums_up_to", None),
        )
        for message in exported.messages
    ]
    await tx.db.execute(_MESSAGES, begun.id, *_columns(rows, _MESSAGE_COLUMNS))
    await _restore(tx, exported)
    return await opening.settle(tx, begun.id, begun.options)


def _beginning(exported: SessionExport) -> Beginning:
    session = exported.session
    kept_prompt = None if session.kept_prompt is None else document.stored(session.kept_prompt)
    options = Options(**session.options.model_dump(exclude_none=True))
    return Beginning(SessionId(session.session_id), options, session.title, session.labels, kept_prompt)


async def _refuse(tx: Transaction, session_id: str) -> None:
    try:
        taken = await sessions.get(tx.db, session_id)
    except SessionNotFound:  # another realm's, or erased since: either way there is no more to tell
        taken = None
    if taken is not None and taken.is_ephemeral:
        raise SessionPersistenceDisabled
    raise SessionExists("There is a session of this id; erase it first, or fork it.", session_id=session_id)


async def _restore(tx: Transaction, exported: SessionExport) -> None:
    session, usage = exported.session, exported.session.usage
    await tx.db.execute(
        """UPDATE sessions SET created_at = $2, updated_at = $3, input_tokens = $4, output_tokens = $5,
                  cache_creation_tokens = $6, cache_read_tokens = $7, spent_tokens = $8, tool_call_count = $9 WHERE id = $1""",
        session.session_id,
        _time(session.created_at),
        _time(session.updated_at),
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_tokens,
        usage.cache_read_tokens,
        usage.input_tokens + usage.output_tokens,
        sum(turn.tool_calls for turn in exported.turns),
    )


def _turn_row(turn: ExportedTurn) -> tuple[object, ...]:
    return (
        turn.turn_id,
        turn.number,
        turn.status,
        _json(turn.prompt) if isinstance(turn.prompt, str) else document.stored(turn.prompt),
        turn.attempt,
        turn.steps,
        turn.tool_calls,
        _json(turn.text),
        turn.stop_reason,
        None if turn.error is None else _json(turn.error.model_dump()),
        turn.usage.input_tokens,
        turn.usage.output_tokens,
        turn.usage.cache_creation_tokens,
        turn.usage.cache_read_tokens,
        _time(turn.created_at),
        None if turn.started_at is None else _time(turn.started_at),
        _time(turn.ended_at),
        _json(turn.structured_output),
        _json(turn.schema_warnings or None),
    )


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
