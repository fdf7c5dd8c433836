"""What two persons decided to erase, told from the log's own entries: against it `audit verify` holds what is gone.

Three things bear an erasure out, and each is looked at: a purge that two persons in office signed (`Standing`, from the
founding that the anchors name), the entry that says what was erased by it, and that the purge covers that very thing.
Without a founding in the anchors nobody is in office, and nothing is borne out.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from exchange.decision_documents import ErasureBody
from exchange.decisions import ENTRY, Decided, Standing
from exchange.entry import ERASURE, RECALL, Leaf, begin_of
from security.anchors import Anchors

_AFTER_DELIVERY = ("processing", RECALL, "spill")  # entries about a delivery, besides the one that accepted it


class Purge(msgspec.Struct, frozen=True):
    """A decision to erase. entry: that approved it."""

    entry: int
    body: ErasureBody


class Erasing(msgspec.Struct, frozen=True):
    """An entry that says what was erased. reason: its outcome; ranges: first and last of each run, ascending."""

    entry: int
    of: str
    reason: str
    ranges: tuple[tuple[int, int], ...]

    def names(self, index: int) -> bool:
        """Whether it says that this entry's detail was erased."""
        place = bisect_right(self.ranges, (index, index)) - 1
        return any(first <= index <= last for first, last in self.ranges[max(place, 0) : place + 2])


class Delivered(msgspec.Struct, frozen=True):
    """A delivery of which something was erased, as its receipt says under the leaf's own commitment.

    entry: that accepted it; inbox: its row; received_at: RFC 3339
    """

    entry: int
    inbox: int
    sender: str
    message_id: str
    feed: str
    received_at: str


def purges_of(decisions: Iterable[Decided], anchors: Anchors) -> dict[str, Purge]:
    """The decisions to erase that two persons in office signed, by id, carried out or not."""
    standing, found = Standing(anchors.origin, anchors.founding), dict[str, Purge]()
    for decided in decisions:
        standing.take(decided)
        if decided.outcome != "approved":
            continue
        for id, (kind, body) in standing.deliveries.items():
            if kind == "purge" and isinstance(body, ErasureBody):
                found.setdefault(id, Purge(decided.index, body))
    return found


def erasing_of(entry: int, leaf: Leaf, detail: Mapping[str, Any], size: int) -> Erasing | None:
    """What an entry says was erased, or None where it says nothing of the kind. size: of the log, beyond which no
    number lies."""
    ranges = _ranges(detail.get("entries"), size)
    if leaf.type != ERASURE or ranges is None:
        return None
    return Erasing(entry, str(detail.get("of", "")), leaf.outcome, ranges)


class Borne:
    """What is borne out.

    deliveries: of which something was erased, by sender and message id
    reported:   the inbox row of each erased report, by its entry
    """

    def __init__(
        self,
        purges: Mapping[str, Purge],
        erasing: Mapping[int, Erasing],
        deliveries: Iterable[Delivered],
        reported: Mapping[int, int],
    ) -> None:
        self._purges, self._erasing, self._reported = purges, erasing, reported
        self._deliveries = {(one.sender, one.message_id): one for one in deliveries}
        self._told = {one.of for one in erasing.values() if self._purge(one) is not None}

    def detail(self, index: int, leaf: Leaf, by: Any, decision: Any) -> bool:
        """Whether the detail of an entry was to be erased, and entry `by` says so."""
        said = self._erasing.get(by)
        purge = self._purge(said) if said is not None and said.of == decision and said.names(index) else None
        return purge is not None and self._covers(purge.body, index, leaf)

    def octets(self, delivered: Delivered, by: Any, decision: Any) -> bool:
        """Whether the original bytes of a delivery were to be erased, and entry `by` tells of that decision."""
        said = self._erasing.get(by)
        purge = self._purge(said) if said is not None and said.of == decision else None
        return purge is not None and _covers_octets(purge.body, delivered)

    def location(self, delivered: Delivered, decision: str) -> bool:
        """Whether the decision that stands where the bytes lay covers them, and some entry tells of it."""
        return decision in self._told and _covers_octets(self._purges[decision].body, delivered)

    def _purge(self, said: Erasing) -> Purge | None:
        """The decision that an entry tells of, if it came before it and has its ground."""
        found = self._purges.get(said.of)
        return found if found and found.entry < said.entry and found.body.reason == said.reason else None

    def _covers(self, body: ErasureBody, index: int, leaf: Leaf) -> bool:
        if leaf.type in (ENTRY, ERASURE):
            return False
        if body.reason == "retention":
            return leaf.time < begin_of(body.details_before)
        one = self._deliveries.get((body.sender, body.message_id))
        if one is None or index == one.entry:
            return one is not None
        about = leaf.type in _AFTER_DELIVERY and leaf.sender == one.sender and leaf.feed in ("", one.feed)
        return about and index > one.entry and self._reported.get(index, one.inbox) == one.inbox


def _covers_octets(body: ErasureBody, delivered: Delivered) -> bool:
    if body.reason == "retention":
        return delivered.received_at < begin_of(body.evidence_before)
    return (body.sender, body.message_id) == (delivered.sender, delivered.message_id)


def _ranges(text: Any, size: int) -> tuple[tuple[int, int], ...] | None:
    """Numbers written as `3-9 12`, in ascending order and inside the log; None where they are not."""
    try:
        ends = [[int(end) for end in piece.split("-")] for piece in text.split()]
    except (AttributeError, ValueError):
        return None
    ranges = tuple((piece[0], piece[-1]) for piece in ends)
    order = [-1, *(end for first, last in ranges for end in (first, last + 1)), size + 1]
    rising = all(before < after for before, after in pairwise(order))
    return ranges if rising and all(len(piece) <= 2 for piece in ends) else None
