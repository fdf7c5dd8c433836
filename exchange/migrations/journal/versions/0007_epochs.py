"""Which name the log's heads bear, from which size of the log on."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Written with the entry that opens an epoch; without a row the name is the bus's own."""
    op.create_table(
        "epochs",
        sa.Column("first_size", WHOLE, primary_key=True),
        sa.Column("log", sa.Text, nullable=False, unique=True),
    )
