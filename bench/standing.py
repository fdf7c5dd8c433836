"""A whole bus for the time of a measurement: two bureaus with grants, a `serve` process and its worker."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.deliveries import Sender
from connectors.partner.folder import PartnerFolder
from exchange.app import places
from exchange.cli.demo_quarter import FEEDS
from exchange.cli.trial import ORIGIN, City, Trial
from exchange.settings import Settings
from samples import quarter
from security.message import file_content

ROOT: Final = Path(__file__).parents[1]
CITY: Final = City(
    quarter.EXTENT_DEG,
    ROOT / "samples/city/districts.geojson",
    ROOT / "samples/city/grid.geojson",
    (FEEDS, ROOT / "bench/feeds"),
)
BUREAUS: Final = {"water": ("bench-covers", "water-register"), "urban-management": ("urban-census",)}
DONE_S: Final = 60.0


class Standing(msgspec.Struct, frozen=True):
    """A bus that serves. process: id of `serve`, whose child is the worker; sender: the first of its bureaus."""

    trial: Trial
    process: int
    sender: Sender

    @property
    def port(self) -> int:
        """Where it listens on this machine."""
        return int(self.trial.url.rpartition(":")[2])

    @property
    def tls(self) -> tuple[str, str, str]:
        """PEM files of the sender's connection: certificate, key, and the CA of the bus."""
        folder = PartnerFolder(self.trial.partners / self.sender.bureau)
        return folder.file("connection.pem"), folder.file("connection.key"), folder.file("ca.pem")

    @property
    def worker(self) -> int:
        """Process id of the worker."""
        (worker,) = self._children()
        return worker

    def waiting(self) -> int:
        """Deliveries that act two has not finished."""
        with contextlib.closing(places.journal_database(self.trial.settings).connect()) as journal:
            return int(journal.execute("SELECT count(*) FROM inbox WHERE status = 'waiting'").fetchone()[0])

    @contextlib.contextmanager
    def act_two_paused(self) -> Iterator[None]:
        """Its worker stands still meanwhile."""
        os.kill(self.worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.worker, signal.SIGCONT)

    def processor_s(self) -> tuple[float, float]:
        """Processor time that `serve` and its worker have used so far, seconds."""
        return _processor_s(self.process), sum(map(_processor_s, self._children()))

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory of `serve` and of its worker now."""
        return _resident_mb(self.process), sum(map(_resident_mb, self._children()))

    def components(self) -> list[str]:
        """Published identifiers."""
        return self._asked("store.sqlite", "SELECT identifier FROM components WHERE identifier IS NOT NULL ORDER BY 1")

    def push(self, feed: str, file: Path) -> None:
        """Send one file as a delivery of its feed, and wait until act two has finished it."""
        bureau = next(code for code, feeds in BUREAUS.items() if feed in feeds)
        partner = self.trial.partner(bureau)
        partner.push(feed, file_content(file), "text/csv", f"push-{file.stem}")
        status = partner.report(f"push-{file.stem}", wait_s=DONE_S).status
        if status != "processed":
            raise RuntimeError(f"{file.name} is {status} after {DONE_S:.0f} s")

    def drain(self, seconds: float) -> float:
        """Seconds until act two has nothing left to do. Raises RuntimeError when it takes longer than that."""
        began_s = time.monotonic()
        while self.waiting():
            if time.monotonic() - began_s > seconds:
                raise RuntimeError(f"act two still has {self.waiting()} deliveries after {seconds:.0f} s")
            time.sleep(0.2)
        return time.monotonic() - began_s

    def _children(self) -> list[int]:
        return children(self.process)

    def _asked(self, file: str, query: str) -> list[str]:
        path = self.trial.state / file
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as reader:
            return [row[0] for row in reader.execute(query)]


def children(process: int) -> list[int]:
    """Processes that it started; none where it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _processor_s(process: int) -> float:
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def standing(
    folder: Path,
    city: City = CITY,
    bureaus: Mapping[str, tuple[str, ...]] = BUREAUS,
    mqtt: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    first: Callable[[Settings], None] = lambda _: None,
    then: Callable[[Settings], None] = lambda _: None,
) -> Iterator[Standing]:
    """A new bus in the folder, serving on free ports of this machine.

    bureaus: the feeds of each; all may ask. mqtt, state, worker: settings of the second door (none unless given), of
    where it keeps what it knows, of its worker. first: what must run before the bus does; then: what it shall hold
    beside, once its bureaus are enrolled
    """
    trial = Trial(folder, city, mqtt=mqtt or {"broker": "off"}, state=state, worker=worker)
    first(trial.settings)
    for bureau, feeds in bureaus.items():
        trial.enrol(bureau, bureau, bureau)
        trial.grant(bureau, "pull", "ownership")
        for feed in feeds:
            trial.grant(bureau, "push", feed)
    then(trial.settings)
    sender = next(iter(bureaus))
    key = PartnerFolder(trial.partners / sender).signing
    with trial:
        yield Standing(trial, trial.process_id, Sender(sender, key, key.certificate_der or b"", ORIGIN))
