"""What one feed may send now: so many deliveries a minute, so many octets a day, so many that wait for act two.

A delivery that is known already asks for no room: its sender has its receipt again whatever the quota. Deliveries a
minute are counted in this process; octets and what waits are asked of the inbox, which all processes share, once a
second at most.
"""

import threading
from datetime import datetime
from time import monotonic
from typing import Final, Protocol

import msgspec

from exchange.entry import CITY_TIME, begin_of
from exchange.journal import Journal
from mappings.feed import Feed
from security.errors import Refusal

LOOK_S: Final = 1.0
SHORTEST_S: Final = 1
FULL_S: Final = 10  # a backlog may be gone by then
REFUSALS_A_SECOND: Final = 60  # of one feed; who knocks on regardless is answered slowly
LONGEST_HOLD_S: Final = 5.0
DAY_S: Final = 86_400


class FeedLimits(Protocol):
    """What the settings say of every feed; 0 is no limit."""

    @property
    def feed_deliveries_a_minute(self) -> int:
        """Deliveries."""

    @property
    def feed_bytes_a_day(self) -> int:
        """Octets of content."""

    @property
    def feed_most_waiting(self) -> int:
        """Deliveries that act two has not done."""


class _Count(msgspec.Struct):
    """What is known of one feed. left: of a minute's deliveries, as of filled_s; hold_until_s: when the next refusal is
    answered."""

    left: float = -1.0
    filled_s: float = 0.0
    looked_s: float = -LOOK_S
    waiting: int = 0
    octets: int = 0
    hold_until_s: float = 0.0


class Gate:
    """Counts what comes, and says when there is no room. Of one process; called in any of its threads."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._days = _Days()
        self._lock = threading.Lock()

    def admit(self, feed: Feed, limits: FeedLimits, journal: Journal, now: datetime) -> None:
        """Count a new delivery in. Raises Refusal `flow.too_many`, which says when to come again."""
        with self._lock:
            count = self._counts.setdefault(feed.id, _Count())
            self._check_shared(feed, limits, journal, now, count)
            self._fill(feed, limits, count)
            count.left -= 1
            count.waiting += 1  # until the next look

    def full(self, feed: Feed, limits: FeedLimits, journal: Journal, now: datetime) -> int:
        """For how many seconds there is no room; 0 where there is. Nothing is counted."""
        with self._lock:
            count = self._counts.setdefault(feed.id, _Count())
            try:
                self._check_shared(feed, limits, journal, now, count)
                self._fill(feed, limits, count)
            except Refusal as refusal:
                return refusal.retry_after_s
        return 0

    def hold_s(self, feed: str) -> float:
        """How long the answer to a refusal of this feed is held back: some sixty a second are answered."""
        with self._lock:
            count, now_s = self._counts.setdefault(feed, _Count()), monotonic()
            count.hold_until_s = min(max(count.hold_until_s, now_s) + 1 / REFUSALS_A_SECOND, now_s + LONGEST_HOLD_S)
            return count.hold_until_s - now_s

    def _fill(self, feed: Feed, limits: FeedLimits, count: _Count) -> None:
        """Let in what time has brought. Raises Refusal where there is not one whole delivery's worth."""
        a_minute = narrowed(feed.most_a_minute, limits.feed_deliveries_a_minute)
        if not a_minute:
            return
        now_s = monotonic()
        count.left = (
            a_minute if count.left < 0 else min(a_minute, count.left + (now_s - count.filled_s) * a_minute / 60)
        )
        count.filled_s = now_s
        if count.left < 1:
            raise _too_many(f"{feed.id} deliveries_a_minute {a_minute}", (1 - count.left) * 60 / a_minute)

    def _check_shared(self, feed: Feed, limits: FeedLimits, journal: Journal, now: datetime, count: _Count) -> None:
        """What all processes share. Raises Refusal."""
        most_waiting = narrowed(feed.most_waiting, limits.feed_most_waiting)
        a_day = narrowed(feed.most_bytes_a_day, limits.feed_bytes_a_day)
        if monotonic() - count.looked_s >= LOOK_S:
            count.looked_s = monotonic()
            count.waiting = journal.count_waiting(feed.id, most_waiting) if most_waiting else 0
            count.octets = self._days.octets(feed.id, journal, now) if a_day else 0
        if most_waiting and count.waiting >= most_waiting:
            raise _too_many(f"{feed.id} waiting {most_waiting}", FULL_S)
        if a_day and count.octets >= a_day:
            raise _too_many(f"{feed.id} bytes_a_day {a_day}", _left_of_day_s(now))


class _Days:
    """Octets of content that came today, by feed, read on from where the inbox was last looked at."""

    def __init__(self) -> None:
        self._day, self._last_id = "", 0
        self._octets: dict[str, int] = {}

    def octets(self, feed: str, journal: Journal, now: datetime) -> int:
        day = now.astimezone(CITY_TIME).date().isoformat()
        begins = begin_of(day)
        if day != self._day:
            self._day, self._octets = day, {}
            self._last_id = journal.first_received_from(begins) - 1
        for id, of, length, received_at in journal.lengths_after(self._last_id):
            self._last_id = id
            if received_at >= begins:
                self._octets[of] = self._octets.get(of, 0) + length
        return self._octets.get(feed, 0)


def narrowed(of_feed: int, of_all: int) -> int:
    """The smaller of two limits of which 0 is none."""
    return min(of_feed, of_all) if of_feed and of_all else of_feed or of_all


def _too_many(detail: str, seconds: float) -> Refusal:
    refusal = Refusal("flow.too_many", detail)
    refusal.retry_after_s = max(SHORTEST_S, min(round(seconds + 0.5), DAY_S))
    return refusal


def _left_of_day_s(now: datetime) -> float:
    begun = begin_of(now.astimezone(CITY_TIME).date().isoformat())
    return DAY_S - (now - datetime.fromisoformat(begun)).total_seconds()
