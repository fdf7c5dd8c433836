"""What narrows a grant beside its classes: area, attributes, map area."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; grants made before it have no such limit."""
    op.add_column("grants", sa.Column("limits", sa.Text, nullable=False, server_default="{}"))
