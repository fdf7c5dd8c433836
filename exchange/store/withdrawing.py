"""What the store does with a delivery that is taken back: its claims end, and, where that is decided, its words go.

Nothing that was there before it comes back: the bureau sends a new delivery. What a later delivery of the feed said
again, unchanged, stands on that one's word.
"""

import io
import sqlite3
from datetime import datetime
from typing import Final

import msgspec
import polars as pl

from exchange.store.frames import microseconds
from exchange.store.writing import CELL_SQL, DIFFERING, END, KEEP_PAST, LEAD, LEADING
from mappings.schema import OUTCOMES, conform

_DELIVERY: Final = "SELECT id, feed_id, recalled_us FROM deliveries WHERE sender = ? AND message_id = ?"
_STANDING: Final = (
    "SELECT id, source_key, component_id, valid_from_us FROM claims WHERE delivery_id = ? AND valid_to_us IS NULL "
    "ORDER BY id"
)
_LATER: Final = (
    "SELECT d.id, d.position, d.valid_from_us, t.outcomes FROM deliveries d JOIN commits t ON t.id = d.commit_id "
    "WHERE d.feed_id = ? AND d.id > ? AND d.recalled_us IS NULL AND d.counts ->> 'unchanged' > 0 ORDER BY d.id"
)
_ON_ITS_WORD: Final = "UPDATE claims SET delivery_id = ?, record = ?, valid_from_us = ? WHERE id = ?"
_SHOWN: Final = (
    "SELECT DISTINCT l.component_id FROM readings_latest l JOIN readings r ON r.id = l.reading_id "
    "WHERE r.delivery_id = ? ORDER BY 1"
)
_UNSHOW: Final = "DELETE FROM readings_latest WHERE reading_id IN (SELECT id FROM readings WHERE delivery_id = ?)"
_SHOW_BEFORE: Final = (
    "INSERT INTO readings_latest SELECT component_id, quantity, feed_id, id, max(observed_at_us) FROM readings "
    "WHERE component_id = ? GROUP BY component_id, quantity, feed_id ON CONFLICT DO NOTHING"
)
_RECALLED: Final = "UPDATE components SET change_number = ?, change_kind = 'recalled' WHERE id = ?"
_ENDED: Final = (
    "SELECT count(*) FROM claims k JOIN deliveries d ON d.id = k.delivery_id "
    "WHERE d.id = ? AND k.closed_by = d.id AND k.valid_to_us >= d.recalled_us"
)

# Class, number and what others made of a component stay; what this delivery said of it, and where, goes.
_WORDLESS: Final = (
    "digest = x'', longitude_deg = 0, latitude_deg = 0, accuracy_m = 0, division_code = NULL, grid_code = NULL, "
    "name = NULL, state = NULL, roles_id = :nobody, more = NULL"
)
_NOBODY: Final = "INSERT INTO roles (digest) VALUES (x'') ON CONFLICT (digest) DO UPDATE SET digest = x'' RETURNING id"
_FORGET: Final = (
    f"UPDATE claims SET source_key = 'erased:' || id, {_WORDLESS} WHERE delivery_id = :delivery",
    f"UPDATE claims_past SET cell = 0, {_WORDLESS} WHERE delivery_id = :delivery",
    "DELETE FROM roles WHERE digest <> x'' AND id NOT IN (SELECT roles_id FROM claims UNION SELECT roles_id FROM "
    "claims_past)",
)
_TOUCHED: Final = (
    "SELECT component_id FROM claims WHERE delivery_id = ?1 UNION SELECT component_id FROM claims_past "
    "WHERE delivery_id = ?1"
)
# A component is where its claims say. Where none stands, where one said last whose words are still there.
_LEFT_AS: Final = (
    f"UPDATE components SET ({', '.join(LEADING[1:])}, cell) = (SELECT {', '.join(LEADING[1:])}, {CELL_SQL} FROM ("
    f"SELECT {', '.join(LEADING)}, valid_to_us, delivery_id FROM claims WHERE component_id = ?1 UNION ALL "
    f"SELECT {', '.join(LEADING)}, valid_to_us, delivery_id FROM claims_past WHERE component_id = ?1) k "
    "JOIN deliveries d ON d.id = k.delivery_id WHERE d.erased_on IS NULL ORDER BY valid_to_us DESC LIMIT 1) "
    "WHERE id = ?1 AND EXISTS (SELECT 1 FROM (SELECT delivery_id FROM claims WHERE component_id = ?1 UNION "
    "SELECT delivery_id FROM claims_past WHERE component_id = ?1) k JOIN deliveries d ON d.id = k.delivery_id "
    "WHERE d.erased_on IS NULL)"
)
_LEFT_NOWHERE: Final = (
    "UPDATE components SET longitude_deg = 0, latitude_deg = 0, accuracy_m = 0, division_code = NULL, "
    "grid_code = NULL, cell = 0 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM (SELECT delivery_id FROM claims "
    "WHERE component_id = ?1 UNION SELECT delivery_id FROM claims_past WHERE component_id = ?1) k "
    "JOIN deliveries d ON d.id = k.delivery_id WHERE d.erased_on IS NULL)"
)


