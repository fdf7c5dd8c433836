"""Which of its own keys the bus signs with, from which size of the log on."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Written with the entry that changes a key; without a row the key is the one of `init`."""
    op.create_table(
        "own_keys",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("first_size", WHOLE, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", "first_size"),
    )
