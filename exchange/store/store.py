"""The store: components, claims and what they were. Only act two writes it."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

import msgspec
import polars as pl

from exchange.database import Connection, Database
from exchange.rights import EVERYTHING, View
from exchange.store import (
    asking,
    identifiers,
    layers,
    ledgers,
    placing_anew,
    readings,
    sheets,
    standing,
    tallying,
    withdrawing,
)
from exchange.store.engine import MOST_ROWS, Engine, Writer
from exchange.store.frames import NEAR, SEEN, Batch, Compared, Ledger, Seen, Stored, StoredDelivery, Tie, microseconds
from exchange.store.places import cells_in_reach, tiles
from exchange.store.writing import decoded_outcomes, stored_again, stored_delivery, write
from mappings.schema import CLASSES_BETWEEN, Schema, conform

# What was recalled is known as of its own day and no later: what the bureau then sends of that day is news.
SEEN_COLUMNS: Final = (
    "SELECT source_key, k.id, component_id, digest, "
    "CASE WHEN d.recalled_us IS NULL THEN coalesce(k.valid_to_us, k.valid_from_us) ELSE k.valid_from_us END, "
    "k.valid_to_us IS NULL "
    "FROM claims k JOIN feeds f ON f.id = k.feed_id JOIN deliveries d ON d.id = k.delivery_id WHERE f.code = ?"
)
# One row a claim: what a component is known by, and the network that its standing claims name.
NEAR_COLUMNS: Final = (
    "SELECT c.id, c.class_code, c.longitude_deg, c.latitude_deg, c.accuracy_m, k.source_key, "
    "json_extract(k.more, '$.label'), CASE WHEN k.valid_to_us IS NULL THEN json_extract(k.more, '$.network') END "
    "FROM components c JOIN claims k ON k.component_id = c.id "
    "WHERE c.cell IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) "
    # A class may be a set, `0102|0103`; codes are of one length, so none stands inside another.
    "AND EXISTS (SELECT 1 FROM json_each(?) j WHERE instr(c.class_code, j.value) > 0) "
    "AND NOT EXISTS (SELECT 1 FROM claims o JOIN feeds f ON f.id = o.feed_id "
    "WHERE o.component_id = c.id AND f.code = ?)"
)
CLAIMED: Final[Schema] = {
    **{name: NEAR[name] for name in ("component", "class_code", "longitude_deg", "latitude_deg", "accuracy_m")},
    "source_key": pl.String, "label": pl.String, "network": pl.String,
}  # fmt: skip
STORED: Final = (
    "SELECT d.sender, d.message_id, d.root, d.counts, t.recorded_at_us, t.outcomes FROM deliveries d "
    "JOIN commits t ON t.id = d.commit_id WHERE d.sender = ? "
    "AND d.message_id IN (SELECT value FROM json_each(?))"
)
OUTCOMES_OF: Final = (
    "SELECT t.outcomes, d.position FROM deliveries d JOIN commits t ON t.id = d.commit_id "
    "WHERE d.sender = ? AND d.message_id = ?"
)


class Store:
    """The store on one of its engines, brought to today's schema when opened. Threads share it; processes each open
    it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._threads = threading.local()
        self._open: list[Connection] = []
        engine.database.prepare()

    @property
    def database(self) -> Database:
        """Where it lies, for who makes it fast, copies it or looks whether it is well."""
        return self.engine.database

    def seen(self, feed: str, source_keys: Sequence[str] | None = None) -> Seen:
        """What the store knows of a feed: of all its keys (for a snapshot), or of those given (for changes)."""
        connection = self.connection()
        if source_keys is None:
            rows = connection.execute(SEEN_COLUMNS, (feed,))
        else:
            wanted = SEEN_COLUMNS + " AND source_key IN (SELECT value FROM json_each(?))"
            rows = connection.execute(wanted, (feed, msgspec.json.encode(source_keys).decode()))
        as_of = connection.execute("SELECT as_of_us FROM feeds WHERE code = ?", (feed,)).fetchone()
        return Seen(_frame(rows, SEEN), as_of[0] if as_of else None)

    def beyond(self, feed: str, view: View, source_keys: Sequence[str] | None = None) -> pl.DataFrame:
        """source_key: those of a feed's keys (None: of all) whose standing claims a view does not cover."""
        return asking.beyond(self.connection(), feed, view, source_keys)

    def cells_of(self, feeds: Sequence[str]) -> list[int]:
        """The cells in which components stand of which one of the feeds has a standing claim."""
        return asking.cells_of(self.connection(), feeds)

    def on_sheets(self, feed: str, numbers: Sequence[str]) -> pl.DataFrame:
        """ON_SHEETS: what a feed that comes by sheets says, or said, under the keys of these sheets."""
        return sheets.on_sheets(self.connection(), feed, numbers)

    def seen_on_sheets(self, feed: str, source_keys: Sequence[str], numbers: Sequence[str]) -> Seen:
        """What the store knows of these keys, and since when of these sheets."""
        known_us = sheets.as_of_us(self.connection(), feed, numbers)
        return Seen(self.seen(feed, source_keys).claims, known_us)

    def was_on_sheets(
        self, feed: str, numbers: Sequence[str], sender: str, message_id: str, unchanged: pl.Series
    ) -> pl.DataFrame:
        """WAS_ON_SHEETS: what a stored delivery found and left under the keys of these sheets."""
        return sheets.was_on_sheets(self.connection(), feed, numbers, sender, message_id, unchanged)

    def near(self, feed: str, versions: pl.DataFrame) -> pl.DataFrame:
        """NEAR: components around the new ones among `versions`, of their classes, not yet spoken of by `feed`."""
        new = versions.filter(pl.col("component").is_null())
        if new.is_empty():
            return pl.DataFrame(schema=NEAR)
        cells = cells_in_reach(new)["cell"].unique().to_list()
        classes = new["class_code"].unique().str.split(CLASSES_BETWEEN).explode().unique().to_list()
        asked = (msgspec.json.encode(cells).decode(), msgspec.json.encode(classes).decode(), feed)
        claimed = _frame(self.connection().execute(NEAR_COLUMNS, asked), CLAIMED)
        marks = pl.concat_list("source_key", "label").explode().drop_nulls().unique().sort()
        by_component = claimed.group_by([name for name in CLAIMED if name in NEAR and name != "network"])
        return conform(by_component.agg(pl.col("network").max(), marks.alias("marks")), NEAR)

    def standing(self, class_codes: pl.Series) -> pl.DataFrame:
        """STANDING: things of the classes that a claim stands for, wherever they are."""
        return standing.standing(self.connection(), class_codes)

    def stood(self, feed: str, keys: pl.Series) -> pl.DataFrame:
        """STOOD: those of the keys for which a claim of the feed stands, and where."""
        return standing.stood(self.connection(), feed, keys)

    def holders(self, codes: pl.Series) -> pl.DataFrame:
        """identifier, component: those of published identifiers that a component has."""
        return identifiers.holders(self.connection(), codes)

    def identifiers_of(self, components: pl.Series) -> pl.DataFrame:
        """identifier, component: of those of the components that have one."""
        return identifiers.identifiers_of(self.connection(), components)

    def known_keys(self, register: str, keys: pl.Series) -> pl.DataFrame:
        """KNOWN_KEYS: those of the keys that a feed has ever stated."""
        return readings.known_keys(self.connection(), register, keys)

    def known_readings(self, feed: str, observed: pl.DataFrame) -> pl.DataFrame:
        """KNOWN_READINGS: what is kept of a feed for the same components, quantities and moments as OBSERVED."""
        return readings.known_readings(self.connection(), feed, observed)

    def layer_versions(self, layer: str | None = None) -> list[layers.Version]:
        """All versions of a layer, or of every one, the oldest first."""
        return layers.versions(self.connection(), layer)

    def newest_version(self, layer: str) -> tuple[layers.Version | None, pl.DataFrame]:
        """The newest version of a layer that stands, and source_key, digest of its features."""
        found = layers.newest(self.connection(), layer)
        return found, layers.digests(self.connection(), found.id if found else None)

    def version_of(self, sender: str, message_id: str) -> layers.Version | None:
        """The version of a layer that a delivery made."""
        return layers.of_delivery(self.connection(), sender, message_id)

    def features(self, version: int) -> pl.DataFrame:
        """KEPT: the features of a version (its id), by code."""
        return layers.features(self.connection(), version)

    def features_around(self, version: int, longitude_deg: float, latitude_deg: float) -> pl.DataFrame:
        """KEPT: features of a version (its id) whose box holds a place."""
        return layers.around(self.connection(), version, longitude_deg, latitude_deg)

    def placed_by(self) -> dict[str, placing_anew.PlacedBy]:
        """By which versions of layers components are placed."""
        return placing_anew.placed_by(self.connection())

    def elsewhere(self, place: placing_anew.Place) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Claims, and components without any, that other polygons place elsewhere; nothing is changed."""
        return placing_anew.elsewhere(self.connection(), place)

    def put_in_force(self, place: placing_anew.Place, of: Mapping[str, int | None], at: datetime) -> int:
        """Place all components by other polygons, in one transaction, as of a moment; who calls has the turn alone.
        Gives how many components are elsewhere by that."""
        with self._transaction() as writer:
            return placing_anew.put_in_force(writer, self.connection(), place, of, microseconds(at))

    def note_placed(self, layer: str) -> None:
        """Remember that the audit has what a layer's areas were put in force by."""
        with self._transaction() as writer:
            placing_anew.note(writer, layer)

    def commit(self, batch: Batch) -> Stored:
        """Write a batch in one transaction. All of it stored before: nothing is written, the earlier outcome returns.

        Raises ValueError when only some of its deliveries are stored (ask `stored` first), or when it is held.
        """
        if batch.compared.held:
            raise ValueError("a held delivery is not stored: a person decides first")
        with self._transaction() as writer:
            known = self.stored((one.sender, one.message_id) for one in batch.deliveries)
            if known and len(known) < len(batch.deliveries):
                raise ValueError(f"{len(known)} of {len(batch.deliveries)} deliveries are stored already")
            return stored_again(batch, known, self.outcomes) if known else write(writer, batch)

    def recall(self, sender: str, message_id: str, at: datetime) -> int | None:
        """End what a delivery claims, as of a moment; gives how many claims ended, None where it is not stored.

        Again does nothing more and gives the same.
        """
        with self.engine.neighbourhood(self.connection(), None), self._transaction() as writer:
            return withdrawing.recall(writer, sender, message_id, at)

    def erase(self, sender: str, message_id: str, at: datetime, day: str) -> None:
        """Recall a delivery, unless that was done, and destroy all that it said. day: of the city, YYYY-MM-DD."""
        with self.engine.neighbourhood(self.connection(), None), self._transaction() as writer:
            withdrawing.recall(writer, sender, message_id, at)
            withdrawing.erase(writer, sender, message_id, day)

    def turn(self, feed: str | None = None) -> AbstractContextManager[bool]:
        """The turn of a batch of a feed, or (None) of an erasure, over all processes; false where another worker is at
        that feed. An erasure is alone, else what is erased could come back from a batch that had read it before."""
        return self.engine.turn(self.connection(), feed)

    def neighbourhood(self, compared: Compared) -> AbstractContextManager[None]:
        """Alone where a batch finds or makes components, from the look at what stands there until it is stored."""
        large = compared.versions.height + compared.ended.height > MOST_ROWS
        new = compared.versions.filter(pl.col("component").is_null())
        return self.engine.neighbourhood(self.connection(), None if large else tiles(new))

    def scrub(self) -> None:
        """Leave nothing of what was overwritten: it is made anew, and what waited in its log is in it."""
        self.engine.database.scrub()

    def _transaction(self) -> AbstractContextManager[Writer]:
        return self.engine.transaction(self.connection())

    def stored(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], StoredDelivery]:
        """Those of (sender, message id) that the store holds."""
        by_sender: dict[str, list[str]] = {}
        for sender, message_id in ids:
            by_sender.setdefault(sender, []).append(message_id)
        asked = ((sender, msgspec.json.encode(theirs).decode()) for sender, theirs in by_sender.items())
        rows = (row for values in asked for row in self.connection().execute(STORED, values))
        return {(row[0], row[1]): stored_delivery(row) for row in rows}

    def outcomes(self, sender: str, message_id: str) -> pl.DataFrame | None:
        """OUTCOMES of a stored delivery (column `delivery` is 0), None when it is not stored."""
        row = self.connection().execute(OUTCOMES_OF, (sender, message_id)).fetchone()
        return None if row is None else decoded_outcomes(*row)

    def tallies(self, first_entry: int, stop_entry: int) -> pl.DataFrame:
        """TALLIES of the deliveries that entries of the log, `first_entry` to before `stop_entry`, accepted."""
        return tallying.tallies(self.connection(), first_entry, stop_entry)

    def ledger(self) -> Ledger:
        """The store in numbers, as of now."""
        return ledgers.ledger(self.connection())

    def ties(self, view: View = EVERYTHING, after: int = 0, limit: int = ledgers.ALL) -> list[Tie]:
        """Claims that position alone does not join, by component after a number: a person's to decide.

        Both sides of a tie are seen through the view; one that has a single side left is none.
        """
        return ledgers.ties(self.connection(), view, after, limit)

    def connection(self) -> Connection:
        """This thread's own connection, in autocommit; reads see the last commit."""
        found: Connection | None = getattr(self._threads, "connection", None)
        if found is None:
            found = self.engine.connect()
            self._threads.connection = found
            self._open.append(found)
        return found

    def close(self) -> None:
        """Give the files back."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._threads = threading.local()


def _frame(rows: Iterable[tuple[Any, ...]], schema: Schema) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=schema, orient="row")
