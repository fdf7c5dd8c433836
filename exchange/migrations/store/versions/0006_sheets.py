"""Until when each sheet of a map is known: a new version of one says nothing of the others."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; no feed came by sheets before."""
    server = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "sheets",
        sa.Column("feed_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Text(collation="C" if server else None), primary_key=True),
        sa.Column("as_of_us", sa.BigInteger, nullable=False),
    )
