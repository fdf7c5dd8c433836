"""A database of the bus: a SQLite file in the state folder, or, outgrown, a schema on a PostgreSQL server.

Statements are written once, in what both understand, with `?` or `:name` for values. What SQL says differently there is
a function that both have: `instr(octets, octets)`, and `said(octets, member)`, a member of a JSON object as text.

Public face: `Database`, `SqliteFile`, `FAILURES`, `is_unreadable`; `exchange.postgres` has the other engine.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

import msgspec
import sqlalchemy as sa

from exchange.migrate import upgrade

History = Literal["journal", "store"]
Values = Sequence[object] | Mapping[str, object]

BUSY_MS: Final = 30_000
ROWS_AT_ONCE: Final = 500
PAGES_AT_ONCE: Final = 4_096  # of a copy; between two lots writers get their turn


class Failed(Exception):
    """A database server did not do what it was asked."""


class Conflict(Failed):
    """A constraint of a database server's was broken."""


class Unreadable(Failed):
    """A database server was asked what octets say that are no JSON."""


# SQLite raises its own errors, a server's are told apart from them by the two above.
FAILURES: Final = (sqlite3.Error, Failed)
CONFLICTS: Final = (sqlite3.IntegrityError, Conflict)


class Cursor(Protocol):
    """What statements go through."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""

    def execute(self, query: str, values: Any = ..., /) -> Self:
        """Do one statement. values: in the order of its marks, or by their names."""

    def executemany(self, query: str, values: Iterable[Any], /) -> Self:
        """Do one statement for each of many rows of values."""

    def fetchone(self) -> Any:
        """The next row, None after the last."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Row by row."""


class Connection(Protocol):
    """A connection in autocommit, durable at each commit, usable from any one thread at a time."""

    def execute(self, query: str, values: Any = ..., /) -> Cursor:
        """Do one statement."""

    def executemany(self, query: str, values: Iterable[Any], /) -> Cursor:
        """Do one statement for each of many rows of values."""

    def cursor(self) -> Cursor:
        """A cursor of its own."""

    def close(self) -> None:
        """Give it back."""


class Database(Protocol):
    """One of the bus's two histories on one engine; opened by as many processes as like."""

    def prepare(self) -> None:
        """Bring it to today's schema, making it if need be; who starts at the same moment waits."""

    def connect(self) -> Connection:
        """A new connection."""

    def transaction(self, connection: Any) -> AbstractContextManager[Cursor]:
        """This process's turn at writing and one transaction in it: kept as a whole or not at all."""

    def scrub(self) -> None:
        """Leave no octet of what was overwritten, while nobody writes. Raises one of FAILURES where it is being read
        for too long."""

    def export(self, folder: Path) -> Path:
        """Write it into a folder as a SQLite file, as of one moment, while the bus goes on; gives the file. That is the
        form in which auditors get it and backups keep it, whichever engine it comes from."""

    def load(self, file: Path) -> None:
        """Take over all that such a file holds, into an empty database that was prepared."""

    def duty(self, task: str) -> AbstractContextManager[bool]:
        """Whether a task that one process does for all is this one's, for as long as the context lasts."""

    @property
    def shared(self) -> bool:
        """Whether several processes may serve on it at once, on several machines."""

    def exists(self) -> bool:
        """Whether it was made."""

    def discard(self) -> None:
        """Take it away with all that it holds: of a restore that failed, and of nothing else."""

    def meddling(self) -> list[str]:
        """Triggers and views in it, of which it has none of its own."""


@contextmanager
def turn(folder: Path, name: str) -> Iterator[None]:
    """One writer at a time over all processes and threads, in the order of asking.

    A blocking flock alone lets whoever released it take it again before the one who waits is awake. So there are two:
    who waits for the lock holds the queue, and who wants the lock again must first get the queue.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock, queue = (os.open(folder / f"{name}.{file}", flags, 0o600) for file in ("lock", "queue"))
    try:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield
    finally:  # closing gives them back
        os.close(lock)
        os.close(queue)


class SqliteFile:
    """`{history}.sqlite` in a folder, beside the files by which processes take turns at it."""

    def __init__(self, folder: Path, history: History) -> None:
        self._folder, self._history = folder, history
        self.path = folder / f"{history}.sqlite"

    def prepare(self) -> None:
        """Bring the file to today's schema, making it if need be."""
        engine = sa.create_engine(f"sqlite:///{self.path}", connect_args={"isolation_level": None})
        # Left to itself the driver begins no transaction for what changes a schema, and commits each statement alone.
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            with turn(self._folder, self._history):
                with closing(sqlite3.connect(self.path)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                upgrade(engine, self._history)
        finally:
            engine.dispose()

    def connect(self) -> sqlite3.Connection:
        """A new connection."""
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # what is erased leaves nothing in the page
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.create_function("said", 2, _said, deterministic=True)
        return connection

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
        """As `Database` has it."""
        with turn(self._folder, self._history):
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def scrub(self) -> None:
        """The file is made anew, and its write-ahead log is emptied into it."""
        with turn(self._folder, self._history), closing(self.connect()) as connection:
            scrub(connection)

    def export(self, folder: Path) -> Path:
        """As `Database` has it."""
        target = SqliteFile(folder, self._history)
        with closing(self.connect()) as ours, closing(sqlite3.connect(target.path)) as copy:
            # One reading from the first page to the last: a copy made between others' commits would begin anew at each.
            ours.execute("BEGIN")
            ours.execute("SELECT count(*) FROM sqlite_master").fetchone()
            ours.backup(copy, pages=PAGES_AT_ONCE)
        return target.path

    def load(self, file: Path) -> None:
        """As `Database` has it."""
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as source, closing(self.connect()) as ours:
            source.backup(ours)
        self.prepare()  # it may be of a version before

    @contextmanager
    def duty(self, task: str) -> Iterator[bool]:
        """As `Database` has it."""
        with (self._folder / f"{task}.duty").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                ours = False
            else:
                ours = True
            yield ours

    @property
    def shared(self) -> bool:
        """As `Database` has it."""
        return False

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def discard(self) -> None:
        """As `Database` has it."""
        for ending in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(f"{self.path.name}{ending}").unlink(missing_ok=True)

    def meddling(self) -> list[str]:
        """As `Database` has it."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            query = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')"
            return [str(name) for (name,) in connection.execute(query)]


def insert(cursor: Cursor, into: str, rows: Sequence[tuple[object, ...]], otherwise: str = "") -> int:
    """Insert rows, a few hundred a statement; gives how many went in. otherwise: an ON CONFLICT clause.

    SQLite's driver gives up the interpreter's lock once a step, and a busy main thread may keep it for milliseconds. So
    a group is a few long steps and not a thousand short ones as `executemany` makes; a server is asked as seldom.
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


def is_unreadable(problem: Exception) -> bool:
    """Whether a question failed because `said` was asked of octets that are no JSON: somebody altered them."""
    return isinstance(problem, Unreadable) or str(problem) == "user-defined function raised exception"


def _said(octets: bytes | None, member: str) -> str | None:
    """A member of a JSON object, as text; None where it says nothing."""
    value = None if octets is None else msgspec.json.decode(octets, type=dict[str, Any]).get(member)
    return None if value is None else str(value)
