"""A database of the bus as a schema on a PostgreSQL server: what `exchange.database` describes, for more than one
machine.

Who writes the journal holds a row of its table `turns` for the length of a transaction: that is the lease of the one
sequencer, and the number in it the fencing token. The server takes it back from a process that says nothing for three
seconds, stopped, cut off or half dead, and with it everything that was not yet committed.
"""

import os
import re
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import psycopg
import sqlalchemy as sa
from psycopg import pq
from psycopg.errors import CharacterNotInRepertoire, InvalidTextRepresentation
from psycopg.raw_cursor import RawCursor

from exchange.database import Conflict, Failed, History, SqliteFile, Unreadable
from exchange.migrate import upgrade
from security.errors import Misconfigured

ROWS_READ: Final = 2_000
SILENT_S: Final = 3  # after which a turn goes to the next process
WAIT_S: Final = 30
# Seconds that a process may be silent within a transaction, and wait for another's lock. Whoever writes the journal
# holds up all others; at the store a million rows are made ready within a transaction, and waited for.
PATIENCE_S: Final = {"journal": (SILENT_S, WAIT_S), "store": (60, 600)}
IDLE_S: Final = 900  # outside of a transaction: a frozen worker loses its feed; any other connects anew
STARTING: Final = 0x594F4E47  # the lock under which a schema is made or brought up
_OPTIONS: Final = (
    f"-c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count={SILENT_S} "
    f"-c tcp_user_timeout={SILENT_S * 1000} "
    "-c synchronous_commit=on -c timezone=UTC "
    "-c jit=off"  # which takes a tenth of a second for a statement of a millisecond
)
# What numbers the rows of a table, where they are numbered by the server.
_SEQUENCES: Final = (
    "SELECT table_name, column_name, pg_get_serial_sequence(table_name, column_name) FROM information_schema.columns "
    "WHERE table_schema = ? AND pg_get_serial_sequence(table_name, column_name) IS NOT NULL"
)
_MARK: Final = re.compile(r"'[^']*'|\?(\d*)|(?<!:):([a-z_]+)")


