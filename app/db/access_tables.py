"""The tables of who may, how much they use, and who is told: a part of `app.db.tables`."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Float,
    Identity,
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

api_keys = Table(
    "api_keys",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("id", Uuid, primary_key=True),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the key"),
    Column("hint", Text, nullable=False, comment="how the key begins"),
    Column("name", Text, nullable=False, comment="JSON text"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", AT, nullable=False),
    Column("created_by", Text, nullable=False, comment="a credential, or a command"),
    Column("expires_at", AT),
    Column("revoked_at", AT),
    Column("last_used_at", AT, comment="to the minute"),
    Index("api_keys_by_hash", "hash", unique=True),
    Index("api_keys_by_realm", "realm_id", "id"),
)

stream_tickets = Table(
    "stream_tickets",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("hash", LargeBinary, primary_key=True, comment="SHA-256 of the ticket"),
    Column("session_id", Uuid, nullable=False),
    Column("credential", Text, nullable=False, comment="who asked for it"),
    Column("credential_expires_at", AT),
    Column("expires_at", AT, nullable=False),
    Index("stream_tickets_by_session", "session_id"),
    Index("stream_tickets_by_age", "expires_at"),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("at", AT, nullable=False),
    Column("credential", Text, nullable=False),
    Column("action", Text, nullable=False, comment="method and route, or a command"),
    Column("target", Text, nullable=False, comment="JSON text: ids by name"),
    Column("request_id", Text),
    PrimaryKeyConstraint("realm_id", "id"),
    Index("audit_entries_by_age", "at"),
)

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("bucket", Text, nullable=False, comment="a credential, or `realm`"),
    Column("rate", Float, nullable=False, comment="requests a second"),
    Column("burst", Float, nullable=False, comment="most tokens"),
    Column("asked", Float, nullable=False, comment="by the last question"),
    Column("granted", Float, nullable=False, comment="to it"),
    Column("tokens", Float, nullable=False, comment="requests that may come at once, at `at`"),
    Column("at", AT, nullable=False),
    PrimaryKeyConstraint("realm_id", "bucket"),
    prefixes=["UNLOGGED"],
)

stream_counts = Table(
    "stream_counts",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("node_id", Uuid, nullable=False),
    Column("streams", Integer, nullable=False),
    Column("at", AT, nullable=False),
    PrimaryKeyConstraint("realm_id", "node_id"),
    prefixes=["UNLOGGED"],
)

realm_totals = Table(
    "realm_totals",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("sessions", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("counted_at", AT, nullable=False),
    PrimaryKeyConstraint("realm_id"),
)

_COUNTS = ("calls", "input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens")

usage_reports = Table(
    "usage_reports",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("day", Date, nullable=False, comment="in UTC, by the clock that the events bear"),
    Column("credential", Text, comment="who started the turn; null where that is not known"),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False, comment="that answered"),
    *(Column(name, BigInteger, nullable=False) for name in _COUNTS),
    PrimaryKeyConstraint("realm_id", "id"),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("day", Date, nullable=False, comment="in UTC"),
    Column("credential", Text, nullable=False, comment="empty where it is not known"),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in _COUNTS),
    PrimaryKeyConstraint("realm_id", "day", "credential", "provider", "model"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("id", Uuid, primary_key=True),
    Column("url", Text, nullable=False),
    Column("types", ARRAY(Text), nullable=False, comment="of events that it is told of"),
    Column("session_id", Uuid, comment="the only session it is told of; null is all"),
    Column("secret", Text, nullable=False, comment="sealed, with a dot in it, or as it is"),
    Column("is_enabled", Boolean, nullable=False, server_default=text("true")),
    Column("created_at", AT, nullable=False),
    Column("updated_at", AT, nullable=False),
    Index("webhooks_by_realm", "realm_id", "id"),
    Index("webhooks_by_session", "session_id", postgresql_where=text("session_id IS NOT NULL")),
)

webhook_watches = Table(
    "webhook_watches",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("turn_id", Uuid, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="up to which the turn's log has become deliveries"),
    PrimaryKeyConstraint("session_id", "turn_id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("realm_id", Text, nullable=False),
    Column("id", Uuid, primary_key=True),
    Column("webhook_id", Uuid, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("turn_id", Uuid),
    Column("seq", BigInteger, nullable=False, comment="of the event that is told"),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    Column("attempts", Integer, nullable=False, server_default=ZERO),
    Column("due_at", AT, nullable=False, comment="next try, or when the claim of this one runs out; by the database's clock"),
    Column("last_status", Integer, comment="HTTP status of the last answer"),
    Column("last_error", Text),
    Column("created_at", AT, nullable=False),
    Column("ended_at", AT, comment="null while pending"),
    UniqueConstraint("webhook_id", "session_id", "seq", name="webhook_deliveries_once"),
    CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status_known"),
    Index("webhook_deliveries_due", "due_at", postgresql_where=text("status = 'pending'")),
    Index("webhook_deliveries_by_webhook", "webhook_id", "id"),
    Index("webhook_deliveries_by_session", "session_id"),
    Index("webhook_deliveries_by_end", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)
