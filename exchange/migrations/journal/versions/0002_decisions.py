"""What is enrolled and granted is told from signed entries; a table only finds them.

Rows of the tables that go carried no signatures, so none of them could count any more: bureaus are enrolled anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Put the finding table in place of bureaus, certificates and grants."""
    for table in ("bureaus", "certificates", "grants"):
        op.drop_table(table)
    # With the salt a name is what its office commits to, or it is shown as altered.
    op.add_column("persons", sa.Column("salt", sa.LargeBinary, nullable=False, server_default=""))
    # A decision has each outcome once: two approvals at the same moment cannot both be.
    op.create_table(
        "decisions",
        sa.Column("entry_index", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.UniqueConstraint("id", "outcome"),
    )
