"""The planner reckons with many turns in a session: it would look for one among all of them where most sessions have one."""

from collections.abc import Sequence

from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Expand the schema; code of the version before goes on running on it."""
    op.execute("ALTER TABLE turns ALTER COLUMN session_id SET (n_distinct = -0.05)")  # holds from the next ANALYZE on
