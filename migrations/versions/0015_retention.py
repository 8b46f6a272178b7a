"""What is old is found by index: ended turns whose deltas are still there, and sessions by when they were archived."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.add_column(
        "turns",
        sa.Column(
            "has_deltas", sa.Boolean(), nullable=False, server_default=sa.text("true"), comment="false once retention took them"
        ),
    )
    op.create_index("turns_with_deltas", "turns", ["ended_at"], postgresql_where=sa.text("has_deltas AND ended_at IS NOT NULL"))
    op.create_index("sessions_by_archival", "sessions", ["archived_at"], postgresql_where=sa.text("archived_at IS NOT NULL"))
