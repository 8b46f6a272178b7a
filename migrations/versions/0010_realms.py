"""Realms walled in Postgres: each tenant's row bears its realm, and row-level security shows it to no other."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import walls

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Raise the wall. Code of before sees nothing through it, so that its nodes must have stopped."""
    op.alter_column("sessions", "realm_id", comment="the tenant", existing_comment=None)
    for table in ("turns", "messages", "events"):
        op.add_column(table, sa.Column("realm_id", sa.Text(), nullable=False, server_default="default"))
        op.alter_column(table, "realm_id", server_default=sa.text(f"current_setting('{walls.SETTING}')"))
    for table in ("realms", "sessions", "turns", "messages", "events", "idempotency_keys"):
        for statement in walls.build(table):
            op.execute(statement)
    op.execute(f"UPDATE schema_floor SET revision = '{revision}'")
