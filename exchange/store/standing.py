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
_CLASSES: Final = "SELECT DISTINCT class_code FROM components"
_CLAIMS: Final = (
    "SELECT c.id, c.longitude_deg, c.latitude_deg, c.class_code, k.source_key, json_extract(k.more, '$.label') "
    "FROM components c JOIN claims k ON k.component_id = c.id WHERE k.valid_to_us IS NULL "
    "AND c.class_code IN (SELECT value FROM json_each(?)) LIMIT ?"
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
    wanted = {*class_codes.drop_nulls().unique().str.split(CLASSES_BETWEEN).explode()}
    there = [code for (code,) in connection.execute(_CLASSES).fetchall()]
    classes = [code for code in there if wanted & {*code.split(CLASSES_BETWEEN)}]
    rows = connection.execute(_CLAIMS, (msgspec.json.encode(classes).decode(), most)).fetchall()
    claimed = pl.DataFrame(rows, schema=_ROW, orient="row")
    numbered = claimed.filter(pl.col("label").is_not_null())
    called = pl.concat(
        [claimed.drop("label").rename({"source_key": "mark"}), numbered.drop("source_key").rename({"label": "mark"})]
    )
    places = [pl.col(name).first() for name in STANDING if name != "marks"]
    return called.group_by("component", maintain_order=True).agg(*places, marks="mark").select(list(STANDING))


def stood(connection: Connection, feed: str, keys: pl.Series) -> pl.DataFrame:
    """STOOD: those of the keys for which a claim of the feed stands."""
    rows = connection.execute(_KEYS, (feed, msgspec.json.encode(keys.to_list()).decode())).fetchall()
    return pl.DataFrame(rows, schema=STOOD, orient="row")
