"""The oldest revision whose code may run on this schema, so that code before a newer one's knows whether it still may."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; a later migration that takes something away raises the number to the first revision without it."""
    floor = op.create_table(
        "schema_floor",
        sa.Column("revision", sa.Text(), nullable=False, comment="code of an older one must not run here"),
        sa.PrimaryKeyConstraint("revision"),
    )
    op.bulk_insert(floor, [{"revision": revision}])
