"""What the steps of act two and the store hand one another: columns for many, structs for one.

One batch is one feed: many small deliveries, or one large one. Column `delivery` is the index into
`Batch.deliveries`, in order of acceptance. Times in frames are Int64 microseconds of UTC since 1970 (`_us`).
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import polars as pl

from exchange.rights import EVERYTHING, View
from exchange.store.territory import WHOLE, Territory
from mappings.schema import PLACED, READINGS, Schema

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What the store knows of a feed's keys. A claim keeps its number for ever, ended or not, and with it its component.
SEEN: Final[Schema] = {
    "source_key": pl.String,
    "claim": pl.Int64,
    "component": pl.Int64,
    "digest": pl.Binary,
    "known_us": pl.Int64,  # valid from, or, once ended, valid until: nothing older is news
    "live": pl.Boolean,  # still claimed
}

# What stands, or stood, under the keys of some sheets of a feed. degrees of EPSG:4490.
ON_SHEETS: Final[Schema] = {
    "source_key": pl.String,
    "class_code": pl.String,
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
    "live": pl.Boolean,  # still claimed
}

# Versions of those claims, as a delivery found and left them: what it said itself, what it replaced or ended, and what
# it said again, unchanged.
WAS_ON_SHEETS: Final[Schema] = {
    "source_key": pl.String,
    "class_code": pl.String,
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
    "which": pl.String,  # said | before | unchanged
}

# What accepted records said that is new: one row a version of a claim, in order of delivery, source key and record.
VERSIONS: Final[Schema] = {
    **PLACED,
    "digest": pl.Binary,
    "valid_from_us": pl.Int64,
    "valid_to_us": pl.Int64,  # null: stands; else a later delivery of the same batch already replaced or ended it
    "closed_by": pl.UInt32,  # the delivery that did so
    "outcome": pl.String,  # new | changed
    "claim": pl.Int64,  # the store's number of the claim, null when this feed never said this key
    "component": pl.Int64,  # the component it has always spoken of; null: joining decides
}

# Claims that end: said to be removed (record given), or absent from a snapshot (record null).
ENDED: Final[Schema] = {
    "delivery": pl.UInt32,
    "record": pl.UInt32,
    "source_key": pl.String,
    "claim": pl.Int64,
    "component": pl.Int64,
    "valid_to_us": pl.Int64,
}

# Components around a place, as far as joining needs them.
NEAR: Final[Schema] = {
    "component": pl.Int64,
    "class_code": pl.String,
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
    "accuracy_m": pl.Float64,
    "network": pl.String,  # null: no claim says one
    "marks": pl.List(pl.String),  # keys and labels that its claims know it by
}

# Which component a key's claim speaks of. component null: it founds one; distance_m null: not joined by position.
LINKS: Final[Schema] = {"source_key": pl.String, "component": pl.Int64, "distance_m": pl.Float64}

# Components that a key's claim may speak of, none nearer than the others: it founds one of its own, a person decides.
TIES: Final[Schema] = {"source_key": pl.String, "component": pl.Int64, "distance_m": pl.Float64}

# What a register says of its keys, ended or not: whose component, which class it is of, and where it stands.
KNOWN_KEYS: Final[Schema] = {
    "source_key": pl.String,
    "component": pl.Int64,
    "class_code": pl.String,
    "division_code": pl.String,
    "grid_code": pl.String,
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
}

# Readings that are right, of known components. Which reading it is: component, quantity and moment.
OBSERVED: Final[Schema] = {**READINGS, "component": pl.Int64}
IDENTITY: Final = ("component", "quantity", "observed_at")
KNOWN_READINGS: Final[Schema] = {name: OBSERVED[name] for name in (*IDENTITY, "value", "state", "unit")}


# What is kept of a feature. news: 1 where the version before did not say the same.
KEPT: Final[Schema] = {
    "record": pl.UInt32,
    "source_key": pl.String,
    "name": pl.String,
    "wkb": pl.Binary,
    "west_deg": pl.Float64,
    "south_deg": pl.Float64,
    "east_deg": pl.Float64,
    "north_deg": pl.Float64,
    "digest": pl.Binary,  # of what it says but its code
    "news": pl.Int64,
    "attributes": pl.String,  # JSON
}


def microseconds(moment: datetime) -> int:
    """An aware moment as microseconds of UTC since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The moment, aware, UTC, so many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


