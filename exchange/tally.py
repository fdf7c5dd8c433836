"""What the log says in numbers, counted as it grows, whichever process wrote it: act two runs in another one.

How far it has been counted lies in a small file with the counts, so that no figure is lost by a restart, nor what was
done while nobody counted. Without the file counting begins where the log then ends.
"""

import threading
from bisect import bisect_left
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.entry import instant
from exchange.journal import Journal
from exchange.small_file import write_whole

# How long after its receipt a delivery's report may be signed, seconds, as it is told.
SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
FATES: Final = ("new", "changed", "unchanged", "ended", "rejected", "ignored", "gone")
OUTCOMES: Final = ("processed", "held", "refused")
TYPES: Final = (
    "delivery",
    "refusal",
    "read",
    "processing",
    "recall",
    "spill",
    "erasure",
    "decision",
    "timestamp",
    "head",
)
# What is held or refused for these is told to the operator: code, of the entry's detail.
EVENTS: Final = ("delivery.evidence_broken", "delivery.failed", "content.classified", "content.map_too_large")
AT_ONCE: Final = 2_000  # entries
MOST: Final = 50_000  # entries counted by one call: what is behind by more comes later


class _Leaf(msgspec.Struct, gc=False):
    """What is counted of a leaf."""

    type: str
    outcome: str
    feed: str
    time: str


class Counts(msgspec.Struct):
    """size: entries counted. known: when a feed was first looked for; heard: when its last delivery came, RFC 3339.

    entries:  by type
    finished: by feed and outcome; records: by feed and fate
    events:   by code, number and time of the last entry about such a delivery
    highest:  the largest size that was ever counted: a log that is smaller has lost entries
    took:     by feed, deliveries by how long they took (`SECONDS`, and one place for longer); took_s: together, seconds
    """

    size: int = 0
    known: dict[str, str] = {}
    heard: dict[str, str] = {}
    entries: dict[str, int] = {}
    finished: dict[str, dict[str, int]] = {}
    records: dict[str, dict[str, int]] = {}
    events: dict[str, tuple[int, str]] = {}
    highest: int = 0
    took: dict[str, list[int]] = {}
    took_s: dict[str, float] = {}


_LEAF: Final = msgspec.json.Decoder(_Leaf)
_DETAIL: Final = msgspec.json.Decoder(dict[str, Any])


class Tally:
    """Counts of one log, safe for threads. path: of the small file; feeds: which there are."""

    def __init__(self, journal: Journal, path: Path, feeds: Collection[str], now: datetime) -> None:
        self._journal, self._path, self._feeds, self._lock = journal, path, frozenset(feeds), threading.Lock()
        counts: Counts | None = None
        with suppress(OSError, msgspec.MsgspecError):  # none yet, or spoilt: it is begun anew
            counts = msgspec.json.decode(path.read_bytes(), type=Counts)
        size = journal.size()
        if counts is None or counts.size > size:
            counts = Counts(size=size, highest=max(counts.highest, counts.size) if counts else size)
        self._counts = counts
        for feed in sorted(self._feeds - counts.known.keys()):
            counts.known[feed] = instant(now)
            for entry in journal.search(type="delivery", feed=feed, limit=1):
                counts.heard[feed] = entry.leaf.time

    def counted(self) -> Counts:
        """The counts up to the log's end, or nearer to it; kept, where they grew."""
        with self._lock:
            before = self._counts.size
            while self._counts.size < before + MOST and self._count():
                pass
            if self._counts.size > before or not self._path.exists():
                with suppress(OSError):  # a full disk is told by others; what is not kept is counted again
                    write_whole(self._path, msgspec.json.encode(self._counts))
            return msgspec.json.decode(msgspec.json.encode(self._counts), type=Counts)

    def _count(self) -> bool:
        """Count the next entries; false where there are none."""
        rows = self._journal.raw_entries(self._counts.size, AT_ONCE)
        if not rows:
            return False
        stop = rows[-1][0] + 1
        times = {index: self._count_entry(index, leaf, detail) for index, leaf, detail in rows}
        for index, feed, received_at in self._journal.finished_within(self._counts.size, stop):
            if feed in self._feeds:
                self._count_time(feed, received_at, times[index])
        self._counts.size, self._counts.highest = stop, max(stop, self._counts.highest)
        return True

    def _count_entry(self, index: int, octets: bytes, detail: bytes | None) -> str:
        """Gives the entry's time."""
        try:
            leaf, said = _LEAF.decode(octets), _DETAIL.decode(detail) if detail else {}
        except (msgspec.MsgspecError, UnicodeError):  # a damaged entry; `audit verify` names it
            return ""
        kind, counts = leaf.type if leaf.type in TYPES else "other", self._counts
        counts.entries[kind] = counts.entries.get(kind, 0) + 1
        if leaf.feed not in self._feeds:
            return leaf.time
        if kind == "delivery":
            counts.heard[leaf.feed] = leaf.time
        elif kind == "processing" and leaf.outcome in OUTCOMES:
            finished = counts.finished.setdefault(leaf.feed, dict.fromkeys(OUTCOMES, 0))
            finished[leaf.outcome] += 1
            self._count_finished(index, leaf, said)
        return leaf.time

    def _count_finished(self, index: int, leaf: _Leaf, detail: dict[str, Any]) -> None:
        records = self._counts.records.setdefault(leaf.feed, dict.fromkeys(FATES, 0))
        for fate in FATES:
            records[fate] += int(detail.get(fate, 0))
        if detail.get("code") in EVENTS:
            self._counts.events[str(detail["code"])] = index, leaf.time

    def _count_time(self, feed: str, received_at: str, reported_at: str) -> None:
        if not reported_at:
            return
        taken = datetime.fromisoformat(reported_at) - datetime.fromisoformat(received_at)
        seconds = max(taken.total_seconds(), 0.0)
        took = self._counts.took.setdefault(feed, [0] * (len(SECONDS) + 1))
        took[bisect_left(SECONDS, seconds)] += 1
        self._counts.took_s[feed] = self._counts.took_s.get(feed, 0.0) + seconds
