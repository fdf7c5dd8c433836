"""Recall and erasure: what act two has yet to carry out, what lay in the clear, and which details are gone by whom."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("decision = 'recall'")
WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """An index over recalls that wait, and two tables beside the log."""
    op.create_index(
        "inbox_recalled",
        "inbox",
        ["feed", "id"],
        sqlite_where=sa.text("decision = 'recall'"),
        postgresql_where=sa.text("decision = 'recall'"),
    )
    # Where evidence lay in the clear before it was sealed: a crash between sealing and wiping is finished by this.
    op.create_table(
        "wipes",
        sa.Column("location", sa.Text, primary_key=True),
        sa.Column("inbox_id", WHOLE, nullable=False, index=True),
    )
    # Finds the entry by which a detail was erased; that entry names, under the log's own head, all that it erased.
    # part: `detail`, or, at an entry that accepted a delivery, `evidence`.
    op.create_table(
        "erasures",
        sa.Column("entry", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("erased_by", WHOLE, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
    )
