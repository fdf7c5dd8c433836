"""Act two on a PostgreSQL server by one worker and by two, each at feeds of other districts than the other's.

Deliveries of 4 KB are accepted while the workers stand still; then it is timed how long they take to finish all.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from bench import register
from bench.bulk import SERVER
from bench.deliveries import HEADER, ROWS, envelope, post
from bench.figures import Figure, alternating, figure
from bench.load import Plan, drive
from bench.servers import fresh
from bench.standing import ROOT, Standing, standing
from exchange.cli.trial import City
from tests.postgres import PostgresServer

FEEDS: Final = ("workers-west", "workers-east")
DELIVERIES: Final = 1_500  # of each feed, each run
COVERS: Final = 10_000  # of each feed, 30 m apart; all later deliveries change them
CLIENTS: Final = 16
PUSHED_S: Final = 120.0
DONE_S: Final = 180.0
SWEEP: Final = {"sweep_s": 0.2}  # nothing comes while they work, and so nobody wakes a worker for the second feed
LOOK_S: Final = 0.1
IDLE_S: Final = 2.0  # after the last report a worker lets go its feed; stopped before, it would keep it
KINDS: Final = ("给水井", "污水井", "雨水井")


def measure(folder: Path) -> Figure:
    """workers_two_on_postgres: deliveries a second that two workers finish; peer: one worker."""
    city, server = _city(fresh(folder)), PostgresServer(settings=SERVER)
    url, sent = server.database(), 0
    busy: dict[int, list[float]] = {1: [], 2: []}
    state = {"journal": url, "store": url}
    try:
        with (
            standing(folder / "bus", city, {"water": FEEDS}, state=state, worker=SWEEP) as bus,
            _another_worker(bus, folder / "worker.log") as another,
        ):

            def run(workers: int) -> float:
                nonlocal sent
                time.sleep(IDLE_S)
                processes = (bus.worker, another)
                for process in processes:
                    os.kill(process, signal.SIGSTOP)
                _push(bus, sent)
                sent += DELIVERIES
                before_s = _processors_s()
                for process in processes[:workers]:
                    os.kill(process, signal.SIGCONT)
                seconds = _done_s(bus)
                busy[workers].append((_processors_s() - before_s) / seconds)
                for process in processes:
                    os.kill(process, signal.SIGCONT)
                return len(FEEDS) * DELIVERIES / seconds

            run(2)  # the covers are there from here on, and both are warm
            ours, theirs = alternating(lambda _: run(2), lambda _: run(1))
    finally:
        server.stop()
    cores = f"{median(busy[2]):.2f} of {os.cpu_count()} cores busy with two, {median(busy[1]):.2f} with one"
    note = f"{ROWS} records a delivery, two feeds in districts of their own; server, workers and doors: {cores}"
    return figure("workers_two_on_postgres", ours, theirs, "deliveries/s", note)


def _city(folder: Path) -> City:
    """The city of the register, with a feed for its west and one for its east."""
    city, text = register.city(folder / "city"), (ROOT / "bench/feeds/bench-covers.toml").read_text()
    (folder / "feeds").mkdir()
    for feed in FEEDS:
        (folder / "feeds" / f"{feed}.toml").write_text(text.replace("bench-covers", feed))
    return City(city.extent, city.districts, city.grid, (folder / "feeds",))


@contextlib.contextmanager
def _another_worker(bus: Standing, log: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", "worker"]
    with log.open("wb") as said:
        process = subprocess.Popen([*command, "--settings", bus.trial.settings.source], stdout=said, stderr=said)
    try:
        time.sleep(5)  # it stands
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _push(bus: Standing, first: int) -> None:
    """Have DELIVERIES of each feed accepted."""
    now = datetime.now(UTC)
    requests = [
        post(envelope(_content(feed, number), f"{feed}-{number}", bus.sender, now, feed))
        for number in range(first, first + DELIVERIES)
        for feed in FEEDS
    ]
    measured = drive(Plan("localhost", bus.port, requests, CLIENTS, PUSHED_S, *bus.tls))
    if measured.failures or measured.sent < len(requests):
        raise RuntimeError(f"{measured.failures} of {measured.sent} were not accepted")


def _content(feed: str, number: int) -> bytes:
    west, state = (121.42 if feed == FEEDS[0] else 121.52), ("完好", "破损", "丢失")[number * ROWS // COVERS % 3]
    start = number * ROWS % COVERS
    rows = [
        f"{feed[8]}{n:07},{KINDS[n % 3]},{west + n % 100 * 3e-4:.7f},{29.82 + n // 100 * 3e-4:.7f},学前街,"
        f"样城自来水公司,样城市政养护所,{state},20120501,巡检更新，井盖与井座齐平，周边无积水"
        for n in range(start, start + ROWS)
    ]
    return "\n".join([HEADER, *rows, ""]).encode()


def _processors_s() -> float:
    """Seconds for which the machine's processors have worked, whoever for."""
    user, nice, system, _, _, interrupts, soft = (int(n) for n in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _done_s(bus: Standing) -> float:
    began_s = time.monotonic()
    while bus.waiting():
        if time.monotonic() - began_s > DONE_S:
            raise RuntimeError(f"{bus.waiting()} deliveries wait after {DONE_S:.0f} s")
        time.sleep(LOOK_S)
    return time.monotonic() - began_s
