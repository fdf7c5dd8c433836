"""Flow: feeds that an operator stopped, jobs that replay dead letters, and an index by which these are found."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
DEAD = sa.text("status IN ('held', 'refused')")
UNDER_WAY = sa.text("state IN ('pending', 'sent')")


def upgrade() -> None:
    """Three tables beside the log; each row names the entry by which a person said so."""
    op.create_index("inbox_dead", "inbox", ["feed", "id"], sqlite_where=DEAD, postgresql_where=DEAD)
    op.create_table(
        "stopped_feeds",
        sa.Column("feed", sa.Text, primary_key=True),
        sa.Column("entry_index", WHOLE, nullable=False),
        sa.Column("refuses", WHOLE, nullable=False),  # 1: at the door, too
    )
    op.create_table(
        "replays",
        sa.Column("entry_index", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("per_minute", WHOLE, nullable=False),  # 0: as fast as act two goes
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "replay_items",
        sa.Column("job", sa.Text, primary_key=True),
        sa.Column("inbox_id", WHOLE, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False, server_default=""),
    )
    # A delivery is in one job at a time, whoever begins another at the same moment.
    op.create_index(
        "replay_items_under_way",
        "replay_items",
        ["inbox_id"],
        unique=True,
        sqlite_where=UNDER_WAY,
        postgresql_where=UNDER_WAY,
    )
