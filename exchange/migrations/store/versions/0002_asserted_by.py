"""Who said it in another's name: the bureau that signed a delivery on behalf of its sender."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what was stored before was said by the sender itself."""
    op.add_column("deliveries", sa.Column("asserted_by", sa.Text))
