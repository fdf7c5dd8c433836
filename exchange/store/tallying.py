"""What the register holds of each delivery, counted from its rows: for the account that is made of a day."""

from typing import Any, Final

import polars as pl

from exchange.database import Connection
from exchange.store.writing import decoded_outcomes
from mappings.schema import Schema

COUNTED: Final = ("new", "changed", "unchanged", "ended", "rejected", "ignored")

# One row a delivery. rows: what is kept of its new and changed records; standing: it was not recalled.
TALLIES: Final[Schema] = {
    "entry": pl.Int64,
    "sender": pl.String,
    "feed": pl.String,
    "message_id": pl.String,
    "standing": pl.Boolean,
    **dict.fromkeys(COUNTED, pl.Int64),
    "rows": pl.Int64,
}

_DELIVERIES: Final = (
    "SELECT d.id, d.entry, d.sender, f.code, d.message_id, d.recalled_us, d.counts FROM deliveries d "
    "JOIN feeds f ON f.id = d.feed_id WHERE d.entry >= ? AND d.entry < ? ORDER BY d.entry"
)
_COLUMNS: Final = {
    "id": pl.Int64, "entry": pl.Int64, "sender": pl.String, "feed": pl.String, "message_id": pl.String,
    "recalled_us": pl.Int64, "counts": pl.String,
}  # fmt: skip
# Without an index by delivery, which every claim written would pay for: a day's account may take seconds.
_ROWS: Final = (
    "SELECT delivery_id, count(*) FROM (SELECT delivery_id FROM claims UNION ALL SELECT delivery_id FROM claims_past "
    "UNION ALL SELECT delivery_id FROM readings UNION ALL SELECT v.delivery_id FROM layer_versions v "
    "JOIN layer_features f ON f.version_id = v.id WHERE f.news = 1) kept "
    "WHERE delivery_id >= ? AND delivery_id <= ? GROUP BY delivery_id"
)
_KEPT: Final = (
    "SELECT record FROM claims WHERE delivery_id = ? UNION ALL SELECT record FROM claims_past WHERE delivery_id = ?"
)
_OUTCOMES: Final = "SELECT t.outcomes, d.position FROM deliveries d JOIN commits t ON t.id = d.commit_id WHERE d.id = ?"


def tallies(connection: Connection, first_entry: int, stop_entry: int) -> pl.DataFrame:
    """TALLIES of the deliveries that these entries of the log accepted, as the register says."""
    found = pl.DataFrame(
        connection.execute(_DELIVERIES, (first_entry, stop_entry)).fetchall(), schema=_COLUMNS, orient="row"
    )
    counts = found["counts"].str.json_decode(pl.Struct(dict.fromkeys(COUNTED, pl.Int64))).struct.unnest()
    said = pl.concat([found, counts], how="horizontal").join(_rows(connection, found["id"]), on="id", how="left")
    said = said.with_columns(pl.col("rows", *COUNTED).fill_null(0), standing=pl.col("recalled_us").is_null())
    # A claim that a recalled delivery made and this one repeated stands on this one's word: a row more than it made.
    more = said.filter(pl.col("standing"), pl.col("rows") > pl.col("new") + pl.col("changed"))
    of_its_own = [_own_rows(connection, id) for id in more["id"]]
    exact = more.select("id", own=pl.Series(of_its_own, dtype=pl.Int64))
    said = said.join(exact, on="id", how="left", maintain_order="left")
    return said.select(pl.coalesce("own", "rows").alias(name) if name == "rows" else name for name in TALLIES)


def _rows(connection: Connection, ids: pl.Series) -> pl.DataFrame:
    """id, rows: how many rows are kept of each delivery that has any."""
    between = (ids.min() or 0, ids.max() or 0) if ids.len() else (0, -1)
    counted: list[Any] = connection.execute(_ROWS, between).fetchall() if ids.len() else []
    return pl.DataFrame(counted, schema={"id": pl.Int64, "rows": pl.Int64}, orient="row")


def _own_rows(connection: Connection, delivery: int) -> int:
    """How many of the records that a delivery said anew have a row, where others' may stand on its word."""
    outcomes, position = connection.execute(_OUTCOMES, (delivery,)).fetchone()
    made = decoded_outcomes(outcomes, position).filter(pl.col("outcome").is_in(["new", "changed"])).select("record")
    kept = [record for (record,) in connection.execute(_KEPT, (delivery, delivery)).fetchall()]
    rows = pl.DataFrame({"record": pl.Series(kept, dtype=made.schema["record"])})
    spurious = rows.join(decoded_outcomes(outcomes, position).select("record"), on="record", how="anti").height
    return made.join(rows, on="record", how="semi").height + spurious
