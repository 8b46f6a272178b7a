"""Sessions: open, read, change, archive, erase. Each act takes the caller's transaction and commits nothing.

A session's row is the one owner of its numbers. Whoever changes a session locks that row first (`lock`), turns after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

import orjson

from app import clock, ids
from app.db.engine import Connection, Row
from app.errors import SessionNotFound
from app.ids import SessionId
from app.journal.entry import Entry
from app.journal.journal import Transaction
from app.journal.types import SessionArchived, SessionCreated, SessionUnarchived, SessionUpdated
from app.messages import Message, Text, Usage
from app.webhooks import outbox

DEFAULT_REALM: Final = "default"
"""The realm of callers without a credential, and the operator's own."""
OF_SESSION: Final = ("turns", "messages", "events", "stream_tickets", "webhook_watches", "webhook_deliveries", "webhooks")
"""Tables whose rows of a session go with it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a session tells its model.

    Args:
        max_tokens: most output tokens of one call; None leaves it to the vendor.
        builtins: whether the built-in tools are offered; None is the server's default, which is yes.
        external_tools: those that the caller runs, as the wire has them.
        approval_tools: names of those whose calls wait for leave.
        budget_limits: of the session, over all its turns.
        turn_budget: of one turn; never a session's own.
        output_schema: JSON Schema of each turn's answer; None is free text.
        structured_output_retries: further tries at an answer that breaks it.
        fallback_models: `model` and `provider` of those to ask, in order, where the one before has failed in all tries.
        hooks_override: changes to the server's hooks, as the wire has them; None changes nothing.
    """

    model: str
    provider: str
    system_prompt: str | None = None
    max_tokens: int | None = None
    provider_params: Mapping[str, Any] = field(default_factory=dict)
    builtins: bool | None = None
    external_tools: Sequence[Mapping[str, Any]] = ()
    approval_tools: Sequence[str] = ()
    budget_limits: Mapping[str, Any] | None = None
    turn_budget: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    structured_output_retries: int = 2
    fallback_models: Sequence[Mapping[str, str]] = field(default_factory=list)
    hooks_override: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One session as its row has it.

    Args:
        instance_id: the node that holds its live turn; None where nobody does.
        brings_providers: whether its realm has keys or URLs of vendors of its own; known of one that is locked.
        is_watched: whether webhooks are told of it; likewise.
    """

    realm: str
    id: SessionId
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    title: str | None
    labels: Mapping[str, str]
    options: Options
    status: Literal["idle", "running", "waiting"]
    fence: int
    last_seq: int
    message_count: int
    turn_count: int
    queued_turns: int
    current_turn_id: str | None
    kept_prompt: str | None
    is_system_prompt_due: bool
    last_assistant_text: str | None
    usage: Usage
    is_ephemeral: bool
    instance_id: str | None = None
    config_generation: int = 0
    spent_tokens: int = 0
    running_ms: int = 0
    tool_call_count: int = 0
    summed_up_to: int = 0
    brings_providers: bool = False
    is_watched: bool = False


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a session begins with.

    Args:
        kept_prompt: JSON text of blocks that will open the next turn's user message; None is nothing.
        messages: the first of its transcript.
        config_generation: of the realm's configuration that the options were made under.
    """

    id: SessionId
    options: Options
    title: str | None
    labels: Mapping[str, str]
    kept_prompt: str | None
    messages: Sequence[Message] = ()
    config_generation: int = 0


COLUMNS = """s.realm_id, s.id, s.created_at, s.updated_at, s.archived_at, s.title, s.labels, s.options, s.status, s.fence,
s.last_seq, s.message_count, s.turn_count, s.queued_turns, s.current_turn_id, s.kept_prompt, s.is_system_prompt_due,
s.last_assistant_text, s.input_tokens, s.output_tokens, s.cache_creation_tokens, s.cache_read_tokens, s.config_generation,
s.is_ephemeral, s.spent_tokens, s.running_ms, s.tool_call_count, s.summed_up_to"""
_OWNER = """(SELECT CASE WHEN lease_expires_at <= clock_timestamp() THEN NULL ELSE owner END FROM turns t
 WHERE t.session_id = s.id AND t.id = s.current_turn_id) AS owner"""
_OF_ITS_REALM = f"""(SELECT r.brings_providers FROM realms r WHERE r.realm_id = s.realm_id) AS brings_providers,
 {outbox.IS_WATCHED} AS is_watched"""
_BY_ID = "FROM sessions s WHERE s.realm_id = $1 AND s.id = $2"


async def create(
    tx: Transaction,
    options: Options,
    *,
    title: str | None,
    labels: Mapping[str, str],
    kept_prompt: str | None,
    config_generation: int = 0,
) -> Session:
    """Open a session; its log begins with `session_created`, its transcript with the system prompt where there is one.

    Args:
        kept_prompt: JSON text of blocks that will open the first turn's user message; None is nothing.
        config_generation: of the realm's configuration that the options were made under.
    """
    session_id = ids.session_id()
    system = [Message("system", (Text(options.system_prompt),))] if options.system_prompt is not None else []
    await begin(tx, Beginning(session_id, options, title, labels, kept_prompt, system, config_generation))
    return await lock(tx, session_id)


