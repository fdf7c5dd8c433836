"""What the store knows of the sheets of a map: until when, what stands there, and what one delivery made of it.

A feed that comes by sheets keys each thing by the sheet that first showed it, `NUMBER/…`, so a sheet's things are one
stretch of the index of keys. What they are now may lie a little beyond that sheet: ask for its neighbours' as well.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl

from exchange.database import Connection
from exchange.store.engine import Writer
from exchange.store.frames import ON_SHEETS, WAS_ON_SHEETS, Batch, microseconds
from mappings.schema import Schema, conform

BETWEEN: Final = "/"  # a sheet's number and what tells its things apart
_AFTER: Final = chr(ord(BETWEEN) + 1)
# Asked for each sheet by itself: joined with a list of them, neither engine is sure to use both ends of the stretch.
_STRETCH: Final = (
    "FROM claims k WHERE k.feed_id = (SELECT id FROM feeds WHERE code = ?) AND k.source_key >= ? AND k.source_key < ?"
)
_ON_SHEET: Final = (
    f"SELECT k.source_key, k.class_code, k.longitude_deg, k.latitude_deg, k.valid_to_us IS NULL {_STRETCH}"
)
_AS_OF: Final = (
    "SELECT max(s.as_of_us) FROM sheets s JOIN feeds f ON f.id = s.feed_id WHERE f.code = ? "
    "AND s.number IN (SELECT value FROM json_each(?))"
)
_PUT: Final = (
    "INSERT INTO sheets (feed_id, number, as_of_us) VALUES (?, ?, ?) ON CONFLICT (feed_id, number) DO UPDATE "
    "SET as_of_us = CASE WHEN excluded.as_of_us > sheets.as_of_us THEN excluded.as_of_us ELSE sheets.as_of_us END"
)
_DELIVERY: Final = "SELECT d.id FROM deliveries d WHERE d.sender = ? AND d.message_id = ?"
_VERSION: Final = "class_code, {0}.longitude_deg, {0}.latitude_deg, {0}.delivery_id, {0}.closed_by"
_NOW: Final = f"SELECT k.source_key, k.{_VERSION.format('k')} {_STRETCH}"
_BEFORE: Final = (
    f"SELECT k.source_key, p.{_VERSION.format('p')} FROM (SELECT k.id, k.source_key, k.component_id {_STRETCH}) k "
    "JOIN claims_past p ON p.component_id = k.component_id AND p.claim_id = k.id"
)
_VERSIONS_COLUMNS: Final[Schema] = {
    **{name: ON_SHEETS[name] for name in ("source_key", "class_code", "longitude_deg", "latitude_deg")},
    "delivery_id": pl.Int64,
    "closed_by": pl.Int64,
}


def on_sheets(connection: Connection, feed: str, numbers: Sequence[str]) -> pl.DataFrame:
    """ON_SHEETS: what a feed says, or said, under the keys of these sheets."""
    rows = [row for number in numbers for row in connection.execute(_ON_SHEET, _stretch(feed, number))]
    return pl.DataFrame(rows, ON_SHEETS, orient="row")


def as_of_us(connection: Connection, feed: str, numbers: Sequence[str]) -> int | None:
    """The newest day, in microseconds, that any of the sheets is known of; None before the first."""
    newest: int | None = connection.execute(_AS_OF, (feed, _listed(numbers))).fetchone()[0]
    return newest


def was_on_sheets(
    connection: Connection, feed: str, numbers: Sequence[str], sender: str, message_id: str, unchanged: pl.Series
) -> pl.DataFrame:
    """WAS_ON_SHEETS of a stored delivery, under the keys of these sheets.

    unchanged: the keys that it said again
    """
    (delivery,) = connection.execute(_DELIVERY, (sender, message_id)).fetchone()
    asked = ((query, _stretch(feed, number)) for number in numbers for query in (_NOW, _BEFORE))
    rows = [row for query, values in asked for row in connection.execute(query, values)]
    versions = pl.DataFrame(rows, _VERSIONS_COLUMNS, orient="row")
    again = pl.col("source_key").is_in(unchanged.implode())
    stood = pl.col("closed_by").is_null() | (pl.col("closed_by") > delivery)
    which = (
        # On this delivery's own word, where the one that said it first was recalled since.
        pl.when(again & (pl.col("delivery_id") <= delivery) & stood)
        .then(pl.lit("unchanged"))
        .when(~again & (pl.col("delivery_id") == delivery))
        .then(pl.lit("said"))
        .when(~again & (pl.col("closed_by") == delivery))
        .then(pl.lit("before"))
    )
    return conform(versions.with_columns(which=which).filter(pl.col("which").is_not_null()), WAS_ON_SHEETS)


def put(writer: Writer, batch: Batch, feed_id: int) -> None:
    """Until when the batch's sheets are known."""
    for number in batch.sheets:  # one, seldom a few
        writer.execute(_PUT, (feed_id, number, max(microseconds(one.valid_from) for one in batch.deliveries)))


def _stretch(feed: str, number: str) -> tuple[str, str, str]:
    """The values of _STRETCH."""
    return feed, number + BETWEEN, number + _AFTER


def _listed(numbers: Sequence[str]) -> str:
    return msgspec.json.encode(list(numbers)).decode()
