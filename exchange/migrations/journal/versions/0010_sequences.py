"""Which delivery of its sender to its feed each one is, as the sender counts; and which days' accounts are entered."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None

NUMBERED = sa.text("sequence IS NOT NULL")


def upgrade() -> None:
    """What was accepted before was not counted by anybody: it has no number."""
    op.add_column("inbox", sa.Column("sequence", sa.BigInteger))
    # One delivery a number, of which the sequencer tells the sender before this index has to.
    op.create_index(
        "inbox_sequence",
        "inbox",
        ["sender", "feed", "sequence"],
        unique=True,
        sqlite_where=NUMBERED,
        postgresql_where=NUMBERED,
    )
    op.create_index("inbox_entry", "inbox", ["entry_index"])
    # One account a day, however many processes make it.
    op.create_table(
        "accounts",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("entry_index", sa.BigInteger, nullable=False),
    )
