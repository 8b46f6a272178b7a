"""The tables, typed: what migrations make and what a test holds against the database.

The running server speaks SQL through asyncpg and never imports this module (docs/decisions/0002). What clients wrote is kept
as JSON text: Postgres' `text` and `jsonb` refuse NUL, JSON's escape does not.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from app.db.columns import AT, ZERO, metadata

__all__ = ["access_tables", "metadata"]


_OWN_REALM = text("current_setting('suricate.realm')")  # of the transaction that makes the row
_ARCHIVED, _NOT_ARCHIVED = text("archived_at IS NOT NULL"), text("archived_at IS NULL")
_TERMINAL = "('completed', 'failed', 'interrupted', 'cancelled')"

realms = Table(
    "realms",
    metadata,
    Column("realm_id", Text, primary_key=True),
    Column("config", Text, nullable=False, comment="JSON text: the keys that are set"),
    Column("generation", BigInteger, nullable=False, server_default=ZERO, comment="how often it has changed"),
    Column(
        "brings_providers",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether `config` has keys or URLs of vendors",
    ),
)

sessions = Table(
    "sessions",
    metadata,
    Column("realm_id", Text, nullable=False, comment="the tenant"),
    Column("id", Uuid, primary_key=True),
    Column("created_at", AT, nullable=False),
    Column("updated_at", AT, nullable=False, comment="changes at the edges of turns, never within one"),
    Column("archived_at", AT),
    Column("title", Text, comment="JSON text"),
    Column("title_search", Text, comment="folded for `q`"),
    Column("labels", Text, nullable=False, comment="JSON text, as given"),
    Column("label_terms", ARRAY(Text), nullable=False, comment="JSON text of each `key:value`, for filters"),
    Column("options", Text, nullable=False, comment="JSON text: model, provider, system prompt, …"),
    Column("status", Text, nullable=False, comment="idle, running, waiting; archived is `archived_at`"),
    Column("fence", BigInteger, nullable=False, server_default=ZERO, comment="grows with each claim and each end"),
    Column("append_number", BigInteger, nullable=False, server_default=ZERO, comment="last entry of this fence"),
    Column("last_seq", BigInteger, nullable=False, server_default=ZERO),
    Column("message_count", Integer, nullable=False, server_default=ZERO),
    Column("turn_count", Integer, nullable=False, server_default=ZERO),
    Column("queued_turns", Integer, nullable=False, server_default=ZERO),
    Column("current_turn_id", Uuid),
    Column(
        "has_notes",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether something waits for the live turn's next step boundary",
    ),
    Column("kept_prompt", Text, comment="JSON text of blocks that open the first turn's user message"),
    Column("is_system_prompt_due", Boolean, nullable=False, server_default=text("false")),
    Column("last_assistant_text", Text, comment="JSON text"),
    Column("is_ephemeral", Boolean, nullable=False, server_default=text("false"), comment="goes after its last turn"),
    Column("erase_fence", BigInteger, nullable=False, server_default=ZERO, comment="the fence that `erase_at` is for"),
    Column("erase_at", AT, comment="when an ephemeral session goes, if its fence has not grown; by the database's clock"),
    Column("input_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("output_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("cache_creation_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("cache_read_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column(
        "config_generation",
        BigInteger,
        nullable=False,
        server_default=ZERO,
        comment="of the realm's configuration when the session was made or last changed",
    ),
    Column("spent_tokens", BigInteger, nullable=False, server_default=ZERO, comment="counted against budgets"),
    Column("running_ms", BigInteger, nullable=False, server_default=ZERO, comment="without time of waiting"),
    Column("tool_call_count", BigInteger, nullable=False, server_default=ZERO),
    Column(
        "summed_up_to",
        Integer,
        nullable=False,
        server_default=ZERO,
        comment="ordinal up to which the newest summary stands in for messages",
    ),
    Column("stored_bytes", BigInteger, nullable=False, server_default=ZERO, comment="of events and messages"),
    CheckConstraint("status IN ('idle', 'running', 'waiting')", name="status_known"),
    CheckConstraint("(current_turn_id IS NULL) = (status = 'idle')", name="live_turn_has_status"),
    CheckConstraint("archived_at IS NULL OR (current_turn_id IS NULL AND queued_turns = 0)", name="archived_is_still"),
    Index("sessions_by_update", "realm_id", "updated_at", "id", postgresql_where=_NOT_ARCHIVED),
    Index("sessions_by_creation", "realm_id", "created_at", "id", postgresql_where=_NOT_ARCHIVED),
    Index("sessions_archived_by_update", "realm_id", "updated_at", "id", postgresql_where=_ARCHIVED),
    Index("sessions_archived_by_creation", "realm_id", "created_at", "id", postgresql_where=_ARCHIVED),
    Index("sessions_by_archival", "archived_at", postgresql_where=_ARCHIVED),
    Index("sessions_live", "realm_id", "updated_at", "id", postgresql_where=text("status <> 'idle'")),
    Index("sessions_ephemeral", "id", postgresql_where=text("is_ephemeral")),
    Index("sessions_by_label", "label_terms", postgresql_using="gin"),
    postgresql_with={"fillfactor": "50"},
)

turns = Table(
    "turns",
    metadata,
    Column("realm_id", Text, nullable=False, server_default=_OWN_REALM),
    Column("session_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("prompt", Text, nullable=False, comment="JSON text: a string or blocks"),
    Column("overrides", Text, nullable=False, comment="JSON text: options that hold for this turn"),
    Column("fence", BigInteger, nullable=False, server_default=ZERO, comment="the session's, when it was claimed"),
    Column("owner", Uuid, comment="the node that holds it"),
    Column("lease_expires_at", AT, comment="judged by the database's clock; null while queued"),
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("recoveries", Integer, nullable=False, server_default=ZERO, comment="attempts that ended in a crash"),
    Column("steps", Integer, nullable=False, server_default=ZERO),
    Column("tool_calls", Integer, nullable=False, server_default=ZERO),
    Column("text", Text, comment="JSON text"),
    Column("stop_reason", Text),
    Column("error", Text, comment="JSON text"),
    Column("input_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("output_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("cache_creation_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("cache_read_tokens", BigInteger, nullable=False, server_default=ZERO),
    Column("spent_tokens", BigInteger, nullable=False, server_default=ZERO, comment="counted against budgets"),
    Column("running_ms", BigInteger, nullable=False, server_default=ZERO, comment="without time of waiting"),
    Column("structured_output", Text, comment="JSON text"),
    Column("schema_warnings", Text, comment="JSON text: sentences"),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, comment="null while live"),
    Column("created_at", AT, nullable=False),
    Column("started_at", AT),
    Column("ended_at", AT),
    Column("pending", Text, comment="JSON text: calls that callers are to answer"),
    Column("waits_until", AT, comment="first of their expiries"),
    Column("allowed", Text, comment="JSON text: ids of calls that were allowed"),
    Column("steering", Text, comment="JSON text: prompts to put in before the next step"),
    Column("stop_note", Text, comment="JSON text: end after this step, and why"),
    Column("credential", Text, comment="who started it"),
    Column("has_deltas", Boolean, nullable=False, server_default=text("true"), comment="false once retention took them"),
    PrimaryKeyConstraint("session_id", "id"),
    UniqueConstraint("session_id", "number", name="turns_session_id_number"),
    CheckConstraint(
        f"status IN ('queued', 'running', 'waiting') OR status IN {_TERMINAL}",
        name="status_known",
    ),
    CheckConstraint(f"(ended_at IS NOT NULL) = (status IN {_TERMINAL})", name="ended_has_time"),
    Index("turns_with_deltas", "ended_at", postgresql_where=text("has_deltas AND ended_at IS NOT NULL")),
    Index("turns_waiting", "waits_until", postgresql_where=text("waits_until IS NOT NULL")),
    Index("turns_one_live", "session_id", unique=True, postgresql_where=text("status IN ('running', 'waiting')")),
    postgresql_with={"fillfactor": "70"},
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Uuid, primary_key=True, comment="what `turns.owner` names"),
    Column("kind", Text, nullable=False, comment="serve or worker"),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("max_live_turns", Integer, nullable=False),
    Column("started_at", AT, nullable=False),
    Column("seen_at", AT, nullable=False, comment="its last renewal"),
    Column("lease_expires_at", AT, nullable=False, comment="judged by the database's clock"),
    Column(
        "is_draining",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="set by an operator, or by the node that stops",
    ),
)

messages = Table(
    "messages",
    metadata,
    Column("realm_id", Text, nullable=False, server_default=_OWN_REALM),
    Column("session_id", Uuid, nullable=False),
    Column("ordinal", Integer, nullable=False, comment="from 1, without gaps"),
    Column("turn_id", Uuid),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False, comment="JSON text of blocks"),
    Column("stop_reason", Text),
    Column("created_at", AT, nullable=False),
    Column("is_summary", Boolean, nullable=False, server_default=text("false")),
    Column("sums_up_to", Integer, comment="of a summary: ordinal up to which it stands in for messages"),
    PrimaryKeyConstraint("session_id", "ordinal"),
    CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name="role_known"),
)

events = Table(
    "events",
    metadata,
    Column("realm_id", Text, nullable=False, server_default=_OWN_REALM),
    Column("session_id", Uuid, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="from 1, without gaps"),
    Column("turn_id", Uuid),
    Column("type", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("at", AT, nullable=False),
    Column("payload", Text, nullable=False, comment="the JSON text that is sent, from `session_id` on"),
    PrimaryKeyConstraint("session_id", "seq"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False, comment="SHA-256 of the canonical body"),
    Column("session_id", Uuid, comment="whose turn a repeat joins, or whose erasure takes this along"),
    Column("turn_id", Uuid, comment="the turn that a repeat joins"),
    Column("response", Text, comment="JSON text of the answer, where no turn is joined"),
    Column("created_at", AT, nullable=False),
    PrimaryKeyConstraint("realm_id", "path", "key"),
    Index("idempotency_keys_by_age", "created_at"),
    Index("idempotency_keys_by_session", "session_id"),
)

schema_floor = Table(
    "schema_floor",
    metadata,
    Column("revision", Text, primary_key=True, comment="code of an older one must not run here"),
)

from app.db import access_tables  # noqa: E402 - they follow, in the order of the documents
