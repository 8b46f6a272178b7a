"""Lists of sessions by index: one for each order, apart for archived sessions, live ones and others."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.drop_index("sessions_by_update", table_name="sessions")
    op.drop_index("sessions_by_creation", table_name="sessions")
    for name, column in (("update", "updated_at"), ("creation", "created_at")):
        op.create_index(
            f"sessions_by_{name}", "sessions", ["realm_id", column, "id"], postgresql_where=sa.text("archived_at IS NULL")
        )
        op.create_index(
            f"sessions_archived_by_{name}",
            "sessions",
            ["realm_id", column, "id"],
            postgresql_where=sa.text("archived_at IS NOT NULL"),
        )
    op.create_index("sessions_live", "sessions", ["realm_id", "updated_at", "id"], postgresql_where=sa.text("status <> 'idle'"))