async def begin(tx: Transaction, beginning: Beginning) -> bool:
    """Put a session's row, the first event of its log and its first messages where there was nothing.

    Returns:
        Whether it was done; not where the id is taken, and nothing happens then.
    """
    tag = await tx.db.execute(
        """INSERT INTO sessions (realm_id, id, created_at, updated_at, title, title_search, labels, label_terms, options,
                                 status, kept_prompt, config_generation)
           VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, 'idle', $9, $10) ON CONFLICT (id) DO NOTHING""",
        tx.db.realm,
        beginning.id,
        clock.now(),
        *_title_columns(beginning.title),
        *_label_columns(beginning.labels),
        _json(asdict(beginning.options)),
        beginning.kept_prompt,
        beginning.config_generation,
    )
    if tag.endswith(" 0"):
        return False
    created = SessionCreated(beginning.options.model, beginning.options.provider, beginning.title, beginning.labels)
    await tx.append(Entry(beginning.id, 0, None, [created], beginning.messages))
    return True


async def get(db: Connection, session_id: str) -> Session:
    """Read a session without waiting for anything.

    Raises:
        SessionNotFound: there is none of that id.
    """
    return await _one(db, f"SELECT {COLUMNS}, {_OWNER} {_BY_ID}", session_id)


async def pin(tx: Transaction, session_id: str) -> Session:
    """Read a session and keep it from being erased until the transaction ends; turns of it go on meanwhile.

    Raises:
        SessionNotFound: there is none of that id.
    """
    return await _one(tx.db, f"SELECT {COLUMNS}, {_OWNER} {_BY_ID} FOR KEY SHARE OF s", session_id)


async def lock(tx: Transaction, session_id: str) -> Session:
    """Read a session and keep its row until the transaction ends, so that nobody else can change it meanwhile.

    Raises:
        SessionNotFound: there is none of that id.
    """
    return await _one(tx.db, f"SELECT {COLUMNS}, {_OWNER}, {_OF_ITS_REALM} {_BY_ID} FOR NO KEY UPDATE OF s", session_id)


async def update(
    tx: Transaction,
    session: Session,
    options: Options,
    changes: Mapping[str, Any],
    *,
    config_generation: int | None = None,
) -> Session:
    """Change a session; what its model is told takes effect from the next turn.

    Args:
        options: the options from now on.
        changes: the wire's fields with their new values, for the log; `title` and `labels` are whole. Empty changes nothing.
        config_generation: of the realm's configuration that the options were made under; None leaves it.
    """
    if not changes:
        return session
    title, labels = changes.get("title", session.title), changes.get("labels", session.labels)
    await tx.db.execute(
        """UPDATE sessions SET updated_at = $3, title = $4, title_search = $5, labels = $6, label_terms = $7, options = $8,
                  is_system_prompt_due = is_system_prompt_due OR $9, config_generation = $10
           WHERE realm_id = $1 AND id = $2""",
        tx.db.realm,
        session.id,
        clock.now(),
        *_title_columns(title),
        *_label_columns(labels),
        _json(asdict(options)),
        options.system_prompt is not None and options.system_prompt != session.options.system_prompt,
        session.config_generation if config_generation is None else config_generation,
    )
    await tx.append(Entry(session.id, session.fence, None, [SessionUpdated(changes)]))
    return await lock(tx, session.id)


async def archive(tx: Transaction, session: Session) -> Session:
    """Archive a session that is still: no live turn, none queued. Archived already: nothing happens."""
    if session.archived_at is not None:
        return session
    now = clock.now()
    await tx.db.execute("UPDATE sessions SET archived_at = $2, updated_at = $2 WHERE id = $1", session.id, now)
    archived = await tx.append(Entry(session.id, session.fence, None, [SessionArchived(clock.rfc3339(now))]))
    await outbox.announce(tx.db, session.id, archived.last_seq, SessionArchived.type)
    return await lock(tx, session.id)


async def unarchive(tx: Transaction, session: Session) -> Session:
    """Let an archived session take turns again. Not archived: nothing happens."""
    if session.archived_at is None:
        return session
    await tx.db.execute("UPDATE sessions SET archived_at = NULL, updated_at = $2 WHERE id = $1", session.id, clock.now())
    await tx.append(Entry(session.id, session.fence, None, [SessionUnarchived()]))
    return await lock(tx, session.id)


async def keep_prompt(tx: Transaction, session: Session, prompt: str) -> Session:
    """Keep blocks, given as JSON text, behind those that are kept already, for the next turn's user message."""
    kept = [*(_loaded(session.kept_prompt) or ()), *_loaded(prompt)]
    await tx.db.execute("UPDATE sessions SET kept_prompt = $2 WHERE id = $1", session.id, _json(kept))
    return await lock(tx, session.id)


