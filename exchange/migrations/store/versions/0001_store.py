"""The store as it begins: claims and what they were, components, identifiers, deliveries and their outcomes."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
VERSION = (
    ("component_id", sa.BigInteger, False),
    ("delivery_id", KEY, False),
    ("record", sa.Integer, False),
    ("valid_from_us", sa.BigInteger, False),
    ("valid_to_us", sa.BigInteger, True),
    ("closed_by", KEY, True),
    ("digest", sa.LargeBinary, False),
    ("class_code", sa.Text, False),
    ("longitude_deg", sa.Double, False),
    ("latitude_deg", sa.Double, False),
    ("accuracy_m", sa.Double, False),
    ("division_code", sa.Text, True),
    ("grid_code", sa.Text, True),
    ("name", sa.Text, True),
    ("state", sa.Text, True),
    ("roles_id", KEY, False),
    ("more", sa.Text, True),
)


def upgrade() -> None:
    """Make all tables."""
    _deliveries()
    _claims()
    _components()
    _readings()


def _deliveries() -> None:
    op.create_table(
        "feeds",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.Text, nullable=False, unique=True),
        sa.Column("bureau", sa.Text, nullable=False),
        sa.Column("as_of_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "commits",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
        sa.Column("outcomes", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("feed_id", sa.Integer, nullable=False),
        sa.Column("commit_id", KEY, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("evidence_class", sa.Text, nullable=False),
        sa.Column("valid_from_us", sa.BigInteger, nullable=False),
        sa.Column("root", sa.Text, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.UniqueConstraint("sender", "message_id"),
    )


def _version() -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=nullable) for name, kind, nullable in VERSION]


def _claims() -> None:
    parts = [f"{role}_{part}" for role in ("authority", "owner", "maintainer") for part in ("code", "name", "basis")]
    op.create_table(
        "roles",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        *(sa.Column(part, sa.Text) for part in parts),
    )
    op.create_table(
        "claims",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("feed_id", sa.Integer, nullable=False),
        sa.Column("source_key", sa.Text, nullable=False),
        sa.Column("join_distance_m", sa.Double),
        *_version(),
    )
    op.create_index("claims_key", "claims", ["feed_id", "source_key"], unique=True)
    op.create_index("claims_component", "claims", ["component_id"])
    op.create_table(
        "claims_past",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("claim_id", sa.BigInteger, nullable=False),
        *_version(),
        sa.Column("cell", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ties",
        sa.Column("claim_id", sa.BigInteger, primary_key=True),
        sa.Column("component_id", sa.BigInteger, primary_key=True),
        sa.Column("distance_m", sa.Double, nullable=False),
    )
    op.create_index("claims_past_component", "claims_past", ["component_id"])
    op.create_index("claims_past_cell", "claims_past", ["cell"])


def _components() -> None:
    op.create_table(
        "components",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("identifier", sa.Text),
        sa.Column("class_code", sa.Text, nullable=False),
        sa.Column("longitude_deg", sa.Double, nullable=False),
        sa.Column("latitude_deg", sa.Double, nullable=False),
        sa.Column("accuracy_m", sa.Double, nullable=False),
        sa.Column("division_code", sa.Text),
        sa.Column("grid_code", sa.Text),
        sa.Column("cell", sa.BigInteger, nullable=False),
        sa.Column("change_number", sa.BigInteger, nullable=False),
        sa.Column("change_kind", sa.Text, nullable=False),
    )
    op.create_index("components_identifier", "components", ["identifier"], unique=True)
    op.create_index("components_cell", "components", ["cell"])
    op.create_index("components_change", "components", ["change_number", "class_code"])
    op.create_table(
        "serials",
        sa.Column("division_code", sa.Text, primary_key=True),
        sa.Column("class_code", sa.Text, primary_key=True),
        sa.Column("last", sa.Integer, nullable=False),
    )
    counter = op.create_table(
        "change_counter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counter, [{"id": 1, "last": 0}])


def _readings() -> None:
    op.create_table(
        "readings",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("component_id", sa.BigInteger, nullable=False),
        sa.Column("quantity", sa.Text, nullable=False),
        sa.Column("feed_id", sa.Integer, nullable=False),
        sa.Column("observed_at_us", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("state", sa.Text),
        sa.Column("unit", sa.Text),
        sa.Column("delivery_id", KEY, nullable=False),
        sa.Column("record", sa.Integer, nullable=False),
    )
    identity = ["component_id", "quantity", "feed_id", "observed_at_us"]
    op.create_index("readings_identity", "readings", identity, unique=True)
    op.create_table(
        "readings_latest",
        sa.Column("component_id", sa.BigInteger, primary_key=True),
        sa.Column("quantity", sa.Text, primary_key=True),
        sa.Column("feed_id", sa.Integer, primary_key=True),
        sa.Column("reading_id", sa.BigInteger, nullable=False),
        sa.Column("observed_at_us", sa.BigInteger, nullable=False),
    )
