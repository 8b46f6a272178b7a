"""The one statement that writes events: fences, numbers and inserts for many sessions in one round trip.

Knows nothing of batching or readers. What surprises: a session whose row another hand holds is left out. To wait for it would
hold up all others, and that hand may be a node that is frozen. The fence is judged on the locked row, not on the snapshot.
Turns' rows are locked in the order of their sessions, since leases of the same turns are renewed beside it.
"""

from collections.abc import Sequence
from typing import Literal

import orjson

from app import clock
from app.db.engine import Connection, translated
from app.journal.entry import Appended, Entry, TurnChange
from app.journal.frames import body
from app.messages import dump_content

USAGE_COLUMNS = 4  # of a change, which bills are made of alone
_APPEND = """
WITH entry AS (
  SELECT * FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[], $5::uuid[], $6::int[], $7::int[], $8::boolean[],
                       $9::boolean[], $37::bigint[])
    AS e(entry, session_id, fence, number, turn_id, events, messages, ends, is_held, bytes)
), change AS (
  SELECT * FROM unnest($10::int[], $11::int[], $12::int[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[],
                       $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::bigint[],
                       $23::bigint[], $24::text[], $25::text[], $38::int[], $39::text[], $40::text[],
                       $41::text[])
    AS c(entry, steps, tool_calls, input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens,
         text, assistant_text, status, stop_reason, error, spent_tokens, running_ms, structured_output, schema_warnings,
         calls, provider, model, credential)
), locked AS (
  SELECT s.id FROM sessions s JOIN entry e ON s.id = e.session_id
  WHERE s.fence = e.fence AND (e.number = 0 OR s.append_number < e.number) FOR NO KEY UPDATE OF s SKIP LOCKED
), numbered AS (
  UPDATE sessions s SET
    last_seq = s.last_seq + e.events,
    message_count = s.message_count + e.messages,
    stored_bytes = s.stored_bytes + e.bytes,
    append_number = CASE WHEN e.number > 0 THEN e.number ELSE s.append_number END,
    fence = s.fence + e.ends::int,
    status = CASE WHEN e.ends THEN 'idle' ELSE s.status END,
    has_notes = s.has_notes AND NOT e.ends,
    current_turn_id = CASE WHEN e.ends THEN NULL ELSE s.current_turn_id END,
    updated_at = CASE WHEN e.ends THEN $26 ELSE s.updated_at END,
    last_assistant_text = coalesce(c.assistant_text, s.last_assistant_text),
    input_tokens = s.input_tokens + coalesce(c.input_tokens, 0),
    output_tokens = s.output_tokens + coalesce(c.output_tokens, 0),
    cache_creation_tokens = s.cache_creation_tokens + coalesce(c.cache_creation_tokens, 0),
    cache_read_tokens = s.cache_read_tokens + coalesce(c.cache_read_tokens, 0),
    spent_tokens = s.spent_tokens + coalesce(c.spent_tokens, 0),
    running_ms = s.running_ms + coalesce(c.running_ms, 0),
    tool_call_count = s.tool_call_count + coalesce(c.tool_calls, 0)
  FROM locked l, entry e LEFT JOIN change c ON c.entry = e.entry
  WHERE s.id = l.id AND s.id = e.session_id AND s.fence = e.fence
    AND NOT (e.is_held AND (s.has_notes OR e.ends AND s.queued_turns > 0))
  RETURNING e.entry, s.id, e.turn_id, e.events, e.messages, e.ends, s.last_seq, s.message_count, s.fence,
    s.realm_id
), event_rows AS (
  INSERT INTO events (realm_id, session_id, seq, turn_id, type, scope_id, at, payload)
  SELECT n.realm_id, n.id, n.last_seq - n.events + x.place, CASE WHEN x.in_turn THEN n.turn_id END, x.type, 'primary', $26,
    x.payload
  FROM unnest($27::int[], $28::int[], $29::boolean[], $30::text[], $31::text[]) AS x(entry, place, in_turn, type, payload)
  JOIN numbered n ON n.entry = x.entry
), message_rows AS (
  INSERT INTO messages (realm_id, session_id, ordinal, turn_id, role, content, stop_reason, created_at)
  SELECT n.realm_id, n.id, n.message_count - n.messages + x.place, n.turn_id, x.role, x.content, x.stop_reason, $26
  FROM unnest($32::int[], $33::int[], $34::text[], $35::text[], $36::text[]) AS x(entry, place, role, content, stop_reason)
  JOIN numbered n ON n.entry = x.entry
), usage_rows AS (
  INSERT INTO usage_reports (realm_id, day, credential, provider, model, calls, input_tokens, output_tokens,
                             cache_creation_tokens, cache_read_tokens)
  SELECT n.realm_id, ($26 AT TIME ZONE 'UTC')::date, coalesce(t.credential, c.credential), c.provider, c.model, c.calls,
         c.input_tokens, c.output_tokens, c.cache_creation_tokens, c.cache_read_tokens
  FROM numbered n JOIN change c ON c.entry = n.entry LEFT JOIN turns t ON t.session_id = n.id AND t.id = n.turn_id
  WHERE c.model IS NOT NULL
), locked_turns AS (
  SELECT t.session_id, t.id FROM turns t JOIN numbered n ON t.session_id = n.id AND t.id = n.turn_id
    JOIN change c ON c.entry = n.entry
  ORDER BY t.session_id FOR NO KEY UPDATE OF t
), turn_rows AS (
  UPDATE turns t SET
    steps = t.steps + c.steps,
    tool_calls = t.tool_calls + c.tool_calls,
    input_tokens = t.input_tokens + c.input_tokens,
    output_tokens = t.output_tokens + c.output_tokens,
    cache_creation_tokens = t.cache_creation_tokens + c.cache_creation_tokens,
    cache_read_tokens = t.cache_read_tokens + c.cache_read_tokens,
    spent_tokens = t.spent_tokens + c.spent_tokens,
    running_ms = t.running_ms + c.running_ms,
    structured_output = coalesce(c.structured_output, t.structured_output),
    schema_warnings = coalesce(c.schema_warnings, t.schema_warnings),
    text = coalesce(c.text, t.text),
    status = coalesce(c.status, t.status),
    stop_reason = coalesce(c.stop_reason, t.stop_reason),
    error = coalesce(c.error, t.error),
    owner = CASE WHEN n.ends THEN NULL ELSE t.owner END,
    lease_expires_at = CASE WHEN n.ends THEN NULL ELSE t.lease_expires_at END,
    last_seq = CASE WHEN n.ends THEN n.last_seq ELSE t.last_seq END,
    ended_at = CASE WHEN n.ends THEN $26 ELSE t.ended_at END,
    pending = CASE WHEN n.ends THEN NULL ELSE t.pending END,
    waits_until = CASE WHEN n.ends THEN NULL ELSE t.waits_until END
  FROM locked_turns l, numbered n JOIN change c ON c.entry = n.entry
  WHERE t.session_id = l.session_id AND t.id = l.id AND n.id = l.session_id
)
SELECT entry, last_seq, fence FROM numbered
"""


