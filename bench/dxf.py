"""A drawing to records: 80,000 entities of a made-up sheet, 20 MB of DXF (AC1015, GBK) with codes as XDATA.

Peer: GDAL by pyogrio with raw group codes and blocks kept, which is what it takes to see the codes. Both are counted
in entities of model space. ezdxf is in the note.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import ezdxf
import numpy as np
import pyogrio

from bench.figures import Figure, alternating, figure
from bench.servers import fresh
from connectors.formats import dxf, dxf_tags
from samples.drawing import Drawing
from security.message import Content, file_content

INSERTS, POLYLINES, TEXTS = 50_000, 20_000, 10_000
ENTITIES: Final = INSERTS + POLYLINES + TEXTS
CORNERS: Final = 8
SEED: Final = 500
CODES: Final = ("174100", "174200", "175200", "155210", "340101", "340118")
LAYERS: Final = ("GXYZ", "DLSS", "DLDW", "COMPONENT", "路灯", "雨水")


def measure(folder: Path) -> Figure:
    """dxf_entities_per_s over the sheet, read whole."""
    path = fresh(folder) / "sheet.dxf"
    path.write_bytes(sheet())
    content = file_content(path)
    pyogrio.set_gdal_config_options({"DXF_INCLUDE_RAW_CODE_VALUES": "YES", "DXF_INLINE_BLOCKS": "FALSE"})
    rates, peers = alternating(lambda _: _rate(lambda: _ours(content)), lambda _: _rate(lambda: _gdal(path)))
    scanned, library = _rate(lambda: _scanned(content)), _rate(lambda: len(ezdxf.readfile(path).modelspace()))
    note = (
        f"{INSERTS:,} INSERT with XDATA, {POLYLINES:,} LWPOLYLINE of {CORNERS} corners, {TEXTS:,} TEXT, "
        f"{content.size / 1e6:.0f} MB; scanning the tags alone {scanned:,.0f}/s; ezdxf readfile {library:,.0f}/s; "
        "peer: GDAL by pyogrio with raw codes; all in one process, the file in the page cache"
    )
    return figure("dxf_entities_per_s", rates, peers, "entities/s", note)


def sheet() -> bytes:
    """The drawing's octets, the same each time."""
    rng, drawing = np.random.default_rng(SEED), Drawing()
    places = (np.array([649_000, 3_306_000]) + rng.random((ENTITIES, 2)) * 1_000).tolist()
    for at, (x, y) in enumerate(places):
        layer = LAYERS[at % len(LAYERS)]
        if at < INSERTS:
            drawing.insert(layer, f"gc{at % 40}", (x, y, 3.5), code=CODES[at % len(CODES)], rotation=at % 360)
        elif at < INSERTS + POLYLINES:
            corners = [(x + corner, y + corner % 3) for corner in range(CORNERS)]
            drawing.polyline(layer, corners, closed=at % 2 == 0, code="141121")
        else:
            drawing.text(layer, f"雨水检修井{at}", (x, y, 0.0))
    return drawing.octets()


def _rate(read: Callable[[], int]) -> float:
    """Entities a second. Raises AssertionError when a reader finds more or fewer than there are."""
    began_s = time.perf_counter()
    found = read()
    took_s = time.perf_counter() - began_s
    assert found == ENTITIES, found
    return ENTITIES / took_s


def _ours(content: Content) -> int:
    return sum(batch.frame.height for batch in dxf.decode([content], {}))


def _gdal(path: Path) -> int:
    _, _, geometry, _ = pyogrio.raw.read(path, layer="entities")
    return len(geometry)


def _scanned(content: Content) -> int:
    for _ in dxf_tags.scan(content, None):
        pass
    return ENTITIES
