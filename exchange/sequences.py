"""报送序号 Which of the deliveries that senders number have not come, and since when that is known.

A sender counts its deliveries to a feed from 1. What was lost on the way, a broker's dropped message, a courier's lost
disk, leaves a number that nothing was accepted under: a gap. Others may come in any order, so a gap says nothing of the
deliveries after it, and what comes late closes it.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

Read = Callable[..., list[Any]]  # a statement and its values; gives all rows

# Numbers are unique and begin with 1, so where as many came as the highest says, none is missing.
_COUNTED: Final = (
    "SELECT sender, feed, max(sequence), count(*) FROM inbox WHERE sequence IS NOT NULL "
    "AND sender = coalesce(?, sender) AND feed = coalesce(?, feed) GROUP BY sender, feed ORDER BY sender, feed"
)
_MISSING: Final = (
    "SELECT before + 1, sequence - 1 FROM (SELECT sequence, lag(sequence, 1, 0) OVER (ORDER BY sequence) AS before "
    "FROM inbox WHERE sender = ? AND feed = ? AND sequence IS NOT NULL) numbered "
    "WHERE sequence > before + 1 ORDER BY sequence LIMIT ?"
)
_SINCE: Final = (
    "SELECT min(received_at) FROM inbox WHERE sender = ? AND feed = ? AND sequence IS NOT NULL "
    "AND sequence > ? AND sequence < ?"
)
MOST: Final = 1_000  # gaps told of a sender and feed, from the lowest number on


class Gap(msgspec.Struct, frozen=True):
    """Numbers of a sender's deliveries to a feed, first to last, that have not come.

    since: when the first delivery with a higher number came, as the inbox writes it
    """

    sender: str
    feed: str
    first: int
    last: int
    since: str

    @property
    def missing(self) -> int:
        """How many."""
        return self.last - self.first + 1


class Counted(msgspec.Struct, frozen=True):
    """How far a sender has counted its deliveries to a feed, and how many of the numbers came."""

    sender: str
    feed: str
    highest: int
    received: int


class Gaps(msgspec.Struct, frozen=True):
    """Who numbers what, and what is missing of it."""

    counted: tuple[Counted, ...]
    gaps: tuple[Gap, ...]


def gap_document(gap: Gap) -> dict[str, Any]:
    """A gap as JSON says it."""
    return {
        "bureau": gap.sender,
        "feed": gap.feed,
        "first": gap.first,
        "last": gap.last,
        "missing": gap.missing,
        "since": gap.since,
    }


def find_gaps(read: Read, sender: str | None = None, feed: str | None = None) -> Gaps:
    """What is missing of what is numbered; of one sender, of one feed, or of all."""
    counted = tuple(Counted(*row) for row in read(_COUNTED, sender, feed))
    gaps = [gap for one in counted if one.received < one.highest for gap in _missing(read, one)]
    return Gaps(counted, tuple(gaps))


def _missing(read: Read, of: Counted) -> list[Gap]:
    found, stop, since = list[Gap](), of.highest + 1, "~"
    # From the highest down: what came above a gap came above every one below it, too, so no row is asked for twice.
    for first, last in reversed(read(_MISSING, of.sender, of.feed, MOST)):
        since = min(since, read(_SINCE, of.sender, of.feed, last, stop)[0][0])
        stop = first
        found.append(Gap(of.sender, of.feed, first, last, since))
    return found[::-1]
