"""The state root: one digest over all that a bus knows, the same whichever engine keeps it.

    table   SHA-256 over its rows by primary key, 10,000 at a time as MessagePack, columns by name, texts as octets
    root    SHA-256 over the lines `history.table rows digest column,column…`, sorted, after a line with the log's root

It is made from a history's SQLite file, which both engines write (`Database.export`).
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from exchange.database import History
from security import merkle

ROWS_AT_ONCE: Final = 10_000
_PACK: Final = msgspec.msgpack.Encoder()
_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
_NOT_STATE: Final = frozenset({"alembic_version", "sqlite_sequence"})


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table as it was. history: `journal` or `store`; digest: hex."""

    history: History
    name: str
    columns: list[str]
    rows: int
    digest: str


def tables_of(file: Path, history: History, as_of: Sequence[Table] | None = None) -> list[Table]:
    """The tables of a history's file, by name.

    as_of: of an older version perhaps: only its tables and columns are looked at; one that is not there has no rows

    Raises sqlite3.Error.
    """
    with closing(_opened(file)) as connection:
        there = {str(name, "utf-8") for (name,) in connection.execute(_TABLES)} - _NOT_STATE
        if as_of is None:
            return [_table(connection, history, name, None) for name in sorted(there)]
        wanted = [(one.name, one.columns) for one in as_of if one.history == history]
        return [
            _table(connection, history, name, columns) if name in there else Table(history, name, columns, 0, "")
            for name, columns in wanted
        ]


def state_root(tables: Iterable[Table], log_root: bytes) -> str:
    """The state root, hex. log_root: over all entries."""
    lines = sorted(f"{t.history}.{t.name} {t.rows} {t.digest} {','.join(t.columns)}\n" for t in tables)
    return hashlib.sha256(f"log {log_root.hex()}\n{''.join(lines)}".encode()).hexdigest()


def log_root(journal: Path) -> tuple[int, bytes]:
    """How many entries a journal's file has, and the root of its tree, as its nodes have it. Raises sqlite3.Error."""
    with closing(_opened(journal)) as connection:

        def node(level: int, index: int) -> bytes:
            query = "SELECT hash FROM nodes WHERE level = ? AND idx = ?"
            found = connection.execute(query, (level, index)).fetchone()
            if found is None:
                raise sqlite3.DatabaseError(f"node {level}, {index} of the log is missing")
            return bytes(found[0])

        (size,) = connection.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries").fetchone()
        return size, merkle.root_at(node, size)


def _opened(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)
    connection.text_factory = bytes
    return connection


def _table(connection: sqlite3.Connection, history: History, name: str, columns: list[str] | None) -> Table:
    described = [(row[1].decode(), row[5]) for row in connection.execute(f"PRAGMA table_info({_quoted(name)})")]
    key = [column for column, place in sorted(described, key=lambda one: one[1]) if place]
    columns = sorted(column for column, _ in described) if columns is None else columns
    named, order = ", ".join(map(_quoted, columns)), ", ".join(map(_quoted, key or columns))
    digest, count = hashlib.sha256(), 0
    cursor = connection.execute(f"SELECT {named} FROM {_quoted(name)} ORDER BY {order}")
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        digest.update(_PACK.encode(rows))
        count += len(rows)
    return Table(history, name, columns, count, digest.hexdigest())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
