"""One bureau's flood beside a calm one: how long the calm one waits for receipt and report, with the flood and without.

Ours: the median receipt of a bureau that sends one delivery after another while another bureau keeps 200 connections
busy, which sends far more than its feed's quota and does not heed Retry-After. Peer: the same without the flood, in the
same run. The note has the same under a flood that stays within its quota, and the reports.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import requests

from bench.deliveries import contents
from bench.figures import Figure, figure
from bench.load import Measured, Plan, drive
from bench.servers import fresh
from bench.standing import CITY, ROOT, Standing, standing
from connectors.partner.folder import PartnerFolder
from connectors.partner.rest import session_of
from exchange.cli.trial import ORIGIN, City
from security.jws_delivery import sign_delivery

CALM: Final = "calm-covers"
WILD: Final = "wild-covers"  # with a quota far below what it sends
BUSY: Final = "busy-covers"  # with the bus's own
BUREAUS: Final = {"water": (WILD, BUSY), "urban-management": (CALM,)}
A_MINUTE: Final = 120
CONNECTIONS: Final = 200
RUN_S: Final = 8.0
PREPARED: Final = 8_000
LOOK_S: Final = 0.05
REPORT_S: Final = 60.0


class Waited(msgspec.Struct, frozen=True):
    """Seconds of each of the calm one's deliveries until its receipt, and until its report."""

    receipts_s: list[float]
    reports_s: list[float]

    def said(self) -> str:
        """Median and 95th percentile of both, milliseconds."""
        return ", ".join(
            f"{name} p50 {statistics.median(times) * 1000:.0f} p95 {_p95(times) * 1000:.0f} ms"
            for name, times in (("receipts", self.receipts_s), ("reports", self.reports_s))
        )


def _p95(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


@contextmanager
def calm_and_flood(folder: Path) -> Iterator[Standing]:
    """A bus with the three feeds of this module."""
    feeds = folder / "feeds"
    feeds.mkdir(parents=True)
    text = (ROOT / "bench/feeds/bench-covers.toml").read_text(encoding="utf-8")
    for feed, bureau, more in (
        (CALM, "urban-management", ""),
        (WILD, "water", f"most_a_minute = {A_MINUTE}\n"),
        (BUSY, "water", ""),
    ):
        said = text.replace('"bench-covers"', f'"{feed}"').replace('"water"', f'"{bureau}"')
        (feeds / f"{feed}.toml").write_text(more + said, encoding="utf-8")
    with standing(folder / "bus", City(CITY.extent, CITY.districts, CITY.grid, (feeds,)), BUREAUS) as bus:
        yield bus


def envelopes(bus: Standing, bureau: str, feed: str, name: str, count: int) -> list[bytes]:
    """Signed deliveries, each in an envelope of its own."""
    key, now = PartnerFolder(bus.trial.partners / bureau).signing, datetime.now(UTC)
    return [
        sign_delivery(
            content,
            key,
            sender=bureau,
            recipient=ORIGIN,
            feed=feed,
            message_id=f"{name}-{number}",
            content_type="text/csv",
            signed_at=now,
        )
        for number, content in enumerate(contents(0, count))
    ]


def flood(bus: Standing, feed: str, name: str, seconds: float, count: int = PREPARED) -> Callable[[], Measured]:
    """Begin a flood; gives what waits for its end."""
    water = PartnerFolder(bus.trial.partners / "water")
    tls = water.file("connection.pem"), water.file("connection.key"), water.file("ca.pem")
    posts = [_post(envelope) for envelope in envelopes(bus, "water", feed, name, count)]
    plan = Plan("localhost", bus.port, posts, CONNECTIONS, seconds, *tls, good=("201", "429"))
    found: list[Measured] = []
    thread = threading.Thread(target=lambda: found.append(drive(plan)))
    thread.start()

    def ended() -> Measured:
        thread.join()
        return found[0]

    return ended


def _post(envelope: bytes) -> bytes:
    head = (
        "POST /api/v1/deliveries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/jose+json\r\n"
        f"Content-Length: {len(envelope)}\r\n\r\n"
    )
    return head.encode() + envelope


def calm(bus: Standing, name: str, seconds: float) -> Waited:
    """One bureau that sends a delivery, waits for its receipt and its report, and sends the next."""
    session, waited = session_of(PartnerFolder(bus.trial.partners / "urban-management")), Waited([], [])
    ends_s = time.monotonic() + seconds
    for number, envelope in enumerate(envelopes(bus, "urban-management", CALM, name, 400)):
        began_s = time.monotonic()
        if began_s > ends_s:
            break
        headers = {"content-type": "application/jose+json"}
        answer = session.post(f"{bus.trial.url}/api/v1/deliveries", data=envelope, headers=headers, timeout=REPORT_S)
        answer.raise_for_status()
        waited.receipts_s.append(time.monotonic() - began_s)
        _wait_reported(session, f"{bus.trial.url}/api/v1/deliveries/{name}-{number}/report", began_s)
        waited.reports_s.append(time.monotonic() - began_s)
    return waited


def _wait_reported(session: requests.Session, address: str, began_s: float) -> None:
    while session.get(address, timeout=REPORT_S).status_code != 200:
        if time.monotonic() - began_s > REPORT_S:
            raise RuntimeError(f"{address}: no report after {REPORT_S:.0f} s")
        time.sleep(LOOK_S)


def measure(folder: Path) -> Figure:
    """flood_slows_others_ratio: the calm one's median receipt beside a flood over its quota, over that without one."""
    with calm_and_flood(fresh(folder)) as bus:
        calm(bus, "warm", 3.0)
        alone, beside, busy, sent = [], [], [], []
        for run in range(3):
            alone.append(calm(bus, f"alone-{run}", RUN_S))
            ended = flood(bus, WILD, f"wild-{run}", RUN_S + 4)
            time.sleep(2.0)
            beside.append(calm(bus, f"beside-{run}", RUN_S))
            sent.append(ended())
            bus.drain(120.0)
        ended = flood(bus, BUSY, "busy", RUN_S + 4)
        time.sleep(2.0)
        busy.append(calm(bus, "beside-busy", RUN_S))
        within = ended()
        bus.drain(240.0)
    ours, peer = ([statistics.median(run.receipts_s) * 1000 for run in runs] for runs in (beside, alone))
    asked = f"{sent[-1].sent / sent[-1].elapsed_s:.0f} requests/s, answers {sent[-1].answers}"
    note = (
        f"milliseconds to the calm one's receipt; alone {alone[-1].said()}; beside {CONNECTIONS} connections over "
        f"their quota of {A_MINUTE} a minute ({asked}): {beside[-1].said()}; beside as many within their quota "
        f"({within.per_s:.0f} answers/s): {busy[0].said()}"
    )
    return figure("flood_slows_others_ratio", ours, peer, "ms", note)
