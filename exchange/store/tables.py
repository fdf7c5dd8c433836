"""The store's tables, for every engine. Rows are lean: a new component costs two, its claim and itself."""

from typing import Any, Final

import sqlalchemy as sa

from mappings.schema import ROLES

metadata: Final = sa.MetaData()
# What grows with every delivery. On a server a column has the width that it was made with.
_KEY: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# Times are microseconds of UTC since 1970.

feeds: Final = sa.Table(
    "feeds",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("code", sa.Text, nullable=False, unique=True),
    sa.Column("bureau", sa.Text, nullable=False),
    sa.Column("as_of_us", sa.BigInteger, nullable=False),
)

# Of a feed that comes by sheets: until when each of them is known.
sheets: Final = sa.Table(
    "sheets",
    metadata,
    sa.Column("feed_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Text, primary_key=True),
    sa.Column("as_of_us", sa.BigInteger, nullable=False),
)

# One row a transaction of act two, with the outcome of each of its records as an Arrow file.
commits: Final = sa.Table(
    "commits",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
    sa.Column("outcomes", sa.LargeBinary, nullable=False),
)

deliveries: Final = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("feed_id", sa.Integer, nullable=False),
    sa.Column("commit_id", _KEY, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),  # its index in that commit
    sa.Column("entry", sa.BigInteger, nullable=False),
    sa.Column("evidence_class", sa.Text, nullable=False),
    sa.Column("valid_from_us", sa.BigInteger, nullable=False),
    sa.Column("root", sa.Text, nullable=False),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("asserted_by", sa.Text),  # the bureau that signed it in the sender's name, where that was another
    sa.Column("recalled_us", sa.BigInteger),
    sa.Column("erased_on", sa.Text),  # the day of the city, YYYY-MM-DD
    sa.UniqueConstraint("sender", "message_id"),
)

# A combination of units that claims state for the three roles; many claims share few.
roles: Final = sa.Table(
    "roles",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    *(sa.Column(f"{role}_{part}", sa.Text) for role in ROLES for part in ("code", "name", "basis")),
)


