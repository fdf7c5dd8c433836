"""A register of a million rows as one signed delivery over SOAP/MTOM, from sending it to its signed report.

And the same rows again, shuffled, the column altered that the feed does not read: nothing is new. Peer: Debian's
`ogr2ogr`, the same CSV to a GeoPackage; it verifies, maps, checks, joins and proves nothing.
"""

import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec
import psycopg

from bench import deliveries, register
from bench.figures import Figure, alternating, figure
from bench.memory import highest_anonymous_mb
from bench.servers import fresh
from bench.standing import Standing, standing
from security.message import file_content, in_memory
from tests.postgres import PostgresServer

ROWS: Final = 1_000_000
GROWTH: Final = (10_000, 100_000, ROWS)
BUREAUS: Final = {register.BUREAU: (register.FEED,), "water": (deliveries.FEED,)}
REPORT_S: Final = 300.0
LOOK_S: Final = 0.1  # how often the bureau asks for its report
SERVER: Final = {"shared_buffers": "256MB", "max_wal_size": "4GB"}  # all else as the server comes, fsync included


class Delivered(msgspec.Struct, frozen=True):
    """One delivery. seconds: from sending to report; anonymous_mb: the worker's anonymous memory at its highest."""

    rows: int
    seconds: float
    anonymous_mb: float

    @property
    def per_s(self) -> float:
        """Records a second."""
        return self.rows / self.seconds


def measure(folder: Path) -> Figure:
    """bulk_register_records_per_s, each run on a new bus; growth from ten thousand rows in its note."""
    city, rows, file = register.city(fresh(folder) / "city"), register.register(ROWS), folder / "register.csv"
    seen: dict[int, list[Delivered]] = {size: [] for size in GROWTH}

    def ours(run: int, size: int = ROWS) -> float:
        rows.head(size).write_csv(file)
        with standing(folder / f"bus-{size}-{run}", city, BUREAUS) as bus:
            seen[size].append(delivered(bus, file, "register", "new", size))
        return seen[size][-1].per_s

    for size in GROWTH[:-1]:
        ours(0, size)
    rates, peers = alternating(ours, lambda _: ROWS / _ogr2ogr_s(file, folder / "peer.gpkg"))
    growth = ", ".join(f"{size:,}: {1e6 / max(one.per_s for one in runs):.1f} µs" for size, runs in seen.items())
    note = (
        f"{file.stat().st_size / 1e6:,.0f} MB by MTOM, four districts, ten classes, 40,000 unit grids; "
        f"anonymous memory of the worker at most {_most_mb(seen[ROWS]):,.0f} MB; "
        f"a record of {growth}; peer: ogr2ogr to GeoPackage"
    )
    return figure("bulk_register_records_per_s", rates, peers, "records/s", note)


def measure_postgres(folder: Path) -> Figure:
    """bulk_register_postgres_records_per_s: journal and store on a private server, each run in a new database.

    Peer: `ogr2ogr` with COPY into a table with a point geometry and its index, on the same server.
    """
    city, file = register.city(fresh(folder) / "city"), folder / "register.csv"
    register.register(ROWS).write_csv(file)
    server = PostgresServer(settings=SERVER)
    seen: list[Delivered] = []

    def ours(run: int) -> float:
        url = server.database()
        with standing(folder / f"bus-{run}", city, BUREAUS, state={"journal": url, "store": url}) as bus:
            seen.append(delivered(bus, file, "register", "new", ROWS))
        return seen[-1].per_s

    try:
        rates, peers = alternating(ours, lambda _: ROWS / _copied_s(file, server.database()))
    finally:
        server.stop()
    note = (
        f"{file.stat().st_size / 1e6:,.0f} MB by MTOM; anonymous memory of the worker "
        f"at most {_most_mb(seen):,.0f} MB; server with fsync, on the same two cores; peer: ogr2ogr by COPY to PostGIS"
    )
    return figure("bulk_register_postgres_records_per_s", rates, peers, "records/s", note)


def measure_again(folder: Path) -> Figure:
    """redelivery_records_per_s: on one bus, each time in another order and under a new message id."""
    city, rows, file = register.city(fresh(folder) / "city"), register.register(ROWS), folder / "register.csv"
    seen: list[Delivered] = []
    with standing(folder / "bus", city, BUREAUS) as bus:
        rows.write_csv(file)
        delivered(bus, file, "register", "new", ROWS)

        def ours(run: int) -> float:
            register.told_again(rows, run).write_csv(file)
            seen.append(delivered(bus, file, f"again-{run}", "unchanged", ROWS))
            return seen[-1].per_s

        rates, peers = alternating(ours, lambda _: ROWS / _ogr2ogr_s(file, folder / "peer.gpkg"))
    note = (
        f"the register of {ROWS:,} shuffled, one column altered that the feed does not read: all unchanged; "
        f"anonymous memory of the worker at most {_most_mb(seen):,.0f} MB; peer: ogr2ogr of the same file to GeoPackage"
    )
    return figure("redelivery_records_per_s", rates, peers, "records/s", note)


def delivered(bus: Standing, file: Path, message_id: str, outcome: str, rows: int) -> Delivered:
    """Send the file and wait for its report. Raises RuntimeError unless every row had the outcome."""
    partner = bus.trial.partner(register.BUREAU)
    partner.checkpoint()  # client and worker stand before the clock runs
    other, empty = bus.trial.partner("water"), f"before-{message_id}"
    other.push(deliveries.FEED, in_memory(f"{deliveries.HEADER}\n".encode()), "text/csv", empty)
    other.report(empty, wait_s=REPORT_S)
    with highest_anonymous_mb(bus.worker) as highest:
        began_s = time.monotonic()
        partner.push(register.FEED, file_content(file), "text/csv", message_id)
        reported = partner.report(message_id)
        while reported.received is None and time.monotonic() - began_s < REPORT_S:
            time.sleep(LOOK_S)
            reported = partner.report(message_id)
        seconds = time.monotonic() - began_s
    counted = reported.received.document["report"] if reported.received else {}
    if counted.get(outcome) != rows or counted.get("records") != rows:
        raise RuntimeError(f"{message_id} is {reported.status} after {seconds:.0f} s, not {rows:,} {outcome}")
    return Delivered(rows, seconds, highest[0])


def _most_mb(seen: list[Delivered]) -> float:
    return max(one.anonymous_mb for one in seen)


def _ogr2ogr_s(source: Path, target: Path) -> float:
    """Seconds that GDAL takes to write the table to a GeoPackage, points from its X (north) and Y (east)."""
    target.unlink(missing_ok=True)
    axes = ["-oo", "X_POSSIBLE_NAMES=Y", "-oo", "Y_POSSIBLE_NAMES=X", "-a_srs", "EPSG:4549"]
    began_s = time.monotonic()
    subprocess.run(["ogr2ogr", "-q", "-f", "GPKG", target, source, *axes], check=True)
    return time.monotonic() - began_s


def _copied_s(source: Path, url: str) -> float:
    """Seconds that GDAL takes to write the table to PostGIS by COPY."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION postgis")
    axes = ["-oo", "X_POSSIBLE_NAMES=Y", "-oo", "Y_POSSIBLE_NAMES=X", "-a_srs", "EPSG:4549"]
    copy = ["--config", "PG_USE_COPY", "YES", "-nln", "register"]
    began_s = time.monotonic()
    subprocess.run(["ogr2ogr", "-q", "-f", "PostgreSQL", f"PG:{url}", source, *copy, *axes], check=True)
    return time.monotonic() - began_s
