"""Whose entries are which: what each bureau may look through to find misuse of its name or keys.

Read from the log itself and not from its index: a row taken out of the index would hide a stolen key's work from the
bureau it was stolen from, and nobody else looks for it. One reading does for all bureaus, and is remembered.

Public face: `Owners`.
"""

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from exchange.entry import read_back
from security.errors import AuditBroken

AT_ONCE: Final = 512  # entries; other readers of the file get their turn between, and a processor's cache holds them

Read = Callable[..., list[Any]]  # query and values -> rows


class _Named(msgspec.Struct, frozen=True, gc=False):
    """Who stands in a leaf."""

    sender: str
    signer: str
    carrier: str

    def is_of(self, bureau: str, certificates: Collection[str]) -> bool:
        """Whether it is in a bureau's verified name: under it, signed by one of its certificates, or come over one of
        these from nobody that was verified."""
        return (
            self.sender == bureau or self.signer in certificates or (not self.sender and self.carrier in certificates)
        )


_NAMED: Final = msgspec.json.Decoder(_Named)


class Owners:
    """The numbers of all entries by who stands in them, as far as the log was read: 4 octets an entry.

    read: asks the journal's file
    """

    def __init__(self, read: Read) -> None:
        self._read, self._lock, self._known = read, threading.Lock(), 0
        self._numbers: defaultdict[_Named, array[int]] = defaultdict(partial(array, "I"))

    def page(
        self, bureau: str, certificates: Collection[str], also: Sequence[int], after: int, limit: int, size: int
    ) -> tuple[list[int], int]:
        """Numbers of a bureau's entries among the first `size`: at most `limit` after entry `after`, in order, and how
        many there are in all.

        certificates: SHA-256 of its certificates, hex; also: further entries that are its own

        Raises AuditBroken where entries of the log are missing or cannot be read.
        """
        with self._lock:
            self._read_until(size)
            theirs = [of_them for named, of_them in self._numbers.items() if named.is_of(bureau, certificates)]
            # Each entry stands in one list: all that a page can hold is in the first `limit` of each.
            further = {index for index in also if index < size and not any(_holds(one, index) for one in theirs)}
            page = [index for index in further if index > after]
            count = len(further)
            for one in theirs:
                first, stop = bisect_right(one, after), bisect_left(one, size)
                page += one[first : min(first + limit, stop)]
                count += stop
        return sorted(page)[:limit], count

    def _read_until(self, size: int) -> None:
        query = "SELECT idx, leaf FROM entries WHERE idx >= ? AND idx < ?"
        while self._known < size:
            stop = min(self._known + AT_ONCE, size)
            rows = self._read(query, self._known, stop)
            if len(rows) < stop - self._known:
                raise AuditBroken(f"entries from {self._known} up to {stop} of the log are missing")
            for index, named in [(index, read_back(_NAMED, index, leaf)) for index, leaf in rows]:
                self._numbers[named].append(index)
            self._known = stop


def _holds(numbers: "array[int]", index: int) -> bool:
    place = bisect_left(numbers, index)
    return place < len(numbers) and numbers[place] == index