async def erase(tx: Transaction, session: Session, *, forgets_keys: bool = True) -> int:
    """Delete everything of a session. Its row goes first: a worker's write finds no fence and writes nothing.

    Args:
        forgets_keys: whether idempotency keys go, too. If not, those stay that hold no answer but only say what a request has
            made: a repeat of it finds that this is gone, and makes nothing.

    Returns: how many rows that were.
    """
    tags = [await tx.db.execute("DELETE FROM sessions WHERE id = $1", session.id)]
    tags += [await tx.db.execute(f"DELETE FROM {table} WHERE session_id = $1", session.id) for table in OF_SESSION]
    query = """DELETE FROM idempotency_keys
               WHERE session_id = $1 AND ($2 OR response IS NOT NULL) OR realm_id = $3 AND path = $4"""
    fork = f"/v1/sessions/{session.id}/fork"  # a fork's key is the copy's, but its path names this session
    tags.append(await tx.db.execute(query, session.id, forgets_keys, session.realm, fork))
    return sum(int(tag.rpartition(" ")[2]) for tag in tags)


async def fences(db: Connection, session_ids: Sequence[str]) -> dict[str, int]:
    """Read the fences of many sessions; those that are gone are missing."""
    rows = await db.fetch("SELECT id, fence FROM sessions WHERE id = ANY ($1::uuid[])", session_ids)
    return {str(row["id"]): row["fence"] for row in rows}


async def append_number(tx: Transaction, session_id: str) -> int:
    """Return the number of the last entry that the session's attempt has written."""
    number: int = await tx.db.fetchval("SELECT append_number FROM sessions WHERE id = $1", session_id)
    return number


def summary(session: Session) -> dict[str, Any]:
    """Show a session as lists do."""
    return {
        "session_id": session.id,
        "created_at": clock.rfc3339(session.created_at),
        "updated_at": clock.rfc3339(session.updated_at),
        "archived_at": clock.rfc3339(session.archived_at) if session.archived_at else None,
        "title": session.title,
        "labels": session.labels,
        "model": session.options.model,
        "status": "archived" if session.archived_at else session.status,
        "is_active": session.current_turn_id is not None,
        "message_count": session.message_count,
        "total_tokens": session.usage.total_tokens,
    }


def view(session: Session) -> dict[str, Any]:
    """Show a whole session."""
    state = summary(session)
    total_tokens = state.pop("total_tokens")
    state |= {
        "provider": session.options.provider,
        "current_turn_id": session.current_turn_id,
        "queued_turns": session.queued_turns,
        "last_assistant_text": session.last_assistant_text,
        "last_seq": session.last_seq,
        "instance_id": session.instance_id,
        "backend": "postgres",
        "config_generation": session.config_generation,
    }
    return {"state": state, "billing": {"total_tokens": total_tokens, "usage": asdict(session.usage)}}


def with_overrides(options: Options, overrides: Mapping[str, Any]) -> Options:
    """Return the options that hold for one turn."""
    return replace(options, **overrides)


async def _one(db: Connection, query: str, session_id: str) -> Session:
    row = await db.fetchrow(query, db.realm, session_id) if ids.is_id(session_id) else None
    if row is None:
        raise SessionNotFound
    return session_from(row)


def session_from(row: Row) -> Session:
    """Read a session off a row of `COLUMNS` and `owner`."""
    return Session(
        realm=row["realm_id"],
        id=SessionId(str(row["id"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        archived_at=row["archived_at"],
        title=_loaded(row["title"]),
        labels=orjson.loads(row["labels"]),
        options=Options(**orjson.loads(row["options"])),
        status=row["status"],
        fence=row["fence"],
        last_seq=row["last_seq"],
        message_count=row["message_count"],
        turn_count=row["turn_count"],
        queued_turns=row["queued_turns"],
        current_turn_id=_text(row["current_turn_id"]),
        kept_prompt=row["kept_prompt"],
        is_system_prompt_due=row["is_system_prompt_due"],
        last_assistant_text=_loaded(row["last_assistant_text"]),
        usage=Usage(row["input_tokens"], row["output_tokens"], row["cache_creation_tokens"], row["cache_read_tokens"]),
        is_ephemeral=row["is_ephemeral"],
        instance_id=_text(row["owner"]),
        config_generation=row["config_generation"],
        spent_tokens=row["spent_tokens"],
        running_ms=row["running_ms"],
        tool_call_count=row["tool_call_count"],
        summed_up_to=row["summed_up_to"],
        brings_providers=bool(row.get("brings_providers")),
        is_watched=bool(row.get("is_watched")),
    )


def _title_columns(title: str | None) -> tuple[str | None, str | None]:
    return (None, None) if title is None else (_json(title), folded(title))


def folded(text: str) -> str:
    """Fold case for search; NUL, which Postgres' text cannot hold, becomes the replacement character."""
    return text.casefold().replace("\0", "\ufffd")


def _label_columns(labels: Mapping[str, str]) -> tuple[str, list[str]]:
    return _json(labels), [_json(f"{key}:{value}") for key, value in labels.items()]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _loaded(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
