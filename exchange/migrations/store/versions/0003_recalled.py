"""Which deliveries were recalled, and of which the content was erased."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nothing that was stored before was either."""
    op.add_column("deliveries", sa.Column("recalled_us", sa.BigInteger))
    op.add_column("deliveries", sa.Column("erased_on", sa.Text))
