"""A whole bus for the time of a measurement: new keys, two bureaus with grants, a `serve` process and its worker."""

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from bench import deliveries
from bench.deliveries import Sender
from bench.load import Plan, drive
from bench.servers import free_port, fresh, serving
from exchange import app
from exchange.registry import Bureau, Officer, Registry
from exchange.settings import Settings, load_settings
from samples import quarter
from security import keys, pki

ROOT: Final = Path(__file__).parents[1]
ORIGIN: Final = "bench.example"
SETTINGS: Final = """
[bus]
origin = "{origin}"
[city]
edition = "CJ/T 214-2007"
extent = {extent}
districts = "{root}/samples/city/districts.geojson"
grid = "{root}/samples/city/grid.geojson"
[https]
host = "127.0.0.1"
port = {port}
names = ["localhost", "127.0.0.1"]
[state]
folder = "state"
[keys]
folder = "keys"
[feeds]
folders = ["{root}/mappings/feeds", "{root}/bench/feeds"]
"""
BUREAUS: Final = {"water": ("bench-covers", "water-register"), "urban-management": ("urban-census",)}
DONE_S: Final = 60.0


class Standing(msgspec.Struct, frozen=True):
    """A bus that serves. certificate, key, authority: PEM files of the water bureau's connection.

    process: id of `serve`, whose child is the worker
    senders: who signs, by bureau; sender: the water bureau
    """

    port: int
    process: int
    state: Path
    certificate: str
    key: str
    authority: str
    senders: dict[str, Sender]

    @property
    def sender(self) -> Sender:
        return self.senders["water"]

    def waiting(self) -> int:
        """Deliveries that act two has not finished."""
        return int(self._asked("journal.sqlite", "SELECT count(*) FROM inbox WHERE status = 'waiting'")[0])

    def processor_s(self) -> tuple[float, float]:
        """Processor time that `serve` and its worker have used so far, seconds."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        return _processor_s(self.process), sum(_processor_s(int(child)) for child in children)

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory of `serve` and of its worker now."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        return _resident_mb(self.process), sum(_resident_mb(int(child)) for child in children)

    def components(self) -> list[str]:
        """Published identifiers."""
        return self._asked("store.sqlite", "SELECT identifier FROM components WHERE identifier IS NOT NULL ORDER BY 1")

    def _asked(self, file: str, query: str) -> list[str]:
        with contextlib.closing(sqlite3.connect(f"file:{self.state / file}?mode=ro", uri=True, timeout=30)) as reader:
            return [row[0] for row in reader.execute(query)]


def _resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _processor_s(process: int) -> float:
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Standing]:
    """A new bus in the folder, serving on a free port of this machine."""
    port, now = free_port(), datetime.now(UTC)
    file = fresh(folder) / "settings.toml"
    file.write_text(SETTINGS.format(origin=ORIGIN, extent=list(quarter.EXTENT_DEG), root=ROOT, port=port))
    settings = load_settings(file)
    app.initialise(settings, "2007", now)
    senders = _enrolled(settings, folder, now)
    command = [sys.executable, "-m", "exchange.cli.main", "serve", "--settings", str(file), "--https-port", str(port)]
    with serving(command, port, folder / "serve.log") as process:
        yield Standing(
            port=port,
            process=process.pid,
            state=folder / "state",
            certificate=str(folder / "water.pem"),
            key=str(folder / "water.key"),
            authority=str(folder / "keys" / "ca.pem"),
            senders=senders,
        )


def _enrolled(settings: Settings, folder: Path, now: datetime) -> dict[str, Sender]:
    """Both bureaus with their certificates and grants; connection keys are left in the folder."""
    authority, journal = app.authority(settings), app.open_journal(settings)
    with contextlib.closing(journal):
        registry = app.open_registry(settings, journal)
        return {code: _bureau(code, registry, authority, folder, now) for code in BUREAUS}


def _bureau(code: str, registry: Registry, authority: pki.Authority, folder: Path, now: datetime) -> Sender:
    signing, connection = keys.generate("ES256"), keys.generate("ES256")
    window = (now - timedelta(hours=1), now + timedelta(days=2))
    signing_der = pki.issue(authority, f"{code} signing", signing.public_key, "signing", *window)
    connection_der = pki.issue(authority, f"{code} connection", connection.public_key, "connection", *window)
    (folder / f"{code}.pem").write_bytes(pki.pem_of(connection_der))
    (folder / f"{code}.key").write_bytes(connection.pem())
    proposer, approver = Officer("甲", "platform"), Officer("乙", "platform")
    enrolled = [pki.enrolled(signing_der, code, "signing"), pki.enrolled(connection_der, code, "connection")]
    registry.enrol(Bureau(code, code, code, "bureau"), enrolled, proposer)
    year = {"valid_from": f"{now.year - 1}-01-01", "valid_until": f"{now.year + 1}-12-31"}
    granted: list[tuple[Literal["push", "pull"], str]] = [("push", feed) for feed in BUREAUS[code]]
    for action, target in [*granted, ("pull", "ownership")]:
        grant = registry.propose_grant(
            bureau=code, action=action, target=target, purpose="bench", basis="bench", by=proposer, **year
        )
        registry.approve_grant(grant, approver)
    return Sender(code, signing, signing_der, ORIGIN)


def push(bus: Standing, feed: str, file: Path) -> None:
    """Send one file as a delivery of its feed, and wait until act two has finished it."""
    bureau = next(code for code, feeds in BUREAUS.items() if feed in feeds)
    body = deliveries.envelope(file.read_bytes(), f"push-{file.stem}", bus.senders[bureau], datetime.now(UTC), feed)
    folder = Path(bus.certificate).parent
    tls = (str(folder / f"{bureau}.pem"), str(folder / f"{bureau}.key"), bus.authority)
    drive(Plan("localhost", bus.port, [deliveries.post(body)], 1, DONE_S, *tls))
    ends_s = time.monotonic() + DONE_S
    while bus.waiting():
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{file.name} is not finished after {DONE_S:.0f} s")
        time.sleep(0.1)
