"""The store in a SQLite file: one at a time at all that writes."""

import fcntl
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl

from exchange.database import SqliteFile
from exchange.rights import in_ring

CACHE_KIB: Final = 64_000  # of each connection; a million rows go in half again as fast as with SQLite's 2 MB
ROWS_TOGETHER: Final = 50  # in one statement of an insert; SQLite takes 32,766 parameters
ROWS_ALONE: Final = 1_000  # up to here each goes in by a statement that is always the same, and so compiled once


class Embedded:
    """`store.sqlite` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.database = SqliteFile(folder, "store")

    def connect(self) -> sqlite3.Connection:
        """A new connection."""
        connection = self.database.connect()
        connection.create_function("in_ring", 3, in_ring, deterministic=True)
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("PRAGMA temp_store=MEMORY")  # what is staged is never in a file
        return connection

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator["EmbeddedWriter"]:
        """One transaction: kept as a whole or not at all."""
        with self.database.transaction(connection) as cursor:
            yield EmbeddedWriter(cursor)

    @contextmanager
    def turn(self, connection: sqlite3.Connection, feed: str | None) -> Iterator[bool]:
        """Alone, for a batch as for an erasure: there is one worker."""
        with self.database.path.with_suffix(".turn").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield True

    @contextmanager
    def neighbourhood(self, connection: sqlite3.Connection, tiles: Sequence[int] | None) -> Iterator[None]:
        """Whoever has the turn is alone everywhere."""
        yield


class EmbeddedWriter:
    """What `Writer` has, by the one cursor of a transaction."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def execute(self, query: str, values: Any = (), /) -> sqlite3.Cursor:
        """Do one statement."""
        return self._cursor.connection.execute(query, values)

    def keys(self, table: str, count: int) -> int:
        """As `Writer` has it; nobody else writes meanwhile."""
        return int(self.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])

    def insert(self, table: str, columns: Sequence[str], rows: pl.DataFrame) -> None:
        """Of many rows several go into one statement, which costs half as much a row."""
        alone = rows.height % ROWS_TOGETHER if rows.height > ROWS_ALONE else rows.height
        self._insert_by(table, columns, rows.head(rows.height - alone), ROWS_TOGETHER)
        self._insert_by(table, columns, rows.tail(alone), 1)

    def stage(self, name: str, rows: pl.DataFrame) -> None:
        """As `Writer` has it."""
        self.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({', '.join(rows.columns)})")
        self.execute(f"DELETE FROM temp.{name}")
        self.insert(f"temp.{name}", rows.columns, rows)

    def hold(self, components: pl.Series) -> None:
        """Nobody else writes."""

    def _insert_by(self, table: str, columns: Sequence[str], rows: pl.DataFrame, together: int) -> None:
        """Insert so many rows a statement; they are a multiple of it.

        OR FAIL: else a statement of several rows would first copy each page that it changes, to undo itself alone. What
        fails here undoes the whole transaction.
        """
        same = {name: _literal(rows[name]) for name in columns} if together > 1 else {}
        said = rows.select(name for name in columns if same.get(name) is None)
        one = f"({', '.join(same.get(name) or '?' for name in columns)})"
        statement = f"INSERT OR FAIL INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * together)}"
        if together == 1:
            self._cursor.executemany(statement, said.iter_rows())
        else:
            pieces = (piece.rows() for piece in said.iter_slices(together))
            self._cursor.executemany(statement, (tuple(itertools.chain.from_iterable(piece)) for piece in pieces))


def _literal(column: pl.Series) -> str | None:
    """SQL for a column that is null or one whole number in every row; it need not be bound a million times."""
    if column.null_count() == column.len():
        return "NULL"
    if not column.dtype.is_integer() or column.null_count() or column.min() != column.max():
        return None
    return str(column[0])
