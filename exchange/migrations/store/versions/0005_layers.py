"""Layers of reference data by version, by which of them components are placed, and where they were counted before."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TEXTS = {
    "layer_versions": ("layer", "digest"),
    "layer_features": ("source_key", "name", "attributes"),
    "placed_by": ("layer",),
    "placed_before": ("division_code", "grid_code"),
}


def upgrade() -> None:
    """Make the tables; on a server their texts are sorted by octet, as all others are."""
    _layers()
    _placing()
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        for table, columns in TEXTS.items():
            for column in columns:
                bind.exec_driver_sql(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE TEXT COLLATE "C"')


def _layers() -> None:
    op.create_table(
        "layer_versions",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("layer", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("delivery_id", KEY, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("features", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.BigInteger, nullable=False),
        sa.Column("valid_from_us", sa.BigInteger, nullable=False),
    )
    op.create_index("layer_versions_number", "layer_versions", ["layer", "version"], unique=True)
    op.create_table(
        "layer_features",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("version_id", sa.BigInteger, nullable=False),
        sa.Column("record", sa.Integer, nullable=False),
        sa.Column("source_key", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("wkb", sa.LargeBinary, nullable=False),
        sa.Column("west_deg", sa.Double, nullable=False),
        sa.Column("south_deg", sa.Double, nullable=False),
        sa.Column("east_deg", sa.Double, nullable=False),
        sa.Column("north_deg", sa.Double, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("news", sa.Integer, nullable=False),
        sa.Column("attributes", sa.Text),
    )
    op.create_index("layer_features_key", "layer_features", ["version_id", "source_key"], unique=True)


def _placing() -> None:
    op.create_table(
        "placed_by",
        sa.Column("layer", sa.Text, primary_key=True),
        sa.Column("version_id", sa.BigInteger),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("moved", sa.BigInteger, nullable=False),
        sa.Column("noted", sa.Integer, nullable=False),
    )
    op.create_table(
        "placed_before",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("claim_id", sa.BigInteger, nullable=False),
        sa.Column("delivery_id", KEY, nullable=False),
        sa.Column("record", sa.Integer, nullable=False),
        sa.Column("from_us", sa.BigInteger, nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.Column("division_code", sa.Text),
        sa.Column("grid_code", sa.Text),
    )
    op.create_index("placed_before_claim", "placed_before", ["claim_id"])
