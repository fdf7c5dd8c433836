"""What the worker was at when it died: a delivery that ends its process again and again is held, not tried for ever."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from exchange.entry import InboxRow

MOST_DEATHS: Final = 5  # a power cut may be chance, five in a row at one delivery are not


class Attempts:
    """Deliveries that were being worked on, by inbox id, with how many processes ended meanwhile.

    path: a small file of a feed's, written before a batch and removed after it. An exception is no death: it is dealt
    with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._deaths: dict[int, int] = {}
        if path.exists():
            with suppress(msgspec.MsgspecError):  # cut short by a power cut: no more is known
                self._deaths = msgspec.json.decode(path.read_bytes(), type=dict[int, int])

    def apart(self, rows: Sequence[InboxRow]) -> Sequence[InboxRow]:
        """The first rows, and alone those at which a process ended: one of them may be why."""
        for index, row in enumerate(rows):
            if row.id in self._deaths:
                return rows[: max(index, 1)]
        return rows

    def too_many(self, row: InboxRow) -> bool:
        """Whether this delivery is not to be tried again."""
        return self._deaths.get(row.id, 0) >= MOST_DEATHS

    @contextmanager
    def at(self, rows: Sequence[InboxRow]) -> Iterator[None]:
        """While the block runs, a death counts against these rows."""
        for row in rows:
            self._deaths[row.id] = self._deaths.get(row.id, 0) + 1
        self._path.write_bytes(msgspec.json.encode(self._deaths))
        try:
            yield
        finally:
            for row in rows:
                del self._deaths[row.id]
            if self._deaths:
                self._path.write_bytes(msgspec.json.encode(self._deaths))
            else:
                self._path.unlink(missing_ok=True)