_APPEND_EVENTS = """
WITH entry AS (
  SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::int[], $12::bigint[])
    WITH ORDINALITY AS e(session_id, fence, number, turn_id, events, bytes, entry)
), locked AS (
  SELECT s.id FROM sessions s JOIN entry e ON s.id = e.session_id
  WHERE s.fence = e.fence AND (e.number = 0 OR s.append_number < e.number) FOR NO KEY UPDATE OF s SKIP LOCKED
), numbered AS (
  UPDATE sessions s SET
    last_seq = s.last_seq + e.events,
    stored_bytes = s.stored_bytes + e.bytes,
    append_number = CASE WHEN e.number > 0 THEN e.number ELSE s.append_number END
  FROM locked l, entry e
  WHERE s.id = l.id AND s.id = e.session_id AND s.fence = e.fence
  RETURNING e.entry - 1 AS entry, s.id, e.turn_id, s.last_seq - e.events AS base_seq, s.last_seq, s.fence, s.realm_id
), event_rows AS (
  INSERT INTO events (realm_id, session_id, seq, turn_id, type, scope_id, at, payload)
  SELECT n.realm_id, n.id, n.base_seq + x.place, CASE WHEN x.in_turn THEN n.turn_id END, x.type, 'primary', $6, x.payload
  FROM unnest($7::int[], $8::int[], $9::boolean[], $10::text[], $11::text[]) AS x(entry, place, in_turn, type, payload)
  JOIN numbered n ON n.entry = x.entry
)
SELECT entry, last_seq, fence FROM numbered
"""
"""The same for a batch of events alone, which most are: a third of the columns and none of the steps that find no work."""


