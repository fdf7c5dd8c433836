"""A drawing to records: a made-up sheet of 80,000 entities, 20 MB of DXF (AC1015, GBK) with codes as XDATA, and of ten
times as many.

Peer: GDAL by pyogrio with raw group codes and blocks kept, which is what it takes to see the codes. Both are counted
in entities of model space. ezdxf and GDAL without the codes are in the note. Memory is of a process of its own, whose
frames go as they come: `python -m bench.dxf FILE` prints it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import ezdxf
import numpy as np
import pyogrio

from bench.figures import Figure, alternating, figure
from bench.memory import anonymous_mb, highest_anonymous_mb
from bench.servers import fresh
from connectors.formats import dxf, dxf_tags
from samples.drawing import Drawing
from security.message import Content, file_content

INSERTS: Final = 50_000
POLYLINES: Final = 20_000
TEXTS: Final = 10_000
ENTITIES: Final = INSERTS + POLYLINES + TEXTS
CORNERS: Final = 8
SEED: Final = 500
CODES: Final = ("174100", "174200", "175200", "155210", "340101", "340118")
LAYERS: Final = ("GXYZ", "DLSS", "DLDW", "COMPONENT", "路灯", "雨水")
WHAT: Final = f"INSERT with XDATA, LWPOLYLINE of {CORNERS} corners and TEXT as 5:2:1"
WHERE: Final = "peer: GDAL by pyogrio with raw codes; all in one process, the file in the page cache"


def measure(folder: Path) -> Figure:
    """dxf_entities_per_s over the sheet, read whole."""
    path, content = _written(folder, 1)
    rates, peers = alternating(lambda _: _rate(lambda: _ours(content)), lambda _: _rate(lambda: _gdal(path)))
    scanned, library = _rate(lambda: _scanned(content)), _rate(lambda: len(ezdxf.readfile(path).modelspace()))
    note = (
        f"{content.size / 1e6:.0f} MB, {WHAT}; scanning the tags alone {scanned:,.0f}/s; ezdxf readfile "
        f"{library:,.0f}/s; GDAL without codes {_rate(lambda: _gdal(path, codes=False)):,.0f}/s; {WHERE}"
    )
    return figure("dxf_entities_per_s", rates, peers, "entities/s", note)


def measure_large(folder: Path) -> Figure:
    """dxf_200mb_entities_per_s: ten sheets in one, and how speed and memory grow from a tenth of a sheet to it."""
    path, content = _written(folder, 10)
    count = 10 * ENTITIES
    rates, peers = alternating(
        lambda _: _rate(lambda: _ours(content), count), lambda _: _rate(lambda: _gdal(path), count)
    )
    plain = _rate(lambda: _gdal(path, codes=False), count)
    grown = []
    for size in (0.1, 1, 10):
        path, content = _written(folder, size)
        best = max(_rate(partial(_ours, content), round(size * ENTITIES)) for _ in range(3))
        mb = subprocess.run(
            [sys.executable, "-m", "bench.dxf", path], capture_output=True, text=True, check=True
        ).stdout
        grown.append(f"{content.size / 1e6:.0f} MB {best:,.0f}/s and {mb.strip()} MB")
    note = (
        f"{content.size / 1e6:.0f} MB, {WHAT}; best of three, and the most anonymous memory that decoding takes: "
        f"{', '.join(grown)}; GDAL without codes {plain:,.0f}/s; {WHERE}"
    )
    return figure("dxf_200mb_entities_per_s", rates, peers, "entities/s", note)


def sheet(size: float = 1) -> bytes:
    """The drawing's octets, the same each time."""
    return drawn(size).octets()


def drawn(size: float = 1) -> Drawing:
    """The drawing, on a square kilometre. size: how many sheets of 80,000 entities, on one another."""
    rng, drawing = np.random.default_rng(SEED), Drawing()
    inserts, polylines, texts = (round(size * count) for count in (INSERTS, POLYLINES, TEXTS))
    places = (np.array([649_000, 3_306_000]) + rng.random((inserts + polylines + texts, 2)) * 1_000).tolist()
    for at, (x, y) in enumerate(places):
        layer = LAYERS[at % len(LAYERS)]
        if at < inserts:
            drawing.insert(layer, f"gc{at % 40}", (x, y, 3.5), code=CODES[at % len(CODES)], rotation=at % 360)
        elif at < inserts + polylines:
            corners = [(x + corner, y + corner % 3) for corner in range(CORNERS)]
            drawing.polyline(layer, corners, closed=at % 2 == 0, code="141121")
        else:
            drawing.text(layer, f"雨水检修井{at}", (x, y, 0.0))
    return drawing


def _written(folder: Path, size: float) -> tuple[Path, Content]:
    path = fresh(folder) / "sheet.dxf"
    path.write_bytes(sheet(size))
    return path, file_content(path)


def _rate(read: Callable[[], int], count: int = ENTITIES) -> float:
    """Entities a second. Raises AssertionError when a reader finds more or fewer than there are."""
    began_s = time.perf_counter()
    found = read()
    took_s = time.perf_counter() - began_s
    assert found == count, found
    return count / took_s


def _ours(content: Content) -> int:
    return sum(batch.frame.height for batch in dxf.decode([content], {}))


def _gdal(path: Path, *, codes: bool = True) -> int:
    raw = {"DXF_INCLUDE_RAW_CODE_VALUES": "YES" if codes else "NO", "DXF_INLINE_BLOCKS": "FALSE" if codes else "TRUE"}
    pyogrio.set_gdal_config_options(raw)
    _, _, geometry, _ = pyogrio.raw.read(path, layer="entities")
    return len(geometry)


def _scanned(content: Content) -> int:
    for _ in dxf_tags.scan(content, None):
        pass
    return ENTITIES


def _most_mb(path: Path) -> float:
    """The most anonymous memory that this process holds while it decodes, beyond what it held before."""
    before = anonymous_mb(os.getpid())
    with highest_anonymous_mb(os.getpid(), sample_s=0.002) as highest:
        _ours(file_content(path))
    return highest[0] - before


if __name__ == "__main__":
    print(f"{_most_mb(Path(sys.argv[1])):.0f}")