class BatchDelivery(msgspec.Struct, frozen=True):
    """One delivery of a batch, as far as act two needs to know it.

    valid_from: the feed's `as_of`, or the time of signing; received_at: act one's clock; both aware, UTC
    entry:      index of its acceptance in the audit log
    view:       what the grant lets in
    asserted_by: the bureau that signed it in the sender's name, where that was another
    """

    sender: str
    message_id: str
    valid_from: datetime
    received_at: datetime
    entry: int
    evidence_class: str
    view: View = EVERYTHING
    asserted_by: str | None = None


class Seen(msgspec.Struct, frozen=True):
    """What the store knows of a feed.

    as_of_us: the newest `valid_from` of its whole snapshots, 0 where it had none; None before its first delivery
    """

    claims: pl.DataFrame
    as_of_us: int | None


class Compared(msgspec.Struct, frozen=True):
    """What a batch changes: outcomes OUTCOMES (one row a record), versions VERSIONS, ended ENDED, findings FINDINGS.

    In outcomes the component is null where the store has yet to number it.
    gone_percent: share of the feed's live claims that a snapshot would end; held: more than the feed allows, so a
    person decides and nothing is stored. whole: a snapshot that names all there is; the feed is known as of its day.
    """

    outcomes: pl.DataFrame
    versions: pl.DataFrame
    ended: pl.DataFrame
    findings: pl.DataFrame
    gone_percent: float
    held: bool
    whole: bool


class NewVersion(msgspec.Struct, frozen=True):
    """A version to be kept. features: KEPT; gone: features of the version before that it no longer has."""

    layer: str
    digest: str
    valid_from_us: int
    gone: int
    features: pl.DataFrame


class Batch(msgspec.Struct, frozen=True):
    """Everything one transaction of the store writes.

    roots: outcome root (hex) of each delivery, in order; links LINKS; ties TIES
    readings: OBSERVED, what is new of a feed of readings, which has no versions, links and ties
    layer:     the version of a layer that a feed of reference data makes, which has none of these either
    territory: in which divisions identifiers are issued here, and which bureau's word counts in the others
    sheets: the numbers of the sheets that it is whole for, of a feed that comes by sheets
    """

    feed: str
    bureau: str
    recorded_at: datetime
    deliveries: tuple[BatchDelivery, ...]
    roots: tuple[str, ...]
    compared: Compared
    links: pl.DataFrame
    ties: pl.DataFrame
    readings: pl.DataFrame | None = None
    layer: NewVersion | None = None
    territory: Territory = WHOLE
    sheets: tuple[str, ...] = ()


class Counts(msgspec.Struct, frozen=True):
    """What became of a delivery's records. gone: claims ended because a snapshot no longer names them; not records."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    ended: int = 0
    rejected: int = 0
    ignored: int = 0
    gone: int = 0

    @property
    def records(self) -> int:
        """How many records the delivery had: accepted, rejected and ignored."""
        return self.new + self.changed + self.unchanged + self.ended + self.rejected + self.ignored


class StoredDelivery(msgspec.Struct, frozen=True):
    """A delivery that the store holds.

    root:          hex of the outcome root
    outcomes_file: SHA-256, hex, of the Arrow file of all outcomes of its commit, which the store keeps
    recorded_at:   aware, UTC
    """

    sender: str
    message_id: str
    root: str
    counts: Counts
    recorded_at: datetime
    outcomes_file: str


class Stored(msgspec.Struct, frozen=True):
    """What a commit wrote; the same again when it is called again.

    deliveries: in the batch's order; outcomes: OUTCOMES, one row a record; findings: FINDINGS the store added
    (`identifier.range_spent`); repeated: nothing was written now, all of it was already there.
    """

    deliveries: tuple[StoredDelivery, ...]
    outcomes: pl.DataFrame
    findings: pl.DataFrame
    repeated: bool


class Tie(msgspec.Struct, frozen=True):
    """A claim that may speak of one of several components, none nearer than the others; so it has one of its own.

    component: its own, by internal number; others: those it may speak of; distance_m: to the nearest of them
    """

    bureau: str
    feed: str
    source_key: str
    component: int
    others: tuple[int, ...]
    distance_m: float


class Ledger(msgspec.Struct, frozen=True):
    """The store in numbers. disputes, orphans, gaps: components by today's verdict, one each; ties: open claims."""

    components: int
    claims: int
    deliveries: int
    disputes: int
    orphans: int
    gaps: int
    ties: int
    by_class: dict[str, int]
    by_division: dict[str, int]
    by_feed: dict[str, int]
