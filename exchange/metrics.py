"""`/metrics`: what a monitoring system asks, in Prometheus's text form.

Of three kinds: what this process counted itself (`exchange.figures`); what the log says, counted as it grows
(`exchange.tally`); and what holds now, asked of journal, registry and disk at the scrape. The latter two are of the
whole bus, so that every process says the same: of several, take one, and do not add them.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exchange.bus import Bus
from exchange.figures import OWN
from exchange.tally import FATES, OUTCOMES, SECONDS, TYPES, Counts, Tally
from security.errors import places
from security.expiry import Ending, endings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
DATABASES: Final = ("journal", "store")

F = TypeVar("F")

log = logging.getLogger("yongtong.metrics")


class Metrics:
    """What one bus tells of itself.

    own:    the bus's own certificates
    alarms: severities of the alarms that stand, by code
    """

    def __init__(
        self, bus: Bus, tally: Tally, own: Sequence[Ending], alarms: Callable[[], Collection[tuple[str, str]]]
    ) -> None:
        self._registry, self._turn = CollectorRegistry(), threading.Lock()
        self._registry.register(_Asked(bus, tally, own, alarms))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of it, now; one scrape at a time."""
        with self._turn:
            return generate_latest(OWN) + generate_latest(self._registry)


class _Asked(Collector):
    """Asks when it is scraped. What cannot be told is left out, and counted by name."""

    def __init__(
        self, bus: Bus, tally: Tally, own: Sequence[Ending], alarms: Callable[[], Collection[tuple[str, str]]]
    ) -> None:
        self._bus, self._tally, self._own, self._alarms = bus, tally, own, alarms

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: a registry would else ask already when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything that can be told."""
        untold = GaugeMetricFamily("yongtong_untold", "1: what could not be asked at this scrape.", labels=["what"])
        parts: dict[str, Callable[[], Iterator[Metric]]] = {
            "log": self._log,
            "counts": lambda: _counts(self._tally.counted(), sorted(self._bus.feeds)),
            "inbox": self._inbox,
            "feeds": self._feeds,
            "certificates": self._certificates,
            "timestamps": self._timestamps,
            "disk": self._disk,
            "alarms": self._standing,
        }
        for what, part in parts.items():
            try:
                yield from list(part())
                untold.add_metric([what], 0)
            except Exception as problem:  # a sick part must not hide how the others are
                log.warning("metrics.untold what=%s at=%s", what, places(problem))
                untold.add_metric([what], 1)
        yield untold

    def _log(self) -> Iterator[Metric]:
        journal, now = self._bus.journal, self._bus.clock()
        yield GaugeMetricFamily("yongtong_log_size", "Entries of the audit log.", journal.size())
        text = journal.checkpoint()
        if not text:
            return
        size = journal.head(text).size
        yield GaugeMetricFamily("yongtong_log_signed_size", "Entries under the last signed head.", size)
        entry = journal.entry(size - 1)
        if entry is not None:
            yield _age("yongtong_log_seconds_since_checkpoint", "Age of the last signed head.", entry.leaf.time, now)

    def _inbox(self) -> Iterator[Metric]:
        now, found = (
            self._bus.clock(),
            {feed: (many, since) for feed, many, since in self._bus.journal.waiting_by_feed()},
        )
        waiting = _by_feed(GaugeMetricFamily, "yongtong_inbox_waiting", "Accepted deliveries that wait for act two.")
        oldest = _by_feed(
            GaugeMetricFamily, "yongtong_oldest_waiting_seconds", "How long the oldest of them waits; 0: none."
        )
        for feed in sorted(self._bus.feeds):
            many, since = found.get(feed, (0, ""))
            waiting.add_metric([feed], many)
            oldest.add_metric([feed], _seconds(since, now) if since else 0.0)
        yield from (waiting, oldest)

    def _feeds(self) -> Iterator[Metric]:
        now, counts = self._bus.clock(), self._tally.counted()
        silent = _by_feed(GaugeMetricFamily, "yongtong_feed_silent_seconds", "Since the feed's last delivery.")
        rhythm = _by_feed(GaugeMetricFamily, "yongtong_feed_rhythm_seconds", "How often its file says that one comes.")
        for id, feed in sorted(self._bus.feeds.items()):
            silent.add_metric([id], _seconds(counts.heard.get(id) or counts.known[id], now))
            if feed.rhythm is not None:
                rhythm.add_metric([id], feed.rhythm.total_seconds())
        yield from (silent, rhythm)

    def _certificates(self) -> Iterator[Metric]:
        now, left = self._bus.clock(), dict[tuple[str, str], float]()
        for one in (*self._own, *endings(self._bus.registry.certificates(), now)):
            days = (one.not_after - now) / timedelta(days=1)
            left[one.holder, one.use] = max(days, left.get((one.holder, one.use), days))
        family = GaugeMetricFamily(
            "yongtong_certificate_days_left", "Of each bureau's longest certificate.", labels=["bureau", "use"]
        )
        for labels, days in sorted(left.items()):
            family.add_metric(labels, days)
        yield family

    def _timestamps(self) -> Iterator[Metric]:
        coverage, now = self._bus.coverage, self._bus.clock()
        if coverage is not None:
            oldest = coverage.oldest()
            age = (now - oldest).total_seconds() if oldest is not None else 0.0
            says = "Age of the oldest entry without a timestamp; 0: none."
            yield GaugeMetricFamily("yongtong_unstamped_seconds", says, max(age, 0.0))

    def _disk(self) -> Iterator[Metric]:
        usage = shutil.disk_usage(self._bus.folder)
        yield GaugeMetricFamily("yongtong_disk_free_bytes", "Free on the state folder's disk.", usage.free)
        yield GaugeMetricFamily("yongtong_disk_size_bytes", "Size of the state folder's disk.", usage.total)
        sizes = GaugeMetricFamily("yongtong_database_bytes", "Size of a database file.", labels=["database"])
        for name in DATABASES:
            path = self._bus.folder / f"{name}.sqlite"
            if path.exists():
                sizes.add_metric([name], path.stat().st_size)
        yield sizes

    def _standing(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("yongtong_alarms", "Alarms that stand.", labels=["code", "severity"])
        many: dict[tuple[str, str], int] = {}
        for one in self._alarms():
            many[one] = many.get(one, 0) + 1
        for labels, count in sorted(many.items()):
            family.add_metric(labels, count)
        yield family


def _counts(counts: Counts, feeds: Sequence[str]) -> Iterator[Metric]:
    entries = CounterMetricFamily("yongtong_log_entries", "Entries of the log by type.", labels=["type"])
    for kind in (*TYPES, "other"):
        entries.add_metric([kind], counts.entries.get(kind, 0))
    finished = CounterMetricFamily("yongtong_finished", "Deliveries that act two finished.", labels=["feed", "outcome"])
    records = CounterMetricFamily("yongtong_records", "Records of finished deliveries.", labels=["feed", "fate"])
    took = _by_feed(
        HistogramMetricFamily, "yongtong_act_two_seconds", "From a delivery's arrival to its signed report."
    )
    for feed in feeds:
        for outcome in OUTCOMES:
            finished.add_metric([feed, outcome], counts.finished.get(feed, {}).get(outcome, 0))
        for fate in FATES:
            records.add_metric([feed, fate], counts.records.get(feed, {}).get(fate, 0))
        below = accumulate(counts.took.get(feed, [0] * (len(SECONDS) + 1)))
        limits = (*(str(limit) for limit in SECONDS), "+Inf")
        took.add_metric([feed], list(zip(limits, below, strict=True)), counts.took_s.get(feed, 0.0))
    yield from (entries, finished, records, took)


def _by_feed(family: Callable[..., F], name: str, says: str) -> F:
    return family(name, says, labels=["feed"])


def _age(name: str, says: str, time: str, now: datetime) -> Metric:
    return GaugeMetricFamily(name, says, _seconds(time, now))


def _seconds(since: str, now: datetime) -> float:
    """Since a time as the log writes it; never less than none, whatever was done to the clock."""
    return max((now - datetime.fromisoformat(since)).total_seconds(), 0.0)
