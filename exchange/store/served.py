"""The store on a PostgreSQL server: several workers at once, whose order is kept by locks of the server's.

All are advisory locks of the session that commits in the end. Whoever loses the session has lost them, and the commit
finds it out: nothing is written by one who is no longer alone. Taken in this order, so nobody waits in a circle: the
turn (an erasure alone, batches together), the feed, the neighbourhood by number of tile; then, within the transaction,
components by number, combinations of units by digest, and last the counter of changes, which only a commit lets go.
"""

import io
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec
import polars as pl

from exchange.database import Failed
from exchange.postgres import PostgresConnection, PostgresCursor, PostgresSchema
from exchange.store.engine import MOST_ROWS

TURN, FEED, TILE = 0x594F5401, 0x594F5402, 0x594F5403  # the first of two numbers of a lock
EVERYWHERE: Final = -1  # the number of a tile that none has: shared by who takes some, alone by who takes all
MOST_TILES: Final = 64  # locks of a server's are counted; a batch over more takes the whole city
ROWS_AT_ONCE: Final = 4_000  # of what is told by COPY: while the server takes some in, the next are spelt

_TYPES: Final = {pl.String: "TEXT", pl.Binary: "BYTEA", pl.Float64: "DOUBLE PRECISION", pl.Boolean: "BOOLEAN"}
_HOLD: Final = (
    "SELECT c.id FROM components c WHERE c.id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) "
    "ORDER BY c.id FOR UPDATE"
)


class Served:
    """The schema `store` of a database. url: as `exchange.postgres` takes it."""

    def __init__(self, url: str) -> None:
        self.url, self.database = url, PostgresSchema(url, "store")
        self._threads = threading.local()

    def connect(self) -> PostgresConnection:
        """A new connection."""
        return self.database.connect()

    @contextmanager
    def transaction(self, connection: PostgresConnection) -> Iterator["ServedWriter"]:
        """One transaction; every statement in it sees all that was committed before it (READ COMMITTED). Raises Failed
        where the session is no longer the one that holds the turn."""
        writer = ServedWriter(connection)
        with connection.transaction():
            if getattr(self._threads, "session", None) not in (None, connection.session):
                raise Failed("the server ended the session that held the turn")
            yield writer
        if grown := [table for table, rows in writer.inserted.items() if rows > MOST_ROWS]:
            # It finds out for itself a minute later; until then it would read a million rows to find one.
            connection.execute(f"ANALYZE (SKIP_LOCKED) {', '.join(grown)}")

    @contextmanager
    def turn(self, connection: PostgresConnection, feed: str | None) -> Iterator[bool]:
        """An erasure waits until no batch is under way, and batches that come later wait for it. Of a feed there is one
        batch at a time; who comes second is told so and does not wait."""
        try:
            _lock(connection, "pg_advisory_lock" if feed is None else "pg_advisory_lock_shared", TURN, [0])
            self._threads.session = connection.session
            yield feed is None or _lock(connection, "pg_try_advisory_lock", FEED, [_number_of(feed)]) == [(True,)]
        finally:
            self._threads.session = None
            with suppress(Failed):  # the session is gone, and with it what it held
                connection.execute("SELECT pg_advisory_unlock_all()")

    @contextmanager
    def neighbourhood(self, connection: PostgresConnection, tiles: Sequence[int] | None) -> Iterator[None]:
        """As `Engine` has it."""
        everywhere = tiles is None or len(tiles) > MOST_TILES
        kind = "" if everywhere else "_shared"
        numbers = [] if tiles is None or everywhere else sorted(tiles)
        _lock(connection, f"pg_advisory_lock{kind}", TILE, [EVERYWHERE])
        try:
            _lock(connection, "pg_advisory_lock", TILE, numbers)
            yield
        finally:
            with suppress(Failed):
                _lock(connection, "pg_advisory_unlock", TILE, numbers)
                _lock(connection, f"pg_advisory_unlock{kind}", TILE, [EVERYWHERE])


def _lock(connection: PostgresConnection, function: str, kind: int, numbers: Sequence[int]) -> list[Any]:
    """Lock or unlock each number of a kind, in this order."""
    if not numbers:
        return []
    each = "SELECT CAST(value AS INTEGER) AS number FROM json_each(?)"
    query = f"SELECT {function}({kind}, number) FROM ({each} OFFSET 0) numbers"
    return connection.execute(query, (msgspec.json.encode(numbers).decode(),)).fetchall()


def _number_of(feed: str) -> int:
    """A number of 32 bits, signed, for a feed's lock. Two feeds with one number take turns, and no more."""
    return int.from_bytes(zlib.crc32(feed.encode()).to_bytes(4), signed=True)


class ServedWriter:
    """What `Writer` has, by COPY."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self.inserted = Counter[str]()  # rows, by table

    def execute(self, query: str, values: Any = (), /) -> PostgresCursor:
        """Do one statement."""
        return self._connection.execute(query, values)

    def keys(self, table: str, count: int) -> int:
        """As `Writer` has it. Those of a transaction that is undone are not used again."""
        if count == 0:
            return 0
        return int(self.execute("SELECT first_of(?, CAST(? AS BIGINT))", (f"{table}_id_seq", count)).fetchone()[0])

    def insert(self, table: str, columns: Sequence[str], rows: pl.DataFrame) -> None:
        """As `Writer` has it."""
        self.inserted[table] += rows.height
        self._copy(table, columns, rows)

    def _copy(self, table: str, columns: Sequence[str], rows: pl.DataFrame) -> None:
        """All rows by one COPY, as CSV that is made column by column."""
        if rows.is_empty():
            return
        said = rows.select(_spelt(rows, name) for name in columns)
        with self._connection.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)") as copy:
            for piece in said.iter_slices(ROWS_AT_ONCE):
                file = io.BytesIO()
                piece.write_csv(file, include_header=False)
                copy.write(file.getvalue())

    def stage(self, name: str, rows: pl.DataFrame) -> None:
        """A temporary table: made once a session, emptied by each commit. The server is told how many rows lie there:
        it would take a few for thousands, and read whole tables rather than look each up."""
        columns = ", ".join(f"{column} {_TYPES.get(type(kind), 'BIGINT')}" for column, kind in rows.schema.items())
        self.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DELETE ROWS")
        self._copy(f"pg_temp.{name}", rows.columns, rows)
        self.execute(f"ANALYZE pg_temp.{name}")

    def hold(self, components: pl.Series) -> None:
        """As `Writer` has it: what follows sees all that others made of them."""
        if 0 < components.len() <= MOST_ROWS:  # above, whoever commits has the city alone
            self.execute(_HOLD, (msgspec.json.encode(components.to_list()).decode(),)).fetchall()


def _spelt(rows: pl.DataFrame, name: str) -> pl.Expr:
    """A column as COPY reads it: octets in hexadecimal digits."""
    return (
        (pl.lit("\\x") + pl.col(name).bin.encode("hex")).alias(name) if rows.schema[name] == pl.Binary else pl.col(name)
    )
