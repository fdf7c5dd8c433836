"""Has the newest head of the log stamped by a third party while the log grows, and says when that is late.

One of them a bus, in a thread of `serve`; no request ever waits for it.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from connectors.transports.fetch import Fetch
from exchange.attestations import Attestations
from exchange.entry import Detail, Entry, instant
from exchange.journal import Journal
from exchange.rounds import rounds
from exchange.timestamping import Coverage, State, stamped_octets
from security.errors import Refusal
from security.timestamp import CONTENT_TYPE, Question

TICK_S: Final = 1.0
AGAIN_S: Final = 60.0  # after a failure, unless the setting asks more often anyway
MOST_BYTES: Final = 1 << 18  # of an answer: a token with a long chain is some 10 kB
FETCH_S: Final = 10.0
SKEW: Final = timedelta(minutes=5)  # between an authority's clock and ours
LEVELS: Final = {
    "fresh": logging.WARNING,
    "alarm": logging.ERROR,
    "pending": logging.ERROR,
    "refused": logging.CRITICAL,
}

log = logging.getLogger("yongtong.timestamps")


class Authorities(msgspec.Struct, frozen=True):
    """Who is asked. urls: in this order until one answers; roots: DER, what their chains end in; every: between two."""

    urls: Sequence[str]
    roots: Sequence[bytes]
    every: timedelta


class TimestampWatch:
    """Asks and warns until told to stop."""

    def __init__(
        self,
        journal: Journal,
        attestations: Attestations,
        coverage: Coverage,
        authorities: Authorities,
        fetch: Fetch,
        clock: Callable[[], datetime],
    ) -> None:
        self._journal, self._attestations, self._coverage = journal, attestations, coverage
        self._authorities, self._fetch, self._clock = authorities, fetch, clock
        self._told: State = "fresh"
        self._asked: datetime | None = None
        self._wait = timedelta(0)

    def run(self, stop: threading.Event) -> None:
        """Turn after turn until told to stop."""
        rounds(partial(self.turn, stop), stop, TICK_S, log, "timestamp")

    def turn(self, stop: threading.Event) -> None:
        """Have the newest head stamped if that is due, then say how it stands."""
        if self._is_due() and self._coverage.oldest() is not None:
            self._stamp(stop)
        self._tell()

    def _is_due(self) -> bool:
        """Also where the clock was set back, or it would be long until the next."""
        return self._asked is None or not self._asked <= self._clock() < self._asked + self._wait

    def _stamp(self, stop: threading.Event) -> None:
        checkpoint, oldest = self._journal.checkpoint(), self._coverage.oldest()
        size = int(checkpoint.split("\n", 2)[1]) if checkpoint else 0
        if size <= self._coverage.stamped():  # what came since is under no signed head yet
            return
        self._asked, self._wait = self._clock(), min(timedelta(seconds=AGAIN_S), self._authorities.every)
        for url in self._authorities.urls:
            if stop.is_set():
                return
            try:
                response, stamped_at = self._answer(url, stamped_octets(checkpoint))
            except Refusal as problem:
                state = self._coverage.state(self._clock())
                words = "timestamp.not_had url=%s code=%s detail=%s state=%s"
                log.log(LEVELS[state], words, url, problem.code, problem.detail, state)
                continue
            self._attestations.keep_timestamp(size, response, stamped_at)
            self._wait = self._authorities.every
            self._note_gap(size, oldest, stamped_at)
            return

    def _answer(self, url: str, octets: bytes) -> tuple[bytes, datetime]:
        """An authority's answer, checked, and its time. Raises Refusal `fetch.*`, `timestamp.*`; nothing is kept."""
        question = Question(octets)
        response = self._fetch(
            url, most_bytes=MOST_BYTES, seconds=FETCH_S, body=question.der(), content_type=CONTENT_TYPE
        )
        stamped_at, now = question.check(response, self._authorities.roots), self._clock()
        if abs(stamped_at - now) > SKEW:
            raise Refusal("timestamp.clock", f"{instant(stamped_at)} / {instant(now)}")
        return response, stamped_at

    def _note_gap(self, size: int, oldest: datetime | None, stamped_at: datetime) -> None:
        """Enter that a timestamp covers what came long before it. Of those in time no entry is made: it would itself
        want a timestamp, and so for ever."""
        if oldest is None or stamped_at - oldest < self._coverage.rule.alarm:
            return
        said: Detail = {"oldest_at": instant(oldest), "stamped_at": instant(stamped_at), "size": size}
        log.warning("timestamp.covered size=%d oldest=%s", size, instant(oldest))
        self._journal.note(Entry(type="timestamp", outcome="covered", detail=said))

    def _tell(self) -> None:
        """Enter each change of what holds, and say it in the log, once."""
        oldest = self._coverage.oldest()
        state = self._coverage.rule.state(oldest, self._clock())
        if state == self._told:
            return
        self._told = state
        if oldest is not None and state != "fresh":
            log.log(LEVELS[state], "timestamp.overdue state=%s oldest=%s", state, instant(oldest))
            self._journal.note(Entry(type="timestamp", outcome=state, detail={"oldest_at": instant(oldest)}))
