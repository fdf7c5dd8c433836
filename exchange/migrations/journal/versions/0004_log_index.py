"""An index of the log for searching. It is filled when the journal is opened, a piece at a time, as after any crash."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Which pieces are indexed, what each says, and the key of the hashes that stand for the terms."""
    op.create_table("index_pieces", sa.Column("piece", WHOLE, primary_key=True, autoincrement=False))
    op.create_table(
        "index_terms",
        sa.Column("piece", WHOLE, nullable=False),
        sa.Column("term", WHOLE, nullable=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("piece", "term"),
        sqlite_with_rowid=False,
    )
    keys = op.create_table("index_key", sa.Column("key", sa.LargeBinary, nullable=False))
    op.bulk_insert(keys, [{"key": secrets.token_bytes(32)}])