class PostgresSchema:
    """`journal` or `store` of one bus, a schema of that name on a server.

    url: `postgresql://…`, as libpq takes it; it holds no password
    """

    def __init__(self, url: str, history: History) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres") or parts.password:
            raise Misconfigured(
                "config.setting",
                f"{history}: write postgresql://user@host/database without a password; libpq reads it from the file "
                "that PGPASSFILE names 口令放在 PGPASSFILE 所指的文件里",
            )
        self._url, self._history = url, history

    def prepare(self) -> None:
        """Bring the schema to today's tables, making it if need be; who starts at the same moment waits."""
        engine = sa.create_engine("postgresql+psycopg://", creator=lambda: _dial(self._url, self._history))
        try:
            with engine.connect() as lock:
                lock.exec_driver_sql(f"SELECT pg_advisory_lock({STARTING})")
                # The role of a schema that its administrator made need not be let make any.
                if lock.exec_driver_sql(f"SELECT to_regnamespace('{self._history}')").scalar() is None:
                    lock.exec_driver_sql(f"CREATE SCHEMA {self._history}")
                lock.commit()
                upgrade(engine, self._history)
                lock.exec_driver_sql(f"SELECT pg_advisory_unlock({STARTING})")
        except (psycopg.Error, sa.exc.DBAPIError) as problem:
            raise Failed(f"{self._history} on {urlsplit(self._url).hostname or 'the server'}: {problem}") from problem
        finally:
            engine.dispose()

    def connect(self) -> "PostgresConnection":
        """A new connection."""
        return PostgresConnection(self._url, self._history)

    @contextmanager
    def transaction(self, connection: "PostgresConnection") -> Iterator["PostgresCursor"]:
        """As `Database` has it."""
        with connection.transaction() as cursor:
            if self._history == "journal":  # at the store several write, and hold what each of them must
                cursor.execute("UPDATE turns SET number = number + 1, holder = ?", (_me(),))
            yield cursor

    def scrub(self) -> None:
        """Every table is written anew. What the server's own write-ahead log and its archive still hold is the
        database administrator's to let expire."""
        with closing(self.connect()) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = ?", (self._history,))
            for (table,) in tables.fetchall():
                connection.execute(f'VACUUM (FULL) "{table}"')

    def export(self, folder: Path) -> Path:
        """As `Database` has it."""
        target = SqliteFile(folder, self._history)
        target.prepare()
        with closing(self.connect()) as ours, closing(target.connect()) as copy, ours.snapshot():
            copy.execute("BEGIN")
            for table, columns in _tables(copy):
                copy.execute(f"DELETE FROM {table}")
                marks, names = ", ".join("?" * len(columns)), ", ".join(columns)
                copy.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", ours.rows(table, names))
            copy.execute("COMMIT")
        return target.path

    def load(self, file: Path) -> None:
        """As `Database` has it."""
        source = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        with closing(source), closing(self.connect()) as ours, ours.transaction() as cursor:
            for table, columns in _tables(source):
                names = ", ".join(columns)
                cursor.execute(f"DELETE FROM {table}")
                with ours.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                    for row in source.execute(f"SELECT {names} FROM {table}"):
                        copy.write_row(row)
            for table, column, sequence in cursor.execute(_SEQUENCES, (self._history,)).fetchall():
                cursor.execute(f"SELECT setval('{sequence}', max({column})) FROM {table}")

    @contextmanager
    def duty(self, task: str) -> Iterator[bool]:
        """As `Database` has it. A process that the server loses sight of loses its duties; for a moment two may do one,
        so each is a task that may be done twice."""
        with closing(self.connect()) as connection:
            query = "SELECT pg_try_advisory_lock(hashtext(current_schema()), hashtext(?))"
            yield bool(connection.execute(query, (task,)).fetchone()[0])

    @property
    def shared(self) -> bool:
        """As `Database` has it."""
        return True

    def exists(self) -> bool:
        """Whether the schema is there."""
        with closing(self.connect()) as connection:
            query = "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'alembic_version'"
            return connection.execute(query, (self._history,)).fetchone() is not None

    def discard(self) -> None:
        """As `Database` has it."""
        with closing(self.connect()) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {self._history} CASCADE")

    def meddling(self) -> list[str]:
        """Triggers, rules and views in it, of which it has none of its own."""
        with closing(self.connect()) as connection:
            query = (
                "SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE c.relnamespace = "
                "to_regnamespace(?) AND NOT tgisinternal UNION SELECT viewname FROM pg_views WHERE schemaname = ? "
                "UNION SELECT rulename FROM pg_rules WHERE schemaname = ?"
            )
            found = connection.execute(query, (self._history,) * 3)
            return [str(name) for (name,) in found]


def _tables(file: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    """The tables of a file, with their columns' names; they are the same on both engines."""
    found = file.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('alembic_version', 'sqlite_sequence') "
        "ORDER BY name"
    ).fetchall()
    return [(name, [row[1] for row in file.execute(f"PRAGMA table_info({name})")]) for (name,) in found]


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _dial(url: str, schema: History) -> psycopg.Connection[Any]:
    silent_s, wait_s = PATIENCE_S[schema]
    patience = f"-c idle_in_transaction_session_timeout={silent_s}s -c lock_timeout={wait_s}s"
    patience += f" -c idle_session_timeout={IDLE_S}s" if schema == "store" else ""
    options = f"{_OPTIONS} {patience} -c search_path={schema},public"
    return psycopg.connect(url, options=options, connect_timeout=WAIT_S)


