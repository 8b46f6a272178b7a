"""What callers use up: buckets of requests, streams that are open, sessions and bytes of a realm."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import walls

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Expand the schema. What a crash may forget is not logged."""
    op.add_column(
        "sessions",
        sa.Column(
            "stored_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0"), comment="of events and messages"
        ),
    )
    op.create_table(
        "rate_buckets",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False, comment="a credential, or `realm`"),
        sa.Column("rate", sa.Float(), nullable=False, comment="requests a second"),
        sa.Column("burst", sa.Float(), nullable=False, comment="most tokens"),
        sa.Column("asked", sa.Float(), nullable=False, comment="by the last question"),
        sa.Column("granted", sa.Float(), nullable=False, comment="to it"),
        sa.Column("tokens", sa.Float(), nullable=False, comment="requests that may come at once, at `at`"),
        sa.Column("at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("realm_id", "bucket"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "stream_counts",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("streams", sa.Integer(), nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("realm_id", "node_id"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "realm_totals",
        sa.Column("realm_id", sa.Text(), nullable=False),
        sa.Column("sessions", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("realm_id"),
    )
    for table in ("rate_buckets", "stream_counts", "realm_totals"):
        for statement in walls.build(table):
            op.execute(statement)
