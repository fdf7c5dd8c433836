"""What this process counts and times itself: act one, over before the journal could be asked of it.

Labels come from fixed lists alone; nothing that an outsider sends becomes one. What the log and the store know of the
whole bus is asked of them instead, by `exchange.metrics`.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from security.errors import sentences

DOORS: Final = ("soap", "rest", "mqtt", "folder")
OUTCOMES: Final = ("accepted", "repeated", "refused", "unavailable", "cut_off", "failed")
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library says no types
OWN: Final = CollectorRegistry()
_deliveries: Final = Counter(
    "yongtong_deliveries", "Deliveries that came to a door.", ["door", "outcome"], registry=OWN
)
_refusals: Final = Counter("yongtong_refusals", "Refusals, of deliveries and reads, by code.", ["code"], registry=OWN)
_act_one: Final = Histogram(
    "yongtong_act_one_seconds", "From a delivery's arrival to its receipt.", ["door"], registry=OWN, buckets=SECONDS
)
for _door in DOORS:  # from the start at 0, so that the first one is an increase
    _act_one.labels(_door)
    for _outcome in OUTCOMES:
        _deliveries.labels(_door, _outcome)


def count_delivery(door: str, outcome: str, seconds: float) -> None:
    """A delivery was answered: at which door, how it went, after how long."""
    _deliveries.labels(door, outcome).inc()
    _act_one.labels(door).observe(seconds)


def count_refusal(code: str) -> None:
    """Something was refused. code: of `refusals.toml`; any other is counted as `other`."""
    _refusals.labels(code if code in sentences() else "other").inc()