def recall(connection: sqlite3.Connection, sender: str, message_id: str, at: datetime) -> int | None:
    """End what a delivery claims, as of a moment; gives how many claims ended, None where it is not stored.

    Again does nothing more and gives the same. Inside the transaction that the caller opened.
    """
    found = connection.execute(_DELIVERY, (sender, message_id)).fetchone()
    if found is None:
        return None
    delivery, feed_id, recalled_us = found
    if recalled_us is None:
        at_us = microseconds(at)
        connection.execute("UPDATE deliveries SET recalled_us = ? WHERE id = ?", (at_us, delivery))
        _end_claims(connection, delivery, feed_id, at_us)
    return int(connection.execute(_ENDED, (delivery,)).fetchone()[0])


def erase(connection: sqlite3.Connection, sender: str, message_id: str, day: str) -> None:
    """Destroy what the store holds of a recalled delivery's content: keys, names, places, units, all that it said.

    day: of the city, as answers say it. Class and number of a component stay: no identifier is issued twice. Inside the
    transaction that the caller opened; again does nothing more.
    """
    found = connection.execute(_DELIVERY, (sender, message_id)).fetchone()
    if found is None:
        return
    delivery = found[0]
    touched = connection.execute(_TOUCHED, (delivery,)).fetchall()
    connection.execute("UPDATE deliveries SET erased_on = coalesce(erased_on, ?) WHERE id = ?", (day, delivery))
    nobody = connection.execute(_NOBODY).fetchone()[0]
    for statement in _FORGET:
        connection.execute(statement, {"delivery": delivery, "nobody": nobody})
    live = "SELECT 1 FROM claims WHERE component_id = ? AND valid_to_us IS NULL"
    for component in touched:
        if connection.execute(live, component).fetchone() is None:
            connection.execute(_LEFT_AS, component)
            connection.execute(_LEFT_NOWHERE, component)
    _forget_outcomes(connection, delivery)


def _end_claims(connection: sqlite3.Connection, delivery: int, feed_id: int, at_us: int) -> None:
    standing = connection.execute(_STANDING, (delivery,)).fetchall()
    said_again = _said_again(connection, delivery, feed_id) if standing else {}
    components: dict[int, None] = {}
    for claim, source_key, component, since_us in standing:
        if source_key in said_again:
            later, record, valid_from_us = said_again[source_key]
            connection.execute(KEEP_PAST, (valid_from_us, later, claim))
            connection.execute(_ON_ITS_WORD, (later, record, valid_from_us, claim))
        else:
            connection.execute(END, (max(at_us, since_us), delivery, claim))
            components[component] = None
    shown = [component for (component,) in connection.execute(_SHOWN, (delivery,)).fetchall()]
    connection.execute(_UNSHOW, (delivery,))
    # Not kept as history: the same moment may be reported anew, rightly.
    connection.execute("DELETE FROM readings WHERE delivery_id = ?", (delivery,))
    connection.executemany(_SHOW_BEFORE, [(component,) for component in shown])
    _tell(connection, list(components | dict.fromkeys(shown)))


def _said_again(connection: sqlite3.Connection, delivery: int, feed_id: int) -> dict[str, tuple[int, int, int]]:
    """By source key: the last delivery that said a record again, unchanged, its number there, and since when."""
    found: dict[str, tuple[int, int, int]] = {}
    for later, position, valid_from_us, outcomes in connection.execute(_LATER, (feed_id, delivery)).fetchall():
        rows = pl.read_ipc(io.BytesIO(outcomes)).filter(delivery=position, outcome="unchanged")
        for source_key, record in rows.select("source_key", "record").iter_rows():
            found[source_key] = later, record, valid_from_us
    return found


def _tell(connection: sqlite3.Connection, components: list[int]) -> None:
    """A change number for each component, and what the claims that stand make of it."""
    query = "UPDATE change_counter SET last = last + ? RETURNING last"
    last = connection.execute(query, (len(components),)).fetchone()[0]
    numbered = enumerate(components, last - len(components) + 1)
    connection.executemany(_RECALLED, numbered)
    listed = msgspec.json.encode(components).decode()
    connection.executemany(LEAD, connection.execute(DIFFERING, (listed,)).fetchall())


def _forget_outcomes(connection: sqlite3.Connection, delivery: int) -> None:
    """The file of outcomes without this delivery's keys. Others of its commit keep theirs."""
    query = "SELECT t.id, d.position, t.outcomes FROM deliveries d JOIN commits t ON t.id = d.commit_id WHERE d.id = ?"
    commit, position, octets = connection.execute(query, (delivery,)).fetchone()
    outcomes = pl.read_ipc(io.BytesIO(octets))
    # Built anew, value by value: a column that is masked or filtered goes on holding what it no longer shows.
    keys = [None if one == position else key for one, key in outcomes.select("delivery", "source_key").iter_rows()]
    kept = outcomes.drop("source_key").with_columns(pl.Series("source_key", keys, dtype=pl.String))
    file = io.BytesIO()
    conform(kept, OUTCOMES).write_ipc(file, compression="zstd")
    connection.execute("UPDATE commits SET outcomes = ? WHERE id = ?", (file.getvalue(), commit))
