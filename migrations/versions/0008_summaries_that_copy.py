"""How far each summary reaches, so that copies of a session can have it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.add_column(
        "messages",
        sa.Column(
            "sums_up_to", sa.Integer(), nullable=True, comment="of a summary: ordinal up to which it stands in for messages"
        ),
    )
