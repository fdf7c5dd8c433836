"""The store on SQLite: components, claims and what they were. Only act two writes it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from exchange.store.frames import Batch, Ledger, Seen, Stored, StoredDelivery


class Store:
    """`store.sqlite` in a folder, brought to today's schema when opened. Threads share it; processes each open it."""

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def seen(self, feed: str, source_keys: Sequence[str] | None = None) -> Seen:
        """What the store knows of a feed: of all its keys (for a snapshot), or of those given (for changes)."""
        raise NotImplementedError

    def near(self, feed: str, versions: pl.DataFrame) -> pl.DataFrame:
        """NEAR: components around the new ones among `versions`, of their classes, not yet claimed by `feed`."""
        raise NotImplementedError

    def commit(self, batch: Batch) -> Stored:
        """Write a batch in one transaction. All of it stored before: nothing is written, the earlier outcome returns.

        Raises ValueError when only some of its deliveries are stored (ask `stored` first), or when it is held.
        """
        raise NotImplementedError

    def stored(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], StoredDelivery]:
        """Those of (sender, message id) that the store holds."""
        raise NotImplementedError

    def outcomes(self, sender: str, message_id: str) -> pl.DataFrame | None:
        """OUTCOMES of a stored delivery (column `delivery` is 0), None when it is not stored."""
        raise NotImplementedError

    def ledger(self) -> Ledger:
        """The store in numbers, as of now."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the files back."""
        raise NotImplementedError
