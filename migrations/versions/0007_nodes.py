"""Nodes: the processes on this database, and which of them are told to drain."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.create_table(
        "nodes",
        sa.Column("id", sa.Uuid(), nullable=False, comment="what `turns.owner` names"),
        sa.Column("kind", sa.Text(), nullable=False, comment="serve or worker"),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("max_live_turns", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, comment="its last renewal"),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False, comment="judged by the database's clock"),
        sa.Column(
            "is_draining",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="set by an operator, or by the node that stops",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
