"""The file under the journal: opening it, and taking turns at writing it."""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import sqlalchemy as sa

from exchange.migrate import upgrade

NAME: Final = "journal.sqlite"
BUSY_MS: Final = 30_000
ROWS_AT_ONCE: Final = 500


class Turn:
    """One writer at a time over all processes, in the order of asking.

    A blocking flock alone lets whoever released it take it again before the one who waits is awake. So there are two:
    who waits for the lock holds the queue, and who wants the lock again must first get the queue.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = os.open(folder / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._queue = os.open(folder / "journal.queue", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fcntl.flock(self._queue, fcntl.LOCK_UN)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give back the two files."""
        os.close(self._lock)
        os.close(self._queue)


def prepare(folder: Path, turn: Turn) -> None:
    """Bring `journal.sqlite` in folder to today's schema, making it if need be."""
    engine = sa.create_engine(f"sqlite:///{folder / NAME}")
    try:
        with turn:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            upgrade(engine, "journal")
    finally:
        engine.dispose()


def insert(cursor: sqlite3.Cursor, into: str, rows: Sequence[tuple[object, ...]], otherwise: str = "") -> int:
    """Insert rows, a few hundred a statement; gives how many went in. otherwise: an ON CONFLICT clause.

    The driver gives up the interpreter's lock once a step, and a busy main thread may keep it for milliseconds. So a
    group is a few long steps and not a thousand short ones as `executemany` makes.
    """
    inserted = 0
    for start in range(0, len(rows), ROWS_AT_ONCE):
        piece = rows[start : start + ROWS_AT_ONCE]
        marks = "(" + ", ".join("?" * len(piece[0])) + ")"
        statement = f"INSERT INTO {into} VALUES {', '.join([marks] * len(piece))} {otherwise}"
        inserted += cursor.execute(statement, [value for row in piece for value in row]).rowcount
    return inserted


def scrub(connection: sqlite3.Connection) -> None:
    """Leave no octet of what was overwritten: the file is made anew, and its write-ahead log is emptied into it.

    Raises sqlite3.OperationalError where somebody reads an older state for longer than the connection waits.
    """
    connection.execute("VACUUM")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the file is being read, and its write-ahead log cannot be emptied")


def connect(folder: Path) -> sqlite3.Connection:
    """A connection in autocommit, durable at each commit, usable from any one thread at a time."""
    connection = sqlite3.connect(folder / NAME, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # what is erased leaves nothing in the page
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    return connection
