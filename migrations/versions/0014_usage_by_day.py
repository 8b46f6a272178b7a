"""What was used, by day: reports as they come, each a row of its own, and the sums that they are booked into."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import walls

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COUNTS = ("calls", "input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens")


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.create_table(
        "usage_reports",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in UTC, by the clock that the events bear"),
        sa.Column("credential", sa.Text(), comment="who started the turn; null where that is not known"),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False, comment="that answered"),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint("realm_id", "id"),
    )
    op.create_table(
        "usage_days",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in UTC"),
        sa.Column("credential", sa.Text(), nullable=False, comment="empty where it is not known"),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint("realm_id", "day", "credential", "provider", "model"),
    )
    for table in ("usage_reports", "usage_days"):
        for statement in walls.build(table):
            op.execute(statement)
