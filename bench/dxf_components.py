"""A planning bureau's sheet from file to stored components: one signed delivery over SOAP/MTOM to its signed report.

The made-up sheet of `bench.dxf`, of whose 80,000 entities 50,000 are symbols of components; a real `serve`, its worker
and its store, on a new bus each run. Counted are components. Peer: Debian's `ogr2ogr` with raw codes, the same file to
a GeoPackage; it verifies, maps, places, checks, joins and proves nothing.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import dxf, register
from bench.figures import Figure, alternating, figure
from bench.memory import highest_anonymous_mb
from bench.servers import fresh
from bench.standing import Standing, standing
from exchange.cli.demo_quarter import FEEDS
from exchange.cli.trial import City
from security.message import file_content, in_memory

FEED: Final = "planning-map-500"
BUREAU: Final = "planning"
SIZES: Final = (0.1, 1, 10)  # sheets, for growth
NUMBERS: Final = [
    f"{north / 100:.2f}-{east / 100:.2f}" for north in range(330_600, 330_700, 25) for east in range(64_900, 65_000, 25)
]
REPORT_S: Final = 300.0
LOOK_S: Final = 0.05  # how often the bureau asks for its report


class Delivered(msgspec.Struct, frozen=True):
    """One delivery. seconds: from sending to report; anonymous_mb: the worker's anonymous memory at its highest."""

    components: int
    seconds: float
    anonymous_mb: float

    @property
    def per_s(self) -> float:
        """Components a second."""
        return self.components / self.seconds


def measure(folder: Path) -> Figure:
    """dxf_to_components_per_s over one sheet; growth from a tenth of it to ten in its note."""
    polygons = register.city(fresh(folder) / "city")
    city = City(polygons.extent, polygons.districts, polygons.grid, (FEEDS,))
    seen: dict[float, list[Delivered]] = {size: [] for size in SIZES}

    def ours(run: int, size: float = 1) -> float:
        file = _sheet(folder, size)
        with standing(folder / f"bus-{size}-{run}", city, {BUREAU: (FEED,)}) as bus:
            seen[size].append(delivered(bus, file, components_of(size)))
        return seen[size][-1].per_s

    for size in (SIZES[0], SIZES[-1]):
        ours(0, size)
    rates, peers = alternating(ours, lambda _: components_of(1) / _ogr2ogr_s(_sheet(folder, 1), folder / "peer.gpkg"))
    growth = ", ".join(
        f"{components_of(size):,}: {1e6 / max(one.per_s for one in runs):.1f} µs and "
        f"{max(one.anonymous_mb for one in runs):,.0f} MB"
        for size, runs in seen.items()
    )
    note = (
        f"{_sheet(folder, 1).stat().st_size / 1e6:,.0f} MB of {dxf.ENTITIES:,} entities by MTOM, four districts, "
        f"40,000 unit grids; a component of {growth} (best run, worker's most anonymous memory); "
        "peer: ogr2ogr with raw codes to GeoPackage"
    )
    return figure("dxf_to_components_per_s", rates, peers, "components/s", note)


def components_of(size: float) -> int:
    """How many symbols of components a drawing of so many sheets has."""
    return round(size * dxf.INSERTS)


def delivered(bus: Standing, file: Path, components: int) -> Delivered:
    """Send the drawing and wait for its report. Raises RuntimeError unless every symbol became a component."""
    partner = bus.trial.partner(BUREAU)
    partner.push(
        FEED, in_memory(_framed(0, NUMBERS[:1])), "image/vnd.dxf", "before"
    )  # client and worker stand: the clock runs
    partner.report("before", wait_s=REPORT_S)
    with highest_anonymous_mb(bus.worker) as highest:
        began_s = time.monotonic()
        partner.push(FEED, file_content(file), "image/vnd.dxf", "sheet")
        reported = partner.report("sheet")
        while reported.received is None and time.monotonic() - began_s < REPORT_S:
            time.sleep(LOOK_S)
            reported = partner.report("sheet")
        seconds = time.monotonic() - began_s
    counted = reported.received.document["report"] if reported.received else {}
    if counted.get("new") != components:
        raise RuntimeError(f"{reported.status} after {seconds:.0f} s with {counted.get('new')}, not {components:,} new")
    return Delivered(components, seconds, highest[0])


def _sheet(folder: Path, size: float) -> Path:
    path = folder / f"sheet-{size}.dxf"
    if not path.exists():
        path.write_bytes(_framed(size, NUMBERS))
    return path


def _framed(size: float, numbers: Sequence[str]) -> bytes:
    """The drawing with the numbers of its sheets of 250 m, as the feed wants them written on the frame."""
    drawing = dxf.drawn(size)
    for number in numbers:
        drawing.text("TK", number, (649_000.0, 3_306_000.0, 0.0))
    return drawing.octets()


def _ogr2ogr_s(source: Path, target: Path) -> float:
    """Seconds that GDAL takes to write the drawing to a GeoPackage, its codes as lists, its blocks unopened."""
    target.unlink(missing_ok=True)
    raw = {"DXF_INCLUDE_RAW_CODE_VALUES": "YES", "DXF_INLINE_BLOCKS": "FALSE"}
    command: list[str | Path] = [
        "ogr2ogr",
        "-q",
        "-f",
        "GPKG",
        target,
        source,
        "entities",
        "-a_srs",
        "EPSG:4549",
        "-skipfailures",
    ]
    began_s = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, **raw}, stderr=subprocess.DEVNULL)
    return time.monotonic() - began_s
