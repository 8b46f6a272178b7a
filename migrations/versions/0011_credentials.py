"""Credentials: API keys, tickets for streams, who started a turn, and the trail of what was done."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import walls

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Expand the schema."""
    op.add_column("turns", sa.Column("credential", sa.Text(), comment="who started it"))
    _keys()
    _tickets()
    op.create_table(
        "audit_entries",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False, comment="method and route, or a command"),
        sa.Column("target", sa.Text(), nullable=False, comment="JSON text: ids by name"),
        sa.Column("request_id", sa.Text()),
        sa.PrimaryKeyConstraint("realm_id", "id"),
    )
    op.create_index("audit_entries_by_age", "audit_entries", ["at"])
    for table in ("api_keys", "stream_tickets"):
        for statement in walls.build(table):
            op.execute(statement)
    for statement in walls.build_append_only("audit_entries"):
        op.execute(statement)


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key"),
        sa.Column("hint", sa.Text(), nullable=False, comment="how the key begins"),
        sa.Column("name", sa.Text(), nullable=False, comment="JSON text"),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False, comment="a credential, or a command"),
        sa.Column("expires_at", _AT),
        sa.Column("revoked_at", _AT),
        sa.Column("last_used_at", _AT, comment="to the minute"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("api_keys_by_hash", "api_keys", ["hash"], unique=True)
    op.create_index("api_keys_by_realm", "api_keys", ["realm_id", "id"])


def _tickets() -> None:
    op.create_table(
        "stream_tickets",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the ticket"),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False, comment="who asked for it"),
        sa.Column("credential_expires_at", _AT),
        sa.Column("expires_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("stream_tickets_by_session", "stream_tickets", ["session_id"])
    op.create_index("stream_tickets_by_age", "stream_tickets", ["expires_at"])
