"""The doctor's rounds: looks at a bus that runs, turn after turn, and has told whom it concerns when something ails it.

One of them a state folder, in a thread of `serve`; no door ever waits for it, and it waits for nobody longer than a
sending may last. What is bad in an examination is an alarm, and there is no second list of what may be wrong.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Final

from exchange.alarm_ways import Way, problem_of
from exchange.alarms import Alarm, Book, Notice, Severity, Span, advance, due, keep_book, note_try, read_book
from exchange.bus import Bus
from exchange.clock_watch import ClockWatch
from exchange.doctor.check import Check, Examined, Seen
from exchange.doctor.examine import CHECKS, look
from exchange.rounds import rounds
from exchange.settings import Settings
from exchange.tally import Tally
from security.errors import Refusal

TURN_S: Final = 15.0
BEGIN_S: Final = 5.0  # after the start, until anything is looked at: the doors come first
FIRST_S: Final = 60.0  # until what takes time is
RARELY_S: Final = 3_600.0
# What costs little is looked at every turn or every few minutes, all else once an hour.
OFTEN_S: Final[Mapping[str, float]] = {
    **dict.fromkeys(("place.disk", "place.clock", "clock.agrees", "log.whole", "inbox.backlog"), 0.0),
    **dict.fromkeys(("deliveries.sound", "feeds.heard", "timestamps.covered", "alarms.ways", "packages.folder"), 60.0),
    **dict.fromkeys(
        ("mqtt.broker", "queue.broker", "revocation.known", "days.own", "days.enrolled", "evidence.place"), 300.0
    ),
}
CRITICAL: Final = frozenset(
    (
        *("place.disk", "journal.opens", "journal.whole", "registry.reads", "log.whole", "log.broken"),
        *("keys.evidence", "keys.anchors"),
        "evidence.place",
        *("decisions.hold", "decisions.triggers", "decisions.found", "delivery.evidence_broken"),
        *("content.classified", "content.map_too_large"),
    )
)
WARNING: Final = frozenset(
    (
        "map.held",
        "feeds.heard",
        "feeds.released",
        "packages.folder",
        "sequence.gaps",
        "journal.index",
        "certificates.enrolled",
        "alarms.ways",
    )
)
LEVELS: Final[Mapping[Severity, int]] = {
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

LOT: Final = random.SystemRandom().random

log = logging.getLogger("yongtong.alarms")


class AlarmWatch:
    """Looks and tells until told to stop.

    ways:      by which alarms leave, by name; none: they stand in the book and the log alone
    criticals: events that this process logged as critical, with their last times
    lot:       of [0, 1), each time another
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        tally: Tally,
        clock: ClockWatch,
        ways: Mapping[str, Way],
        quiet: Iterable[Span],
        criticals: Callable[[], Mapping[str, datetime]],
        lot: Callable[[], float] = LOT,
    ) -> None:
        self._settings, self._bus, self._tally, self._clock = settings, bus, tally, clock
        self._ways, self._quiet, self._criticals, self._lot = ways, list(quiet), criticals, lot
        self._next_s = {name: 0.0 if name in OFTEN_S else monotonic() + FIRST_S for name in CHECKS}
        self._found: dict[str, list[Alarm]] = {}
        self._book = Book()

    def run(self, stop: threading.Event) -> None:
        """Turn after turn until told to stop."""
        if stop.wait(BEGIN_S):
            return
        self._book = read_book(self._bus.folder)  # as whoever made the rounds before left it
        rounds(partial(self.turn, stop), stop, TURN_S, log, "alarms")

    def turn(self, stop: threading.Event) -> None:
        """Look at what is due, decide what is to be said, and say it."""
        now = self._bus.clock()
        self._look(now)
        seen = [alarm for alarms in self._found.values() for alarm in alarms]
        before = len(self._book.letters), set(self._book.standing)
        if advance(self._book, seen, self._found.keys(), now, self._ways, self._quiet):
            self._keep()
            self._log(*before)
        for letter, way in due(self._book, now):
            if stop.is_set():
                return
            problem = ""
            try:
                self._ways[way](letter, now) if way in self._ways else None  # one that was set before goes no more
            except Refusal as refusal:
                problem = problem_of(refusal)
                log.warning("alarm.not_sent way=%s code=%s detail=%s", way, refusal.code, refusal.detail)
            note_try(self._book, letter, way, problem, now, self._lot())
            self._keep()

    def _look(self, now: datetime) -> None:
        """What the checks that are due find now; of the others what they found last."""
        settings, at_s = self._settings, monotonic()
        examined = Examined(
            settings,
            self._bus.folder,
            settings.at(settings.keys.folder),
            now,
            settings.alarms.least_free_bytes,
            self._bus.journal,
            self._bus.registry,
            Seen(self._tally.counted(), self._clock, self._criticals()),
        )
        for name, next_s in self._next_s.items():
            if at_s >= next_s:
                self._next_s[name] = at_s + OFTEN_S.get(name, RARELY_S)
                self._found[name] = alarms_of(name, look(examined, name))

    def _keep(self) -> None:
        try:
            keep_book(self._bus.folder, self._book)
        except OSError as problem:  # a full disk is what we have to tell of
            log.warning("alarms.not_kept reason=%s", type(problem).__name__)

    def _log(self, letters: int, standing: set[str]) -> None:
        for key in sorted(self._book.standing.keys() - standing):
            alarm = self._book.standing[key].alarm
            log.log(LEVELS[alarm.severity], "alarm.begins code=%s about=%s", alarm.code, alarm.about)
        for key in sorted(standing - self._book.standing.keys()):
            code, _, about = key.partition(" ")
            log.warning("alarm.ends code=%s about=%s", code, about)


def alarms_of(source: str, found: Iterable[Check]) -> list[Alarm]:
    """What a check found, as alarms: all that is bad, and what is well but has a next step. Of one kind and about one
    thing there is one alarm."""
    alarms: dict[str, Alarm] = {}
    for check in found:
        if check.ok and not check.next_en:
            continue
        words = (check.zh, check.en, check.next_zh, check.next_en)
        alarm = Alarm(check.name, _severity(check), *words, check.about, source)
        alarms.setdefault(alarm.key, alarm)
    return list(alarms.values())


def _severity(check: Check) -> Severity:
    if check.ok or check.name in WARNING:
        return "warning"
    return "critical" if check.name in CRITICAL else "error"


def test_notice(now: datetime) -> Notice:
    """What is sent to try the ways."""
    alarm = Alarm(
        "alarms.test",
        "warning",
        "这是一条测试告警，无须处理。",
        "This is a test of the alarms; nothing is wrong.",
        "请确认收到。",
        "See that it has arrived.",
    )
    return Notice("begins", alarm, now, now)
