"""What the store's two engines do each in its own way; all other SQL is written once, for both.

A step of a transaction that touches many rows puts them into a table of its own first (`Writer.stage`) and then says
one statement over it: a server is told a million rows by COPY, a file by inserts of many rows each.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import polars as pl

from exchange.database import Connection, Cursor, Database

MOST_ROWS: Final = 10_000  # changed by a batch in its neighbourhood; one that changes more takes the whole city


class Writer(Protocol):
    """One transaction of the store, by which everything in it is read and written."""

    def execute(self, query: str, values: Any = ..., /) -> Cursor:
        """Do one statement."""

    def keys(self, table: str, count: int) -> int:
        """The first of so many keys of a table, one after the other. Rows are never deleted: none is used twice."""

    def insert(self, table: str, columns: Sequence[str], rows: pl.DataFrame) -> None:
        """Insert these columns of the rows."""

    def stage(self, name: str, rows: pl.DataFrame) -> None:
        """Put rows into a table of this name that the transaction alone sees and that ends with it."""

    def hold(self, components: pl.Series) -> None:
        """Let nobody else change these components, or what is claimed of them, before this transaction ends."""


class Engine(Protocol):
    """A database that a store lies in, and how those who work at it take turns."""

    @property
    def database(self) -> Database:
        """The same as backups and the doctor know it."""

    def connect(self) -> Connection:
        """A new connection, with the functions that the store's statements use."""

    def transaction(self, connection: Any) -> AbstractContextManager[Writer]:
        """One transaction: kept as a whole or not at all."""

    def turn(self, connection: Any, feed: str | None) -> AbstractContextManager[bool]:
        """As `Store.turn` has it."""

    def neighbourhood(self, connection: Any, tiles: Sequence[int] | None) -> AbstractContextManager[None]:
        """Alone, among those who ask for one, in these tiles (`places.tiles`); None: everywhere."""
