"""The store on SQLite: components, claims and what they were. Only act two writes it."""

import fcntl
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl
import sqlalchemy as sa

from exchange.database import scrub
from exchange.migrate import upgrade
from exchange.rights import EVERYTHING, View, in_ring
from exchange.store import asking, identifiers, ledgers, readings, tallying, withdrawing
from exchange.store.frames import NEAR, SEEN, Batch, Ledger, Seen, Stored, StoredDelivery, Tie
from exchange.store.places import cells_in_reach
from exchange.store.writing import decoded_outcomes, stored_again, stored_delivery, write
from mappings.schema import CLASSES_BETWEEN, Schema

NAME: Final = "store.sqlite"
BUSY_S: Final = 30.0
CACHE_KIB: Final = 64_000  # of each connection; a million rows go in half again as fast as with SQLite's 2 MB

# What was recalled is known as of its own day and no later: what the bureau then sends of that day is news.
SEEN_COLUMNS: Final = (
    "SELECT source_key, k.id, component_id, digest, "
    "iif(d.recalled_us IS NULL, coalesce(valid_to_us, k.valid_from_us), k.valid_from_us), valid_to_us IS NULL "
    "FROM claims k JOIN feeds f ON f.id = k.feed_id JOIN deliveries d ON d.id = k.delivery_id WHERE f.code = ?"
)
NEAR_COLUMNS: Final = (
    "SELECT c.id, class_code, longitude_deg, latitude_deg, accuracy_m, "
    "(SELECT max(more ->> 'network') FROM claims WHERE component_id = c.id AND valid_to_us IS NULL), "
    "(SELECT json_group_array(mark) FROM (SELECT source_key AS mark FROM claims WHERE component_id = c.id "
    "UNION SELECT more ->> 'label' FROM claims WHERE component_id = c.id AND more ->> 'label' NOT NULL)) "
    "FROM components c WHERE c.cell IN (SELECT value FROM json_each(?)) "
    # A class may be a set, `0102|0103`; codes are of one length, so none stands inside another.
    "AND EXISTS (SELECT 1 FROM json_each(?) j WHERE instr(c.class_code, j.value)) "
    "AND NOT EXISTS (SELECT 1 FROM claims k JOIN feeds f ON f.id = k.feed_id "
    "WHERE k.component_id = c.id AND f.code = ?)"
)
STORED: Final = (
    "SELECT d.sender, d.message_id, d.root, d.counts, t.recorded_at_us, t.outcomes FROM deliveries d "
    "JOIN commits t ON t.id = d.commit_id WHERE d.sender = ? AND d.message_id = ?"
)
OUTCOMES_OF: Final = (
    "SELECT t.outcomes, d.position FROM deliveries d JOIN commits t ON t.id = d.commit_id "
    "WHERE d.sender = ? AND d.message_id = ?"
)


class Store:
    """`store.sqlite` in a folder, brought to today's schema when opened. Threads share it; processes each open it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._threads = threading.local()
        self._open: list[sqlite3.Connection] = []
        _prepare(self._path)

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

    def near(self, feed: str, versions: pl.DataFrame) -> pl.DataFrame:
        """NEAR: components around the new ones among `versions`, of their classes, not yet spoken of by `feed`."""
        new = versions.filter(pl.col("component").is_null())
        if new.is_empty():
            return pl.DataFrame(schema=NEAR)
        cells = cells_in_reach(new)["cell"].unique().to_list()
        classes = new["class_code"].unique().str.split(CLASSES_BETWEEN).explode().unique().to_list()
        asked = (msgspec.json.encode(cells).decode(), msgspec.json.encode(classes).decode(), feed)
        rows = self.connection().execute(NEAR_COLUMNS, asked)
        return _frame(((*row, msgspec.json.decode(marks)) for *row, marks in rows), NEAR)

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

    def commit(self, batch: Batch) -> Stored:
        """Write a batch in one transaction. All of it stored before: nothing is written, the earlier outcome returns.

        Raises ValueError when only some of its deliveries are stored (ask `stored` first), or when it is held.
        """
        if batch.compared.held:
            raise ValueError("a held delivery is not stored: a person decides first")
        with self._transaction() as connection:
            known = self.stored((one.sender, one.message_id) for one in batch.deliveries)
            if known and len(known) < len(batch.deliveries):
                raise ValueError(f"{len(known)} of {len(batch.deliveries)} deliveries are stored already")
            return stored_again(batch, known, self.outcomes) if known else write(connection, batch)

    def recall(self, sender: str, message_id: str, at: datetime) -> int | None:
        """End what a delivery claims, as of a moment; gives how many claims ended, None where it is not stored.

        Again does nothing more and gives the same.
        """
        with self._transaction() as connection:
            return withdrawing.recall(connection, sender, message_id, at)

    def erase(self, sender: str, message_id: str, at: datetime, day: str) -> None:
        """Recall a delivery, unless that was done, and destroy all that it said. day: of the city, YYYY-MM-DD."""
        with self._transaction() as connection:
            withdrawing.recall(connection, sender, message_id, at)
            withdrawing.erase(connection, sender, message_id, day)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Alone at what the register says, over all processes: act two a batch, an erasure as a whole. Else what is
        erased could come back from a batch that had read it before."""
        with self._path.with_suffix(".turn").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def scrub(self) -> None:
        """Leave nothing of what was overwritten: the file is made anew, and what waited in its log is in it."""
        scrub(self.connection())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def stored(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], StoredDelivery]:
        """Those of (sender, message id) that the store holds."""
        connection = self.connection()
        rows = (connection.execute(STORED, one).fetchone() for one in ids)
        return {(row[0], row[1]): stored_delivery(row) for row in rows if row is not None}

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

    def ties(self, view: View = EVERYTHING, after: int = 0, limit: int = -1) -> list[Tie]:
        """Claims that position alone does not join, by component after a number: a person's to decide. limit -1: all.

        Both sides of a tie are seen through the view; one that has a single side left is none.
        """
        return ledgers.ties(self.connection(), view, after, limit)

    def connection(self) -> sqlite3.Connection:
        """This thread's own connection, in autocommit; reads see the last commit."""
        found: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            found.create_function("in_ring", 3, in_ring, deterministic=True)
            found.execute("PRAGMA synchronous=FULL")
            found.execute("PRAGMA secure_delete=ON")  # what is erased leaves nothing in the page
            found.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self._threads.connection = found
            self._open.append(found)
        return found

    def close(self) -> None:
        """Give the files back."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._threads = threading.local()


def _prepare(path: Path) -> None:
    """Today's schema; two processes that start together take turns."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        upgrade(engine, "store")
    engine.dispose()


def _frame(rows: Iterable[tuple[Any, ...]], schema: Schema) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=schema, orient="row")
