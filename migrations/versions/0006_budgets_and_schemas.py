"""What turns and sessions have used up, answers as values, and summaries that stand in for older messages."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    zero = sa.text("0")
    for table in ("sessions", "turns"):
        op.add_column(
            table,
            sa.Column("spent_tokens", sa.BigInteger(), server_default=zero, nullable=False, comment="counted against budgets"),
        )
        op.add_column(
            table,
            sa.Column("running_ms", sa.BigInteger(), server_default=zero, nullable=False, comment="without time of waiting"),
        )
    op.add_column("sessions", sa.Column("tool_call_count", sa.BigInteger(), server_default=zero, nullable=False))
    op.add_column(
        "sessions",
        sa.Column(
            "summed_up_to",
            sa.Integer(),
            server_default=zero,
            nullable=False,
            comment="ordinal up to which the newest summary stands in for messages",
        ),
    )
    op.add_column("turns", sa.Column("structured_output", sa.Text(), nullable=True, comment="JSON text"))
    op.add_column("turns", sa.Column("schema_warnings", sa.Text(), nullable=True, comment="JSON text: sentences"))
    op.add_column("messages", sa.Column("is_summary", sa.Boolean(), server_default=sa.text("false"), nullable=False))
