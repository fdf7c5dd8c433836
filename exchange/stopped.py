"""Feeds that an operator stopped: act two leaves them alone until they are started; on demand the door does, too.

A stop is a person's decision and stands in the log; the table only finds it. What was accepted stays accepted.
"""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import msgspec

from exchange.database import FAILURES, Cursor
from exchange.decision_documents import Officer
from exchange.journal import Entry
from exchange.registry import Registry
from security.errors import Refusal

LOOK_S: Final = 0.5
COME_AGAIN_S: Final = 300
TYPE: Final = "flow"  # of the entries


class Stop(msgspec.Struct, frozen=True):
    """One feed is stopped. entry: which says so; refuses: at the door, too."""

    feed: str
    entry: int
    refuses: bool


class Stopped:
    """Which feeds are stopped, as of half a second ago at most, in any process.

    ask: gives the rows of a question to the journal (`Journal.ask`)
    """

    def __init__(self, ask: Callable[[str], list[Any]]) -> None:
        self._ask, self._lock = ask, threading.Lock()
        self._stops: dict[str, Stop] = {}
        self._looked_s = -LOOK_S

    def now(self) -> dict[str, Stop]:
        """The stops by feed. While the database is away, what was last known."""
        with self._lock:
            if monotonic() - self._looked_s >= LOOK_S:
                try:
                    rows = self._ask("SELECT feed, entry_index, refuses FROM stopped_feeds")
                except FAILURES:
                    return self._stops
                self._stops = {feed: Stop(feed, entry, bool(refuses)) for feed, entry, refuses in rows}
                self._looked_s = monotonic()
            return self._stops

    def check_door(self, feed: str) -> None:
        """Return if the door takes deliveries of a feed. Raises Refusal `flow.feed_stopped`."""
        stop = self.now().get(feed)
        if stop is not None and stop.refuses:
            refusal = Refusal("flow.feed_stopped", feed)
            refusal.retry_after_s = COME_AGAIN_S
            raise refusal


def stop_feed(registry: Registry, feed: str, *, refuses: bool, ground: str, by: Officer) -> int:
    """Stop a feed; gives the number of the entry. Raises Refusal `flow.already_so`, `role.not_held`."""

    def also(cursor: Cursor, index: int) -> None:
        cursor.execute("DELETE FROM stopped_feeds WHERE feed = ? AND refuses <> ?", (feed, int(refuses)))
        row = (feed, index, int(refuses))
        if not cursor.execute("INSERT INTO stopped_feeds VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount:
            raise Refusal("flow.already_so", feed)

    return _decided(registry, feed, "refused" if refuses else "stopped", ground, by, also)


def start_feed(registry: Registry, feed: str, ground: str, by: Officer) -> int:
    """Let a feed go on; gives the number of the entry. Raises Refusal `flow.already_so`, `role.not_held`."""

    def also(cursor: Cursor, _: int) -> None:
        if not cursor.execute("DELETE FROM stopped_feeds WHERE feed = ?", (feed,)).rowcount:
            raise Refusal("flow.already_so", feed)

    return _decided(registry, feed, "started", ground, by, also)


def _decided(
    registry: Registry, feed: str, outcome: str, ground: str, by: Officer, also: Callable[[Cursor, int], None]
) -> int:
    actor = registry.person(by.key.public_key, "system").pseudonym
    entry = Entry(type=TYPE, outcome=outcome, actor=actor, feed=feed, detail={"ground": ground})
    return registry.journal.note(entry, also).result().index
