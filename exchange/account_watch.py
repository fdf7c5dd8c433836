"""Enters the account of each day in the log once the day is over. In a thread of `serve`; several may do so at once."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Final

from exchange.account import account, closing
from exchange.database import CONFLICTS, Cursor
from exchange.entry import CITY_TIME, Entry, day_of
from exchange.journal import Journal, Sequenced
from exchange.rounds import rounds
from exchange.store.store import Store

TICK_S: Final = 30.0
# After midnight: a node whose clock is a little behind may enter something for yesterday yet.
SETTLED: Final = timedelta(minutes=10)
ACCOUNT: Final = "account"  # the type of these entries

log = logging.getLogger("yongtong.account")


class AccountWatch:
    """Closes day after day until told to stop. clock: now, aware"""

    def __init__(self, journal: Journal, store: Store, clock: Callable[[], datetime]) -> None:
        self._journal, self._store, self._clock = journal, store, clock

    def run(self, stop: threading.Event) -> None:
        """Turn after turn until told to stop."""
        rounds(self.turn, stop, TICK_S, log, "account")

    def turn(self) -> list[str]:
        """Enter the days that are over and not entered yet, oldest first; gives those that were entered now."""
        return [day for day in self._due() if self._enter(day) is not None]

    def _due(self) -> Iterator[str]:
        """From the day after the last that is entered; in a log that has none, yesterday alone."""
        yesterday = (self._clock() - SETTLED).astimezone(CITY_TIME).date() - timedelta(days=1)
        last, first = self._journal.last_account(), self._journal.entry(0)
        if first is None or day_of(first.leaf.time) > yesterday.isoformat():
            return
        day = date.fromisoformat(last) + timedelta(days=1) if last else yesterday
        while day <= yesterday:
            yield day.isoformat()
            day += timedelta(days=1)

    def _enter(self, day: str) -> Sequenced | None:
        """The entry of a day's account; None where another process was first. Raises what the journal raises."""
        rows = account(self._journal, self._store, day)
        unbalanced = [row for row in rows if not row.balanced]
        detail = {**closing(self._journal, day, self._journal.size()), "unbalanced": len(unbalanced)}
        for row in unbalanced:
            log.critical("account.unbalanced day=%s bureau=%s feed=%s", day, row.bureau, row.feed)
        entry = Entry(type=ACCOUNT, outcome="unbalanced" if unbalanced else "balanced", detail=detail)

        def also(cursor: Cursor, index: int) -> None:
            cursor.execute("INSERT INTO accounts VALUES (?, ?)", (day, index))  # a second one of a day has no place

        try:
            return self._journal.note(entry, also).result()
        except CONFLICTS:
            return None