async def append(db: Connection, batch: Sequence[Entry]) -> list[Appended | None]:
    """Append entries to their sessions' logs in one statement; it commits with whatever transaction `db` is in.

    Numbers follow each session's `last_seq` without gaps. At most one entry a session.

    Returns:
        One result per entry, in order; None where nothing was written, because its fence is stale, the session is gone or held
        by another transaction, the entry was written before, or something waits for what it would end and it does not say
        that this is settled.

    Raises:
        StoreUnavailable: Postgres could not be reached; outside a transaction, whether the batch was kept is unknown.

    Source: docs/decisions/0003-one-journal.md
    """
    now = clock.now()
    at = clock.rfc3339(now)
    bodies = [
        [body(event, session_id=entry.session_id, turn_id=entry.turn_id, at=at) for event in entry.events] for entry in batch
    ]
    contents = [[dump_content(message.content) for message in entry.messages] for entry in batch]
    sizes = [sum(map(_size, texts)) + sum(map(_size, said)) for texts, said in zip(bodies, contents, strict=True)]
    with translated():
        if all(entry.change is None and not entry.messages for entry in batch):
            rows = await db.fetch(_APPEND_EVENTS, *_event_entry_columns(batch), now, *_event_columns(batch, bodies), sizes)
        else:
            changes = _change_columns(batch)
            rows = await db.fetch(
                _APPEND,
                *_entry_columns(batch),
                *changes[:-USAGE_COLUMNS],
                now,
                *_event_columns(batch, bodies),
                *_message_columns(batch, contents),
                sizes,
                *changes[-USAGE_COLUMNS:],
            )
    written = {row["entry"]: row for row in rows}
    return [_appended(entry, written.get(index), bodies[index]) for index, entry in enumerate(batch)]


async def fate(db: Connection, appended: Appended) -> Literal["kept", "lost", "unknown"]:
    """Tell what became of an entry with events whose transaction gave no answer.

    Returns:
        `unknown` while another transaction holds the session, which may be that very one, and where there is no such session.
    """
    free = await db.fetchval("SELECT id FROM sessions WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED", appended.entry.session_id)
    stored = await db.fetchval(
        "SELECT payload FROM events WHERE session_id = $1 AND seq = $2", appended.entry.session_id, appended.last_seq
    )
    assert appended.bodies
    if stored == appended.bodies[-1]:
        return "kept"
    return "unknown" if free is None else "lost"


def _appended(entry: Entry, row: dict[str, int] | None, bodies: list[str]) -> Appended | None:
    if row is None:
        return None
    last_seq = row["last_seq"]
    return Appended(entry, last_seq - len(bodies) + 1, last_seq, row["fence"], bodies)


def _entry_columns(batch: Sequence[Entry]) -> tuple[list[object], ...]:
    return (
        list(range(len(batch))),
        [entry.session_id for entry in batch],
        [entry.fence for entry in batch],
        [entry.number for entry in batch],
        [entry.turn_id for entry in batch],
        [len(entry.events) for entry in batch],
        [len(entry.messages) for entry in batch],
        [entry.ends for entry in batch],
        [entry.is_held for entry in batch],
    )


def _change_columns(batch: Sequence[Entry]) -> list[list[object]]:
    rows = [_change_row(index, entry.change) for index, entry in enumerate(batch) if entry.change is not None]
    return _columns(rows, 16 + USAGE_COLUMNS)


def _change_row(index: int, change: TurnChange) -> tuple[object, ...]:
    ending, usage = change.ending, change.usage
    return (
        index,
        change.steps,
        change.tool_calls,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_tokens,
        usage.cache_read_tokens,
        _json(change.text),
        _json(change.assistant_text),
        ending.status if ending else None,
        ending.stop_reason if ending else None,
        _json(ending.error) if ending else None,
        change.spent_tokens,
        change.running_ms,
        change.structured_output,
        _json(change.schema_warnings or None),
        change.calls,
        change.model.provider if change.model else None,
        change.model.name if change.model else None,
        change.credential,
    )


def _event_entry_columns(batch: Sequence[Entry]) -> tuple[list[object], ...]:
    return (
        [entry.session_id for entry in batch],
        [entry.fence for entry in batch],
        [entry.number for entry in batch],
        [entry.turn_id for entry in batch],
        [len(entry.events) for entry in batch],
    )


def _event_columns(batch: Sequence[Entry], bodies: list[list[str]]) -> list[list[object]]:
    rows = [
        (index, place, not event.is_of_session, event.type, text)
        for index, entry in enumerate(batch)
        for place, (event, text) in enumerate(zip(entry.events, bodies[index], strict=True), 1)
    ]
    return _columns(rows, 5)


def _message_columns(batch: Sequence[Entry], contents: list[list[str]]) -> list[list[object]]:
    rows = [
        (index, place, message.role, content, message.stop_reason)
        for index, entry in enumerate(batch)
        for place, (message, content) in enumerate(zip(entry.messages, contents[index], strict=True), 1)
    ]
    return _columns(rows, 5)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
