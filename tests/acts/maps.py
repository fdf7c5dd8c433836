"""Sheets of a made-up map as DXF, and a feed that comes by sheets, for tests."""

from typing import Any, Final

from samples.drawing import Drawing

MAP: Final = "made-up-map"
WEST, EAST = "3307.00-649.50", "3307.00-649.75"  # two sheets beside one another
X, Y, SEAM = 649_500.0, 3_307_000.0, 649_750.0
COVER, LAMP = "gcbj0101", "gcbj0118"
FEED_OF_MAP: Final = f"""
id = "{MAP}"
title = "Map"
title_zh = "地形图"
bureau = "made-up"
format = "dxf"
content = "snapshot"
extent = "sheet"
gone_limit_percent = 60
crs = "EPSG:4549"
accuracy = 0.25

[fields]
source_key = {{ from = "key" }}
class_code = {{ from = ["code", "block"], lookup = ["cass", "cass_blocks"] }}
easting_m  = {{ from = "x", parse = "metres" }}
northing_m = {{ from = "y", parse = "metres" }}
name       = {{ from = "rotation" }}

[sheet]
size   = "50x50"
from   = "text"
among  = "layer"
values = ["TK"]

[[ignore]]
rule = "lettering"
title = "Lettering"
title_zh = "注记"
from = "entity"
values = ["TEXT", "LINE"]
"""
Thing = tuple[str, float, float]  # block, metres to the east of X and to the north of Y


def a_sheet(number: str, *things: Thing, skip: int = 0, turned: dict[int, float] | None = None, **_: Any) -> bytes:
    """A drawing of things. number: written above the frame, "" for none; skip: handles left out before the first;
    turned: by its place in the list, how far a symbol is turned."""
    drawing = Drawing()
    for _n in range(skip):
        drawing.line("DLSS", [(X + 100, Y + 100), (X + 110, Y + 110)])
    for at, (block, east, north) in enumerate(things):
        drawing.insert("GXYZ", block, (X + east, Y + north, 3.0), rotation=(turned or {}).get(at, 0.0))
    if number:
        drawing.text("TK", number, (X + 125, Y + 256, 0.0))
    return drawing.octets()