def _version() -> list[sa.Column[Any]]:
    """What one version of a claim says, from when until when, and which deliveries said and ended it."""
    return [
        sa.Column("component_id", sa.BigInteger, nullable=False),
        sa.Column("delivery_id", _KEY, nullable=False),
        sa.Column("record", sa.Integer, nullable=False),
        sa.Column("valid_from_us", sa.BigInteger, nullable=False),
        sa.Column("valid_to_us", sa.BigInteger),
        sa.Column("closed_by", _KEY),  # the delivery that replaced or ended it
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("class_code", sa.Text, nullable=False),
        sa.Column("longitude_deg", sa.Double, nullable=False),
        sa.Column("latitude_deg", sa.Double, nullable=False),
        sa.Column("accuracy_m", sa.Double, nullable=False),
        sa.Column("division_code", sa.Text),  # of the position
        sa.Column("grid_code", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("state", sa.Text),
        sa.Column("roles_id", _KEY, nullable=False),
        sa.Column("more", sa.Text),  # JSON: what else the record said
    ]


# One row a key of a feed, for ever: what it says now, or said last before it ended.
claims: Final = sa.Table(
    "claims",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("feed_id", sa.Integer, nullable=False),
    sa.Column("source_key", sa.Text, nullable=False),
    sa.Column("join_distance_m", sa.Double),  # null: it founded the component
    *_version(),
    sa.Index("claims_key", "feed_id", "source_key", unique=True),
    sa.Index("claims_component", "component_id"),
)

# What claims said before they changed. Written when they do, never altered.
claims_past: Final = sa.Table(
    "claims_past",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("claim_id", sa.BigInteger, nullable=False),
    *_version(),
    sa.Column("cell", sa.BigInteger, nullable=False),
    sa.Index("claims_past_component", "component_id"),
    sa.Index("claims_past_cell", "cell"),
)

# Components that a claim may speak of, none nearer than the others: open until the claim says something else.
ties: Final = sa.Table(
    "ties",
    metadata,
    sa.Column("claim_id", sa.BigInteger, primary_key=True),
    sa.Column("component_id", sa.BigInteger, primary_key=True),
    sa.Column("distance_m", sa.Double, nullable=False),
)

# Place, division and grid are those of the claim known longest among those that stand; the class is that of the first
# of them that is sure of it, and once decided stays so.
components: Final = sa.Table(
    "components",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("identifier", sa.Text),  # null: pending
    sa.Column("class_code", sa.Text, nullable=False),
    sa.Column("longitude_deg", sa.Double, nullable=False),
    sa.Column("latitude_deg", sa.Double, nullable=False),
    sa.Column("accuracy_m", sa.Double, nullable=False),
    sa.Column("division_code", sa.Text),
    sa.Column("grid_code", sa.Text),
    sa.Column("cell", sa.BigInteger, nullable=False),
    sa.Column("change_number", sa.BigInteger, nullable=False),
    sa.Column("change_kind", sa.Text, nullable=False),  # new | changed | orphaned | recalled: what happened to it last
    sa.Index("components_identifier", "identifier", unique=True),
    sa.Index("components_cell", "cell"),
    sa.Index("components_change", "change_number", "class_code"),  # the change feed reads by number, within a grant
)

# 监测读数: what things reported, by component, quantity and moment; only ever added to.
readings: Final = sa.Table(
    "readings",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("component_id", sa.BigInteger, nullable=False),
    sa.Column("quantity", sa.Text, nullable=False),
    sa.Column("feed_id", sa.Integer, nullable=False),
    sa.Column("observed_at_us", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("state", sa.Text),
    sa.Column("unit", sa.Text),
    sa.Column("delivery_id", _KEY, nullable=False),
    sa.Column("record", sa.Integer, nullable=False),
    sa.Index("readings_identity", "component_id", "quantity", "feed_id", "observed_at_us", unique=True),
)

# Which reading of a component, quantity and feed is the latest observed.
readings_latest: Final = sa.Table(
    "readings_latest",
    metadata,
    sa.Column("component_id", sa.BigInteger, primary_key=True),
    sa.Column("quantity", sa.Text, primary_key=True),
    sa.Column("feed_id", sa.Integer, primary_key=True),
    sa.Column("reading_id", sa.BigInteger, nullable=False),
    sa.Column("observed_at_us", sa.BigInteger, nullable=False),
)

# 基准数据图层: each version of a layer, whole and never altered; whether it stands, its delivery says.
layer_versions: Final = sa.Table(
    "layer_versions",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("layer", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("delivery_id", _KEY, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("features", sa.BigInteger, nullable=False),
    sa.Column("gone", sa.BigInteger, nullable=False),
    sa.Column("valid_from_us", sa.BigInteger, nullable=False),
    sa.Index("layer_versions_number", "layer", "version", unique=True),
)

layer_features: Final = sa.Table(
    "layer_features",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("version_id", sa.BigInteger, nullable=False),
    sa.Column("record", sa.Integer, nullable=False),
    sa.Column("source_key", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("wkb", sa.LargeBinary, nullable=False),  # degrees of CGCS2000
    sa.Column("west_deg", sa.Double, nullable=False),
    sa.Column("south_deg", sa.Double, nullable=False),
    sa.Column("east_deg", sa.Double, nullable=False),
    sa.Column("north_deg", sa.Double, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("news", sa.Integer, nullable=False),  # 1: the version before did not say the same
    sa.Column("attributes", sa.Text),  # JSON
    sa.Index("layer_features_key", "version_id", "source_key", unique=True),
)

# By which versions the components are placed; a layer without a row is placed by the file that the settings name.
placed_by: Final = sa.Table(
    "placed_by",
    metadata,
    sa.Column("layer", sa.Text, primary_key=True),
    sa.Column("version_id", sa.BigInteger),  # null: by the file again
    sa.Column("since_us", sa.BigInteger, nullable=False),
    sa.Column("moved", sa.BigInteger, nullable=False),  # components that this put elsewhere
    sa.Column("noted", sa.Integer, nullable=False),  # 1: the audit has it
)

# Where versions of claims were counted before a boundary moved; past days are answered by it.
placed_before: Final = sa.Table(
    "placed_before",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("claim_id", sa.BigInteger, nullable=False),
    sa.Column("delivery_id", _KEY, nullable=False),
    sa.Column("record", sa.Integer, nullable=False),
    sa.Column("from_us", sa.BigInteger, nullable=False),
    sa.Column("until_us", sa.BigInteger, nullable=False),
    sa.Column("division_code", sa.Text),
    sa.Column("grid_code", sa.Text),
    sa.Index("placed_before_claim", "claim_id"),
)

# The last serial issued for a division and class. It only grows, so no identifier is issued twice.
serials: Final = sa.Table(
    "serials",
    metadata,
    sa.Column("division_code", sa.Text, primary_key=True),
    sa.Column("class_code", sa.Text, primary_key=True),
    sa.Column("last", sa.Integer, nullable=False),
)

# The last change number given out, in one row.
change_counter: Final = sa.Table(
    "change_counter",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)
