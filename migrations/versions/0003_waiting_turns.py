"""Turns that wait for their callers, and words that wait for a turn's next step."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.add_column(
        "sessions",
        sa.Column(
            "has_notes",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether something waits for the live turn's next step boundary",
        ),
    )
    for name, kind, comment in (
        ("pending", sa.Text(), "JSON text: calls that callers are to answer"),
        ("waits_until", sa.DateTime(timezone=True), "first of their expiries"),
        ("allowed", sa.Text(), "JSON text: ids of calls that were allowed"),
        ("steering", sa.Text(), "JSON text: prompts to put in before the next step"),
        ("stop_note", sa.Text(), "JSON text: end after this step, and why"),
    ):
        op.add_column("turns", sa.Column(name, kind, nullable=True, comment=comment))
    op.create_index(
        "turns_waiting", "turns", ["waits_until"], unique=False, postgresql_where=sa.text("waits_until IS NOT NULL")
    )
