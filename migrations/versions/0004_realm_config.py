"""The realm's configuration, and under which generation of it a session was made or last changed."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before must go on running on it."""
    op.create_table(
        "realms",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False, comment="JSON text: the keys that are set"),
        sa.Column(
            "generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="how often it has changed"
        ),
        sa.PrimaryKeyConstraint("realm_id"),
    )
    op.add_column(
        "sessions",
        sa.Column(
            "config_generation",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of the realm's configuration when the session was made or last changed",
        ),
    )
