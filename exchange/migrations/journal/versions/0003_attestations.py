"""What others say of the log's heads: witnesses' signatures, and timestamps."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Two tables beside the heads; nothing in them is part of the log."""
    op.create_table(
        "cosignatures",
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("witness", sa.Text, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("signed_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("size", "witness"),
    )
    op.create_table(
        "timestamps",
        sa.Column("size", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("stamped_at", sa.Text, nullable=False),
    )
