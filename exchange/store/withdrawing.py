"""What the store does with a delivery that is taken back: its claims end, and, where that is decided, its words go.

Nothing that was there before it comes back: the bureau sends a new delivery. What a later delivery of the feed said
again, unchanged, stands on that one's word.
"""

import io
from datetime import datetime
from typing import Final

import polars as pl

from exchange.store import layers
from exchange.store.engine import Writer
from exchange.store.frames import microseconds
from exchange.store.writing import CELL_SQL, END, KEEP_PAST, LEAD, LEADING, in_bulk
from mappings.schema import OUTCOMES, Schema, conform

_DELIVERY: Final = "SELECT id, feed_id, recalled_us FROM deliveries WHERE sender = ? AND message_id = ?"
_STANDING: Final = (
    "SELECT id, source_key, component_id, valid_from_us FROM claims WHERE delivery_id = ? AND valid_to_us IS NULL "
    "ORDER BY id"
)
_STANDING_COLUMNS: Final = {"claim": pl.Int64, "source_key": pl.String, "component": pl.Int64, "since_us": pl.Int64}
_SAID_AGAIN: Final[Schema] = {"source_key": pl.String, "record": pl.Int64, "by_delivery": pl.Int64, "at_us": pl.Int64}
_LATER: Final = (
    "SELECT d.id, d.position, d.valid_from_us, t.outcomes FROM deliveries d JOIN commits t ON t.id = d.commit_id "
    "WHERE d.feed_id = ? AND d.id > ? AND d.recalled_us IS NULL "
    "AND CAST(json_extract(d.counts, '$.unchanged') AS BIGINT) > 0 ORDER BY d.id"
)
_ON_ITS_WORD: Final = (
    "UPDATE claims SET delivery_id = s.by_delivery, record = s.record, valid_from_us = s.at_us FROM said_again s "
    "WHERE claims.id = s.claim"
)
_SHOWN: Final = (
    "SELECT DISTINCT l.component_id FROM readings_latest l JOIN readings r ON r.id = l.reading_id "
    "WHERE r.delivery_id = ? ORDER BY l.component_id"
)
_UNSHOW: Final = "DELETE FROM readings_latest WHERE reading_id IN (SELECT id FROM readings WHERE delivery_id = ?)"
_SHOW_BEFORE: Final = (
    "INSERT INTO readings_latest SELECT component_id, quantity, feed_id, id, observed_at_us FROM readings r "
    "WHERE component_id IN (SELECT component FROM shown) AND NOT EXISTS (SELECT 1 FROM readings n WHERE "
    "n.component_id = r.component_id AND n.quantity = r.quantity AND n.feed_id = r.feed_id "
    "AND n.observed_at_us > r.observed_at_us) ON CONFLICT DO NOTHING"
)
_RECALLED: Final = (
    "UPDATE components SET change_number = s.change_number, change_kind = 'recalled' FROM touched s "
    "WHERE components.id = s.component"
)
_ENDED: Final = (
    "SELECT count(*) FROM claims k JOIN deliveries d ON d.id = k.delivery_id "
    "WHERE d.id = ? AND k.closed_by = d.id AND k.valid_to_us >= d.recalled_us"
)

# Class, number and what others made of a component stay; what this delivery said of it, and where, goes.
_WORDLESS: Final = (
    "digest = :empty, longitude_deg = 0, latitude_deg = 0, accuracy_m = 0, division_code = NULL, grid_code = NULL, "
    "name = NULL, state = NULL, roles_id = :nobody, more = NULL"
)
_NOBODY: Final = (
    "INSERT INTO roles (digest) VALUES (?) ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest RETURNING id"
)
_FORGET: Final = (
    f"UPDATE claims SET source_key = 'erased:' || id, {_WORDLESS} WHERE delivery_id = :delivery",
    f"UPDATE claims_past SET cell = 0, {_WORDLESS} WHERE delivery_id = :delivery",
    "DELETE FROM placed_before WHERE delivery_id = :delivery",
    "DELETE FROM roles WHERE digest <> :empty AND id NOT IN (SELECT roles_id FROM claims UNION SELECT roles_id FROM "
    "claims_past)",
)
_TOUCHED: Final = (
    "SELECT component_id FROM claims WHERE delivery_id = ?1 UNION SELECT component_id FROM claims_past "
    "WHERE delivery_id = ?1"
)
# A component is where its claims say. Where none stands, where one said last whose words are still there.
_SPOKEN: Final = "component_id, valid_to_us, delivery_id"
_WORDS: Final = (
    f"FROM (SELECT {_SPOKEN}, {', '.join(LEADING)} FROM claims UNION ALL "
    f"SELECT {_SPOKEN}, {', '.join(LEADING)} FROM claims_past) k JOIN deliveries d ON d.id = k.delivery_id "
    "WHERE k.component_id = components.id AND d.erased_on IS NULL"
)
_UNCLAIMED: Final = (
    "id IN (SELECT component FROM left_alone) AND NOT EXISTS (SELECT 1 FROM claims c "
    "WHERE c.component_id = components.id AND c.valid_to_us IS NULL)"
)
_LEFT_AS: Final = (
    f"UPDATE components SET ({', '.join(LEADING[1:])}, cell) = (SELECT "
    f"{', '.join(f'k.{name}' for name in LEADING[1:])}, {CELL_SQL} {_WORDS} "
    f"ORDER BY k.valid_to_us DESC NULLS LAST LIMIT 1) WHERE {_UNCLAIMED} AND EXISTS (SELECT 1 {_WORDS})"
)
_LEFT_NOWHERE: Final = (
    "UPDATE components SET longitude_deg = 0, latitude_deg = 0, accuracy_m = 0, division_code = NULL, "
    f"grid_code = NULL, cell = 0 WHERE {_UNCLAIMED} AND NOT EXISTS (SELECT 1 {_WORDS})"
)


