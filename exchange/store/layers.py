"""Layers of reference data in the store: each version whole, and the days on which it held.

A version is never altered. One that was recalled, or of which the content was erased, stands no longer; what was said
before it stands again. Places are WKB in degrees of CGCS2000.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
import polars as pl

from exchange.database import Connection
from exchange.store.engine import Writer
from exchange.store.frames import KEPT, NewVersion, moment
from mappings.schema import Schema

_VERSION: Final = (
    "SELECT v.id, v.layer, v.version, f.code, f.bureau, d.sender, d.message_id, d.entry, v.digest, v.features, v.gone, "
    "v.valid_from_us, t.recorded_at_us, d.recalled_us, d.erased_on FROM layer_versions v "
    "JOIN deliveries d ON d.id = v.delivery_id JOIN feeds f ON f.id = d.feed_id JOIN commits t ON t.id = d.commit_id"
)
_COLUMNS: Final = ("id", "layer", "version", "delivery_id", "digest", "features", "gone", "valid_from_us")
_FEATURES: Final = f"SELECT {', '.join(KEPT)} FROM layer_features WHERE version_id = ? ORDER BY source_key"
_DIGESTS: Final = "SELECT source_key, digest FROM layer_features WHERE version_id = ?"
_AT: Final = (
    f"SELECT {', '.join(KEPT)} FROM layer_features WHERE version_id = :version AND west_deg <= :longitude "
    "AND east_deg >= :longitude AND south_deg <= :latitude AND north_deg >= :latitude ORDER BY source_key"
)
_ERASED: Final = (
    "UPDATE layer_features SET source_key = 'erased:' || id, name = NULL, wkb = :empty, digest = :empty, west_deg = 0, "
    "south_deg = 0, east_deg = 0, north_deg = 0, attributes = NULL "
    "WHERE version_id IN (SELECT id FROM layer_versions WHERE delivery_id = :delivery)"
)


class Version(msgspec.Struct, frozen=True):
    """A version that is kept. id: the store's; entry: of its delivery's acceptance; digest: hex; erased_on: YYYY-MM-DD.

    It holds from `valid_from_us` until the next one that stands.
    """

    id: int
    layer: str
    version: int
    feed: str
    bureau: str
    sender: str
    message_id: str
    entry: int
    digest: str
    features: int
    gone: int
    valid_from_us: int
    recorded_at_us: int
    recalled_us: int | None
    erased_on: str | None

    @property
    def valid_from(self) -> datetime:
        """Since when it holds; aware, UTC."""
        return moment(self.valid_from_us)

    @property
    def stands(self) -> bool:
        """Whether it was neither recalled nor erased."""
        return self.recalled_us is None and self.erased_on is None


def put(writer: Writer, new: NewVersion, delivery: int) -> int:
    """Keep a version under the next number of its layer, and give that; inside the transaction that the caller
    opened."""
    query = "SELECT coalesce(max(version), 0) + 1 FROM layer_versions WHERE layer = ?"
    number = int(writer.execute(query, (new.layer,)).fetchone()[0])
    version = writer.keys("layer_versions", 1)
    values = (version, new.layer, number, delivery, new.digest, new.features.height, new.gone, new.valid_from_us)
    writer.execute(f"INSERT INTO layer_versions ({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    first = writer.keys("layer_features", new.features.height)
    rows = new.features.with_row_index("id", offset=first).with_columns(version_id=pl.lit(version, pl.Int64))
    writer.insert("layer_features", ("id", "version_id", *KEPT), rows)
    return number


def erase(writer: Writer, delivery: int) -> None:
    """Destroy what a delivery said of a layer; inside the transaction that the caller opened."""
    writer.execute(_ERASED, {"empty": b"", "delivery": delivery})


def versions(connection: Connection, layer: str | None = None) -> list[Version]:
    """All versions of a layer (None: of every one), by layer, the oldest first."""
    where, values = (" WHERE v.layer = ?", (layer,)) if layer else ("", ())
    rows = connection.execute(f"{_VERSION}{where} ORDER BY v.layer, v.version", values).fetchall()
    return [Version(*row) for row in rows]


def newest(connection: Connection, layer: str) -> Version | None:
    """The newest version of a layer that stands."""
    return next((one for one in reversed(versions(connection, layer)) if one.stands), None)


def of_delivery(connection: Connection, sender: str, message_id: str) -> Version | None:
    """The version that a delivery made."""
    query = f"{_VERSION} WHERE d.sender = ? AND d.message_id = ?"
    row = connection.execute(query, (sender, message_id)).fetchone()
    return Version(*row) if row else None


def features(connection: Connection, version: int) -> pl.DataFrame:
    """KEPT: the features of a version (its id), by code."""
    return _frame(connection.execute(_FEATURES, (version,)).fetchall(), KEPT)


def digests(connection: Connection, version: int | None) -> pl.DataFrame:
    """source_key, digest: of the features of a version (its id); none for None."""
    rows = connection.execute(_DIGESTS, (version,)).fetchall() if version is not None else []
    return _frame(rows, {name: KEPT[name] for name in ("source_key", "digest")})


def around(connection: Connection, version: int, longitude_deg: float, latitude_deg: float) -> pl.DataFrame:
    """KEPT: features of a version (its id) whose box holds a place, by code."""
    values = {"version": version, "longitude": longitude_deg, "latitude": latitude_deg}
    return _frame(connection.execute(_AT, values).fetchall(), KEPT)


def _frame(rows: list[Any], schema: Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema, orient="row")
