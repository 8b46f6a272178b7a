"""Webhooks with what is to be delivered to them, and realms that bring keys or URLs of vendors."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import walls

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.add_column(
        "realms",
        sa.Column(
            "brings_providers",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether `config` has keys or URLs of vendors",
        ),
    )
    _webhooks()
    _watches()
    _deliveries()
    for table in ("webhooks", "webhook_watches", "webhook_deliveries"):
        for statement in walls.build(table):
            op.execute(statement)


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("types", sa.ARRAY(sa.Text()), nullable=False, comment="of events that it is told of"),
        sa.Column("session_id", sa.Uuid(), nullable=True, comment="the only session it is told of; null is all"),
        sa.Column("secret", sa.Text(), nullable=False, comment="sealed, with a dot in it, or as it is"),
        sa.Column("is_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhooks_by_realm", "webhooks", ["realm_id", "id"])
    op.create_index("webhooks_by_session", "webhooks", ["session_id"], postgresql_where=sa.text("session_id IS NOT NULL"))


def _watches() -> None:
    op.create_table(
        "webhook_watches",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="up to which the turn's log has become deliveries"),
        sa.PrimaryKeyConstraint("session_id", "turn_id"),
    )


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="of the event that is told"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "due_at", _AT, nullable=False, comment="next try, or when the claim of this one runs out; by the database's clock"
        ),
        sa.Column("last_status", sa.Integer(), nullable=True, comment="HTTP status of the last answer"),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("ended_at", _AT, nullable=True, comment="null while pending"),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'dead')", name=op.f("webhook_deliveries_status_known")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("webhook_id", "session_id", "seq", name="webhook_deliveries_once"),
    )
    is_pending, is_over = sa.text("status = 'pending'"), sa.text("ended_at IS NOT NULL")
    op.create_index("webhook_deliveries_due", "webhook_deliveries", ["due_at"], postgresql_where=is_pending)
    op.create_index("webhook_deliveries_by_webhook", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("webhook_deliveries_by_session", "webhook_deliveries", ["session_id"])
    op.create_index("webhook_deliveries_by_end", "webhook_deliveries", ["ended_at"], postgresql_where=is_over)