def recall(writer: Writer, sender: str, message_id: str, at: datetime) -> int | None:
    """End what a delivery claims, as of a moment; gives how many claims ended, None where it is not stored.

    Again does nothing more and gives the same. Inside the transaction that the caller opened.
    """
    found = writer.execute(_DELIVERY, (sender, message_id)).fetchone()
    if found is None:
        return None
    delivery, feed_id, recalled_us = found
    if recalled_us is None:
        at_us = microseconds(at)
        writer.execute("UPDATE deliveries SET recalled_us = ? WHERE id = ?", (at_us, delivery))
        _end_claims(writer, delivery, feed_id, at_us)
    return int(writer.execute(_ENDED, (delivery,)).fetchone()[0])


def erase(writer: Writer, sender: str, message_id: str, day: str) -> None:
    """Destroy what the store holds of a recalled delivery's content: keys, names, places, units, all that it said.

    day: of the city, as answers say it. Class and number of a component stay: no identifier is issued twice. Inside the
    transaction that the caller opened; again does nothing more.
    """
    found = writer.execute(_DELIVERY, (sender, message_id)).fetchone()
    if found is None:
        return
    delivery = found[0]
    touched = writer.execute(_TOUCHED, (delivery,)).fetchall()
    writer.execute("UPDATE deliveries SET erased_on = coalesce(erased_on, ?) WHERE id = ?", (day, delivery))
    nobody = writer.execute(_NOBODY, (b"",)).fetchone()[0]
    for statement in _FORGET:
        writer.execute(statement, {"delivery": delivery, "nobody": nobody, "empty": b""})
    layers.erase(writer, delivery)
    if touched:
        writer.stage("left_alone", pl.DataFrame(touched, {"component": pl.Int64}, orient="row"))
        writer.execute(_LEFT_AS)
        writer.execute(_LEFT_NOWHERE)
    _forget_outcomes(writer, delivery)


def _end_claims(writer: Writer, delivery: int, feed_id: int, at_us: int) -> None:
    rows = writer.execute(_STANDING, (delivery,)).fetchall()
    standing = pl.DataFrame(rows, _STANDING_COLUMNS, orient="row")
    again = _said_again(writer, delivery, feed_id) if rows else pl.DataFrame(schema=_SAID_AGAIN)
    kept = standing.join(again, on="source_key").select("claim", "at_us", "by_delivery", "record")
    in_bulk(writer, KEEP_PAST, "replaced", kept.select("claim", "at_us", "by_delivery"))
    in_bulk(writer, _ON_ITS_WORD, "said_again", kept)
    ended = standing.join(again, on="source_key", how="anti", maintain_order="left")
    last_us = pl.max_horizontal(pl.lit(at_us, pl.Int64), "since_us")
    in_bulk(writer, END, "ended", ended.select("claim", at_us=last_us, by_delivery=pl.lit(delivery, pl.Int64)))
    shown = pl.DataFrame(writer.execute(_SHOWN, (delivery,)).fetchall(), {"component": pl.Int64}, orient="row")
    writer.execute(_UNSHOW, (delivery,))
    # Not kept as history: the same moment may be reported anew, rightly.
    writer.execute("DELETE FROM readings WHERE delivery_id = ?", (delivery,))
    in_bulk(writer, _SHOW_BEFORE, "shown", shown)
    _tell(writer, pl.concat([ended.select("component"), shown]).unique(maintain_order=True))


def _said_again(writer: Writer, delivery: int, feed_id: int) -> pl.DataFrame:
    """By source key: the last delivery that said a record again, unchanged, its number there, and since when."""
    found = [pl.DataFrame(schema=_SAID_AGAIN)]
    for later, position, valid_from_us, outcomes in writer.execute(_LATER, (feed_id, delivery)).fetchall():
        rows = pl.read_ipc(io.BytesIO(outcomes)).filter(delivery=position, outcome="unchanged")
        said = rows.select("source_key", "record", by_delivery=pl.lit(later), at_us=pl.lit(valid_from_us))
        found.append(conform(said, _SAID_AGAIN))
    return pl.concat(found).unique("source_key", keep="last")


def _tell(writer: Writer, components: pl.DataFrame) -> None:
    """A change number for each component, and what the claims that stand make of them."""
    query = "UPDATE change_counter SET last = last + ? RETURNING last"
    last = writer.execute(query, (components.height,)).fetchone()[0]
    first = last - components.height + 1
    numbered = components.with_columns(change_number=pl.int_range(first, last + 1, dtype=pl.Int64))
    in_bulk(writer, _RECALLED, "touched", numbered.with_columns(ends=pl.lit(1, pl.Int64)))
    if not components.is_empty():
        writer.execute(LEAD)


def _forget_outcomes(writer: Writer, delivery: int) -> None:
    """The file of outcomes without this delivery's keys. Others of its commit keep theirs."""
    query = "SELECT t.id, d.position, t.outcomes FROM deliveries d JOIN commits t ON t.id = d.commit_id WHERE d.id = ?"
    commit, position, octets = writer.execute(query, (delivery,)).fetchone()
    outcomes = pl.read_ipc(io.BytesIO(octets))
    # Built anew, value by value: a column that is masked or filtered goes on holding what it no longer shows.
    keys = [None if one == position else key for one, key in outcomes.select("delivery", "source_key").iter_rows()]
    kept = outcomes.drop("source_key").with_columns(pl.Series("source_key", keys, dtype=pl.String))
    file = io.BytesIO()
    conform(kept, OUTCOMES).write_ipc(file, compression="zstd")
    writer.execute("UPDATE commits SET outcomes = ? WHERE id = ?", (file.getvalue(), commit))
