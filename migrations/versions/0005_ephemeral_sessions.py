"""Sessions that go after their last turn: which they are, and when each of them goes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.add_column(
        "sessions",
        sa.Column(
            "is_ephemeral", sa.Boolean, nullable=False, server_default=sa.text("false"), comment="goes after its last turn"
        ),
    )
    op.add_column(
        "sessions",
        sa.Column(
            "erase_fence",
            sa.BigInteger,
            nullable=False,
            server_default=sa.text("0"),
            comment="the fence that `erase_at` is for",
        ),
    )
    op.add_column(
        "sessions",
        sa.Column(
            "erase_at",
            sa.DateTime(timezone=True),
            comment="when an ephemeral session goes, if its fence has not grown; by the database's clock",
        ),
    )
    op.create_index("sessions_ephemeral", "sessions", ["id"], postgresql_where=sa.text("is_ephemeral"))
