"""What stands in the store, and where: things of some classes and what they are called, keys of a feed."""

from typing import Final

import msgspec
import polars as pl

from exchange.database import Connection
from mappings.schema import CLASSES_BETWEEN, Schema

# Things that a claim stands for. marks: the keys of its claims, and the numbers written beside it.
STANDING: Final[Schema] = {
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
    "class_code": pl.String,
    "marks": pl.List(pl.String),
}
# Where a feed's keys stand, by its own claims.
STOOD: Final[Schema] = {"source_key": pl.String, "longitude_deg": pl.Float64, "latitude_deg": pl.Float64}
MOST: Final = 1_000_000  # claims; of more, some
_CLAIMS: Final = (
    "SELECT c.id, c.longitude_deg, c.latitude_deg, c.class_code, k.source_key, json_extract(k.more, '$.label') "
    "FROM components c JOIN claims k ON k.component_id = c.id WHERE k.valid_to_us IS NULL "
    # Codes are of one length, so none stands inside another; a class may be a set, `0102|0103`.
    "AND EXISTS (SELECT 1 FROM json_each(?) j WHERE instr(c.class_code, j.value) > 0) LIMIT ?"
)
# By a subquery: joined, SQLite reads every claim of the feed and the list anew for each.
_KEYS: Final = (
    "SELECT k.source_key, k.longitude_deg, k.latitude_deg FROM claims k JOIN feeds f ON f.id = k.feed_id "
    "WHERE f.code = ? AND k.source_key IN (SELECT value FROM json_each(?)) AND k.valid_to_us IS NULL"
)
_ROW: Final[Schema] = {
    "component": pl.Int64,
    **{name: kind for name, kind in STANDING.items() if name != "marks"},
    "source_key": pl.String,
    "label": pl.String,
}


def standing(connection: Connection, class_codes: pl.Series, most: int = MOST) -> pl.DataFrame:
    """STANDING of the classes, sets of classes among them."""
    classes = class_codes.drop_nulls().unique().str.split(CLASSES_BETWEEN).explode().unique().to_list()
    rows = connection.execute(_CLAIMS, (msgspec.json.encode(classes).decode(), most)).fetchall()
    claimed = pl.DataFrame(rows, schema=_ROW, orient="row")
    marks = pl.concat_list("source_key", "label").explode().drop_nulls().unique()
    places = [name for name in STANDING if name != "marks"]
    return claimed.group_by("component", *places, maintain_order=True).agg(marks.alias("marks")).select(list(STANDING))


def stood(connection: Connection, feed: str, keys: pl.Series) -> pl.DataFrame:
    """STOOD: those of the keys for which a claim of the feed stands."""
    rows = connection.execute(_KEYS, (feed, msgspec.json.encode(keys.to_list()).decode())).fetchall()
    return pl.DataFrame(rows, schema=STOOD, orient="row")
