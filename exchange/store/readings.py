"""Readings in the store: what is known of their keys, what is kept already, and the latest of each quantity.

History lies in `readings` and is only added to. `readings_latest` points at the one to show, so that a component is
answered as fast after years of readings as on the first day.
"""

from typing import Final, NamedTuple

import msgspec
import polars as pl

from exchange.database import Connection
from exchange.store.engine import Writer
from exchange.store.frames import IDENTITY, KNOWN_KEYS, KNOWN_READINGS

KEYS: Final = (
    "SELECT source_key, c.id, c.class_code, c.division_code, c.grid_code, c.longitude_deg, c.latitude_deg "
    "FROM feeds f JOIN claims k ON k.feed_id = f.id JOIN components c ON c.id = k.component_id "
    "WHERE f.code = ? AND k.source_key IN (SELECT value FROM json_each(?))"  # joined, each claim would meet the list
)
_KNOWN: Final = (
    "SELECT r.component_id, r.quantity, r.observed_at_us, r.value, r.state, r.unit "
    "FROM json_each(?) j JOIN feeds f ON f.code = ? "
    "JOIN readings r ON r.component_id = CAST(json_extract(j.value, '$[0]') AS BIGINT) "
    "AND r.quantity = json_extract(j.value, '$[1]') AND r.feed_id = f.id "
    "AND r.observed_at_us = CAST(json_extract(j.value, '$[2]') AS BIGINT)"
)
_COLUMNS: Final = (
    "id", "component_id", "quantity", "feed_id", "observed_at_us", "value", "state", "unit", "delivery_id", "record",
)  # fmt: skip
_PUT_LATEST: Final = (
    "INSERT INTO readings_latest SELECT component_id, quantity, feed_id, id, observed_at_us FROM newest WHERE TRUE "
    "ON CONFLICT (component_id, quantity, feed_id) DO UPDATE SET reading_id = excluded.reading_id, "
    "observed_at_us = excluded.observed_at_us WHERE excluded.observed_at_us > readings_latest.observed_at_us"
)
_LATEST: Final = (
    "SELECT r.quantity, r.value, r.state, r.unit, r.observed_at_us, f.bureau, f.code, d.sender, d.message_id, "
    "r.record, d.entry, d.evidence_class, t.recorded_at_us, d.asserted_by "
    "FROM readings_latest l JOIN readings r ON r.id = l.reading_id JOIN feeds f ON f.id = r.feed_id "
    "JOIN deliveries d ON d.id = r.delivery_id JOIN commits t ON t.id = d.commit_id "
    "WHERE l.component_id = ? ORDER BY r.quantity, f.code"
)


class Latest(NamedTuple):
    """The latest reading of one quantity that one feed gave, with the delivery that it came in."""

    quantity: str
    value: float | None
    state: str | None
    unit: str | None
    observed_at_us: int
    bureau: str
    feed: str
    sender: str
    message_id: str
    record: int
    entry: int
    evidence_class: str
    recorded_at_us: int
    asserted_by: str | None


def known_keys(connection: Connection, register: str, keys: pl.Series) -> pl.DataFrame:
    """KNOWN_KEYS: those of the keys that a feed has ever stated, ended since or not."""
    wanted = msgspec.json.encode(keys.drop_nulls().unique().to_list()).decode()
    return pl.DataFrame(connection.execute(KEYS, (register, wanted)).fetchall(), KNOWN_KEYS, orient="row")


def known_readings(connection: Connection, feed: str, readings: pl.DataFrame) -> pl.DataFrame:
    """KNOWN_READINGS: what a feed said before of the same components, quantities and moments as OBSERVED."""
    wanted = readings.select("component", "quantity", pl.col("observed_at").dt.epoch("us")).unique().rows()
    rows = connection.execute(_KNOWN, (msgspec.json.encode(wanted).decode(), feed)).fetchall()
    kept = pl.DataFrame(rows, {**KNOWN_READINGS, "observed_at": pl.Int64}, orient="row")
    return kept.with_columns(pl.from_epoch("observed_at", "us").dt.replace_time_zone("UTC"))


def put(writer: Writer, readings: pl.DataFrame, feed_id: int, first_delivery: int) -> None:
    """Keep OBSERVED, and point at each component's latest; inside the transaction that the caller opened.

    One that was observed before the latest is history and no more.
    """
    if readings.is_empty():
        return
    rows = readings.with_row_index("id", offset=writer.keys("readings", readings.height)).with_columns(
        pl.col("observed_at").dt.epoch("us").alias("observed_at_us"),
        (pl.col("delivery") + first_delivery).alias("delivery_id"),
        component_id="component",
        feed_id=pl.lit(feed_id),
    )
    writer.insert("readings", _COLUMNS, rows)
    newest = rows.sort("observed_at_us").unique(list(IDENTITY[:2]), keep="last", maintain_order=True)
    writer.stage("newest", newest.select("component_id", "quantity", "feed_id", "id", "observed_at_us"))
    writer.execute(_PUT_LATEST)


def latest(connection: Connection, component: int) -> list[Latest]:
    """The latest reading of each quantity that each feed gave of a component, by quantity."""
    return [Latest._make(row) for row in connection.execute(_LATEST, (component,))]
