"""`python -m bench.soak`: ten minutes at a steady rate over real sockets, then the whole log read again; and a log of
ten million entries searched.

What decays shows here: latency minute by minute, backlog of act two, memory of both processes. The last result is
committed beside this file.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from bench import deliveries, log_reading
from bench.__main__ import WORK
from bench.audit import open_journal
from bench.load import Plan, drive
from bench.standing import Standing, standing
from exchange import audit
from exchange.app import trusted

RESULT: Final = Path(__file__).parent / "soak.json"
CLIENTS: Final = 16
RATE_PER_S: Final = 250
DRAIN_S: Final = 120.0
SEARCHED: Final = 10_000_000


class Minute(msgspec.Struct, frozen=True):
    """One minute.

    answered, failures: all that the clients sent; what they were too late with stays unsent
    backlog_s: deliveries act two had still before it, in seconds of input; memory in MB, resident
    """

    answered: int
    failures: int
    p50_ms: float
    p99_ms: float
    backlog_s: float
    serve_mb: float
    worker_mb: float


class Soak(msgspec.Struct, frozen=True):
    """The whole run. processed: deliveries that act two finished; log_holds: the audit's word on the whole log;
    search_ms: a page by each argument of `audit search`, in a log of search_entries."""

    commit: str
    rate_per_s: int
    minutes: list[Minute]
    sent: int
    processed: int
    log_holds: bool
    entries: int
    verify_s: float
    search_entries: int = 0
    search_ms: dict[str, float] = {}


def main() -> int:
    """Run, print a line a minute, keep the result. Exit 1 when anything was lost or the log does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--rate", type=int, default=RATE_PER_S, help=f"deliveries a second ({RATE_PER_S})")
    parser.add_argument("--search-entries", type=int, default=SEARCHED, help=f"({SEARCHED}; a kilobyte of disk each)")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=WORK) as folder, standing(Path(folder) / "bus") as bus:
        minutes, sent = [], 0
        for number in range(options.minutes):
            requests = deliveries.requests(number * options.rate * 60, options.rate * 60, bus.sender)
            minutes.append(_minute(bus, requests, options.rate))
            sent += minutes[-1].answered + minutes[-1].failures
            print(f"minute {number + 1}: {minutes[-1]}", file=sys.stderr)
        bus.drain(DRAIN_S)
        began_s = time.monotonic()
        verdict = audit.verify(bus.trial.state, trusted.anchors_of(bus.trial.settings))
        verify_s = round(time.monotonic() - began_s, 1)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    search_ms = _search_ms(options.search_entries)
    held = (verdict.reports, verdict.ok, verdict.entries, verify_s)
    soak = Soak(commit, options.rate, minutes, sent, *held, options.search_entries, search_ms)
    RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(soak), indent=2) + b"\n")
    whole = verdict.ok and verdict.receipts == verdict.reports == sent and not any(one.failures for one in minutes)
    print(f"{sent} sent, {verdict.receipts} receipts, {verdict.reports} reports; the log holds: {verdict.ok}")
    return 0 if whole else 1


def _search_ms(entries: int) -> dict[str, float]:
    """A log filled by two processes, and what a page of each search takes."""
    with tempfile.TemporaryDirectory(prefix="soak-", dir=WORK) as folder:
        print(f"{entries:,} entries: {log_reading.fill(Path(folder) / 'log', 0, entries):,.0f}/s", file=sys.stderr)
        with closing(open_journal(Path(folder) / "log")) as journal:
            search_ms = {name: round(ms, 1) for name, ms in log_reading.search_ms(journal).items()}
    print(f"search: {search_ms}", file=sys.stderr)
    return search_ms


def _minute(bus: Standing, requests: list[bytes], rate_per_s: int) -> Minute:
    plan = Plan("localhost", bus.port, requests, CLIENTS, 60.0, *bus.tls, rate=rate_per_s)
    measured = drive(plan)
    serve_mb, worker_mb = bus.memory_mb()
    return Minute(
        answered=measured.sent - measured.failures,
        failures=measured.failures,
        p50_ms=round(measured.p50_ms, 1),
        p99_ms=round(measured.p99_ms, 1),
        backlog_s=round(bus.waiting() / rate_per_s, 2),
        serve_mb=serve_mb,
        worker_mb=worker_mb,
    )


if __name__ == "__main__":
    sys.exit(main())