class PostgresConnection:
    """A connection as SQLite's is used. One that was lost is made again at the next statement outside a transaction.

    session: its number, one more each time it is made again; what a session held, as locks, went with it
    """

    def __init__(self, url: str, schema: History) -> None:
        self._url, self._schema, self._within = url, schema, False
        self.session = 0
        self._connection = self._made()

    def execute(self, query: str, values: Any = ()) -> "PostgresCursor":
        """Do one statement."""
        return self.cursor().execute(query, values)

    def executemany(self, query: str, values: Iterable[Any]) -> "PostgresCursor":
        """Do one statement for each of many rows of values."""
        return self.cursor().executemany(query, values)

    def cursor(self) -> "PostgresCursor":
        """A cursor of its own."""
        if not self._within and self._lost():
            self._connection.close()
            self._connection = self._made()
        try:
            return PostgresCursor(self._connection.cursor())
        except psycopg.Error as problem:  # it was lost within a transaction
            raise _ours(problem) from problem

    @contextmanager
    def transaction(self) -> Iterator["PostgresCursor"]:
        """A transaction: kept as a whole or not at all. Raises Failed where the server took the turn back."""
        cursor = self.cursor()
        cursor.execute("BEGIN")
        self._within = True
        try:
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            if not self._lost():
                cursor.execute("ROLLBACK")
            raise
        finally:
            self._within = False

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read meanwhile is as of one moment, however long it takes."""
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._within = True
        try:
            yield
        finally:
            self._within = False
            if not self._lost():
                self.execute("ROLLBACK")

    def rows(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """All rows of a table, within a snapshot, a few thousand in memory at a time."""
        with self._connection.cursor("rows", scrollable=False) as cursor:
            cursor.itersize = ROWS_READ
            cursor.execute(f"SELECT {columns} FROM {table}".encode())
            yield from cursor

    @contextmanager
    def copy(self, statement: str) -> Iterator[psycopg.Copy]:
        """Rows into a table by `COPY … FROM STDIN`."""
        try:
            with self._connection.cursor().copy(statement.encode()) as copy:
                yield copy
        except psycopg.Error as problem:
            raise _ours(problem) from problem

    def close(self) -> None:
        """Give it back."""
        self._connection.close()

    def _made(self) -> psycopg.Connection[Any]:
        try:
            connection = _dial(self._url, self._schema)
            connection.autocommit, connection.cursor_factory = True, RawCursor
            self.session += 1
            return connection
        except psycopg.Error as problem:
            raise Failed(str(problem)) from problem

    def _lost(self) -> bool:
        """Whether the server is gone, as far as we were told: it says so, where it ends a session by itself."""
        if self._connection.closed:
            return True
        try:
            for _ in range(2):  # the first may read a server's last words, the second that nothing comes after them
                self._connection.pgconn.consume_input()
        except psycopg.Error:
            return True
        return self._connection.pgconn.status != pq.ConnStatus.OK


class PostgresCursor:
    """A cursor that speaks the marks and raises the errors of `exchange.database`."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    def execute(self, query: str, values: Any = ()) -> Self:
        """Do one statement."""
        text, order = _numbered(query)
        try:
            self._cursor.execute(text.encode(), _ordered(values, order))
        except psycopg.Error as problem:
            raise _ours(problem) from problem
        return self

    def executemany(self, query: str, values: Iterable[Any]) -> Self:
        """Do one statement for each of many rows of values."""
        text, order = _numbered(query)
        try:
            self._cursor.executemany(text.encode(), [_ordered(row, order) for row in values])
        except psycopg.Error as problem:
            raise _ours(problem) from problem
        return self

    def fetchone(self) -> Any:
        """The next row, None after the last."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


def _ours(problem: psycopg.Error) -> Failed:
    if isinstance(problem, psycopg.IntegrityError):
        return Conflict(str(problem))
    altered = isinstance(problem, InvalidTextRepresentation | CharacterNotInRepertoire)
    return (Unreadable if altered else Failed)(str(problem))


@lru_cache(maxsize=2_000)
def _numbered(query: str) -> tuple[str, tuple[str, ...]]:
    """The statement with `$1`, `$2` …, and the names of its values in that order; none where they had no names."""
    names: list[str] = []
    count = 0

    def number(found: re.Match[str]) -> str:
        nonlocal count
        if found[0].startswith("'"):
            return found[0]
        if found[2]:
            if found[2] not in names:
                names.append(found[2])
            return f"${names.index(found[2]) + 1}"
        count += 1
        return f"${found[1] or count}"

    return _MARK.sub(number, query), tuple(names)


def _ordered(values: Sequence[object] | Mapping[str, object], order: tuple[str, ...]) -> Sequence[object]:
    return [values[name] for name in order] if isinstance(values, Mapping) else values
