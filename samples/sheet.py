"""The quarter's 1:500 map as a planning bureau draws it in South CASS: which symbol is which thing, and what is none.

CGCS2000, 3-degree plane of the central meridian 120 E (EPSG:4549), as in the census; x is east. Ordinary symbols carry
codes of the topographic map, components 34 and their class; a tenth has no XDATA and is known by its block, and some
lamps and bins by nothing but their layer. The names of the ordinary blocks are made up.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pyproj

from samples import quarter
from samples.drawing import Drawing

CRS: Final = "EPSG:4549"
ERROR_M: Final = 0.1  # no symbol is farther off than this
DRAWN: Final = 0.94  # of what stands in the quarter
NUMBERED: Final = 0.7  # of the covers that a register knows have their number beside them
MIRRORED: Final = 6  # symbols drawn from below
TAG: Final = "编号"  # the ATTRIB of a hydrant
SHEET_M: Final = 250  # a side of a sheet of 50 cm
FRAME: Final = "TK"  # 图廓, the layer of what surrounds a sheet
_STREAM: Final = 500  # a stream of its own, so that what was drawn before stays as it was


class Sign(NamedTuple):
    """How the map draws a class: code, layer, and the classes that the code may stand for."""

    code: str
    layer: str
    classes: tuple[str, ...]


SIGNS: Final = {
    "0101": (Sign("174100", "GXYZ", ("0101",)),),
    "0102": (Sign("174200", "GXYZ", ("0102", "0103")),),
    "0103": (Sign("174200", "GXYZ", ("0102", "0103")),),
    "0104": (Sign("175101", "GXYZ", ("0104",)), Sign("175102", "GXYZ", ("0104",))),
    "0105": (Sign("174700", "GXYZ", ("0105",)),),
    "0107": (Sign("174601", "GXYZ", ("0107",)), Sign("174602", "GXYZ", ("0107",))),
    "0113": (Sign("175200", "GXYZ", ("0113",)),),
    "0114": (Sign("174900", "GXYZ", ("0114",)),),
    "0116": (Sign("171900", "GXYZ", ("0115", "0116")),),
    "0117": (Sign("171300", "GXYZ", ("0117",)),),
    "0118": (Sign("155210", "DLDW", ("0118",)),),
    "0209": (Sign("165603", "DLSS", ("0209", "0213")),),
    "0210": (Sign("165631", "DLSS", ("0210",)),),
    "0305": (Sign("155500", "DLDW", ("0305",)),),
}
BLOCKS: Final = {"165631": "gc298"}  # else gc and the code
LAYERS: Final = {"0118": "路灯", "0305": "果皮箱"}  # telling layers, with symbols that tell nothing
COVERS: Final = ("0101", "0102", "0103", "0105", "0106", "0107", "0114")
HYDRANT: Final = "0113"
# Objects whose code is on the skeleton (layer ASSIST); the parts that are drawn have the code with -1 or -2.
SKELETONS: Final = (
    ("154500", "0501", "DLDW", 1, 8),
    ("171600", "0134", "GXYZ", 2, 4),
)  # code, class, layer, parts, many
# Symbols that are no component, the most frequent first: code or "", block, layer, how many.
UNMAPPED: Final = (
    ("202101", "gc200", "GCD", 24),
    ("131100", "gc113", "KZD", 9),
    ("156100", "gc156100", "DLDW", 5),
    ("155900", "gc155900", "DLDW", 4),
    ("", "BZ01", "0", 3),
)


class Symbol(msgspec.Struct, frozen=True):
    """A symbol of the map that stands for a component.

    by:        what tells its class: `code` (XDATA), `block`, or `layer`
    classes:   those that this may stand for; class_code is the true one of them
    census, water, power: the thing's key in the register, where an accepted record speaks of it
    number:    the text beside it or in its attribute; "" without one
    """

    by: str
    classes: tuple[str, ...]
    class_code: str
    census: str | None = None
    water: str | None = None
    power: str | None = None
    number: str = ""


class Placed(NamedTuple):
    """A symbol as it is drawn, in metres, and what it stands for."""

    sign: Sign
    block: str
    place: tuple[float, float, float]
    symbol: Symbol


class Sheet(msgspec.Struct, frozen=True):
    """What is drawn. symbols and only_map name a symbol by its handle.

    entities:  of model space, each exactly once in symbols, ignored or unmapped
    only_map:  symbols of things that no accepted record of a register speaks of
    mirrored:  symbols drawn from below (extrusion 0,0,-1)
    ignored:   how many entities are no symbol of their own: `text`, `outline` (LINE, LWPOLYLINE), `drawn_part` (a code
               with -1 or -2, whose skeleton is the object)
    unmapped:  code (or block, without code) and count of symbols that stand for no component, the largest first
    layers:    entities by layer
    numbers:   图幅编号 of the 250 m sheets that symbols of components stand on, written beside them in the layer TK
    """

    entities: int
    symbols: dict[str, Symbol]
    only_map: list[str]
    mirrored: list[str]
    ignored: dict[str, int]
    unmapped: list[tuple[str, int]]
    layers: dict[str, int]
    numbers: list[str]


class _Map:
    """The drawing, with a tally of what was drawn."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.drawing = rng, Drawing()
        self.symbols: dict[str, Symbol] = {}
        self.mirrored: list[str] = []
        self.ignored = {"text": 0, "outline": 0, "drawn_part": 0}
        self.layers: dict[str, int] = {}
        self.placed: list[Placed] = []

    def at(self, layer: str) -> str:
        """The layer, with one entity more."""
        self.layers[layer] = self.layers.get(layer, 0) + 1
        return layer

    def ignore(self, reason: str) -> None:
        """One entity more that is no symbol of its own."""
        self.ignored[reason] += 1


def draw(things: pl.DataFrame, told: dict[str, pl.DataFrame], seed: int) -> tuple[Drawing, Sheet, list[Placed]]:
    """The map, the truth about it, and the symbols of components as they are drawn.

    things: all that stands there; told: the accepted records of census, water and power, with `thing` and `key`
    """
    sheet = _Map(np.random.default_rng([seed, _STREAM]))
    _streets(sheet)
    for name, frame in told.items():
        keys = frame.unique("thing", keep="first").select("thing", pl.col("key").alias(name))
        things = things.join(keys, on="thing", how="left", maintain_order="left")
    _things(sheet, things.filter(pl.Series(sheet.rng.random(things.height) < DRAWN)))
    _skeletons(sheet)
    unmapped = _unmapped(sheet)
    numbers = _numbers(sheet)
    only_map = [handle for handle, s in sheet.symbols.items() if not (s.census or s.water or s.power)]
    entities = sum(sheet.layers.values())
    said = (only_map, sheet.mirrored, sheet.ignored, unmapped, sheet.layers, numbers)
    return sheet.drawing, Sheet(entities, sheet.symbols, *said), sheet.placed


def _plane(u: list[float], v: list[float]) -> list[tuple[float, float]]:
    """Easting and northing of lattice places."""
    longitude, latitude = quarter.degrees(np.array(u), np.array(v))
    return _projected(longitude.tolist(), latitude.tolist())


def _projected(longitude_deg: list[float], latitude_deg: list[float]) -> list[tuple[float, float]]:
    to_plane = pyproj.Transformer.from_crs("EPSG:4490", CRS, always_xy=True)
    eastings, northings = to_plane.transform(longitude_deg, latitude_deg)
    return list(zip(eastings, northings, strict=True))


# What is no component


def _streets(sheet: _Map) -> None:
    """Kerbs and names of the streets, and houses behind them."""
    for number, name in enumerate(quarter.ACROSS):
        axis = 2 * number + 0.5
        for side in (-0.08, 0.08):
            kerb = [axis + side] * (quarter.COLUMNS + 1)
            corners = _plane([float(u) for u in range(quarter.COLUMNS + 1)], kerb)
            sheet.drawing.polyline(sheet.at("DLSS"), corners, closed=False, code="163100")
            sheet.ignore("outline")
        _name(sheet, name, 3.2, axis)
        _houses(sheet, axis + 0.6)
    for number, name in enumerate(quarter.UPWARD):
        axis = 2 * number + 0.5
        for side in (-0.08, 0.08):
            sheet.drawing.line(sheet.at("DLSS"), _plane([axis + side] * 2, [0.0, float(quarter.ROWS)]), code="163100")
            sheet.ignore("outline")
        _name(sheet, name, axis, 3.2)


def _name(sheet: _Map, name: str, u: float, v: float) -> None:
    [(x, y)] = _plane([u], [v])
    sheet.drawing.text(sheet.at("ZJ"), name, (x, y, 0.0))
    sheet.ignore("text")


def _houses(sheet: _Map, v: float) -> None:
    for u in np.arange(0.8, quarter.COLUMNS - 0.5, 0.5).tolist():
        corners = _plane([u, u + 0.25, u + 0.25, u], [v, v, v + 0.15, v + 0.15])
        sheet.drawing.polyline(sheet.at("JMD"), corners, closed=True, code="141121")
        sheet.ignore("outline")
        if sheet.rng.random() < 0.5:
            _name(sheet, f"砼{sheet.rng.integers(1, 8)}", u + 0.1, v + 0.05)


def _unmapped(sheet: _Map) -> list[tuple[str, int]]:
    for code, block, layer, many in UNMAPPED:
        u, v = sheet.rng.random(many) * quarter.COLUMNS, sheet.rng.random(many) * quarter.ROWS
        for x, y in _plane(u.tolist(), v.tolist()):
            sheet.drawing.insert(sheet.at(layer), block, (x, y, 3.1), code=code)
    return [(code or block, many) for code, block, _, many in UNMAPPED]


def corner_of(place: tuple[float, float, float]) -> tuple[int, int]:
    """Northing and easting of the south-west corner of the 250 m sheet that a place lies on."""
    return int(place[1] // SHEET_M) * SHEET_M, int(place[0] // SHEET_M) * SHEET_M


def number_of(corner: tuple[int, int]) -> str:
    """图幅编号: a sheet's corner in kilometres, north first."""
    return "-".join(f"{axis / 1000:.2f}" for axis in corner)


def write_number(drawing: Drawing, corner: tuple[int, int]) -> None:
    """The number of a sheet above the middle of its frame."""
    drawing.text(FRAME, number_of(corner), (corner[1] + SHEET_M / 2, corner[0] + SHEET_M + 6.0, 0.0))


def _numbers(sheet: _Map) -> list[str]:
    """The number of each sheet that a component's symbol stands on."""
    found = sorted({corner_of(placed.place) for placed in sheet.placed})
    for corner in found:
        sheet.at(FRAME)
        write_number(sheet.drawing, corner)
        sheet.ignore("text")
    return [number_of(corner) for corner in found]


# What is one


def _things(sheet: _Map, things: pl.DataFrame) -> None:
    """A symbol for each thing, off by up to ERROR_M, and its number beside it."""
    rng, count = sheet.rng, things.height
    off_m, bearing = ERROR_M * np.sqrt(rng.random(count)), 2 * np.pi * rng.random(count)
    styles, which, heights = rng.random(count), rng.random(count), 2.5 + rng.random(count) * 2
    numbered, mirrored = rng.random(count) < NUMBERED, set(rng.permutation(count)[:MIRRORED].tolist())
    places = _projected(things["longitude_deg"].to_list(), things["latitude_deg"].to_list())
    for at, thing in enumerate(things.iter_rows(named=True)):
        x, y = places[at][0] + off_m[at] * np.sin(bearing[at]), places[at][1] + off_m[at] * np.cos(bearing[at])
        place = (float(x), float(y), float(heights[at]))
        class_code = thing["class_code"]
        wears_number = numbered[at] and class_code in (*COVERS, HYDRANT)
        number = (thing["census"] or thing["water"] or thing["power"] or "") if wears_number else ""
        sign, block, by = _style(class_code, styles[at], which[at])
        handle = sheet.drawing.insert(
            sheet.at(sign.layer),
            block,
            place,
            code=sign.code,
            attributes={TAG: number} if number and class_code == HYDRANT else None,
            mirrored=at in mirrored,
        )
        if at in mirrored:
            sheet.mirrored.append(handle)
        keys = (thing["census"], thing["water"], thing["power"])
        sheet.symbols[handle] = Symbol(by, sign.classes, class_code, *keys, number)
        sheet.placed.append(Placed(sign, block, place, sheet.symbols[handle]))
        if number and class_code != HYDRANT:
            sheet.drawing.text(sheet.at("ZJ"), number, (place[0] + 0.6, place[1] + 0.6, 0.0))
            sheet.ignore("text")


def _style(class_code: str, style: float, which: float) -> tuple[Sign, str, str]:
    """Sign, block and what tells the class: half by the map's own codes, a quarter by 34-codes, then without XDATA."""
    own = (class_code,)
    if style >= 0.9 and class_code in LAYERS:
        return Sign("", LAYERS[class_code], own), "kh", "layer"
    if 0.8 <= style < 0.9:
        return Sign("", "COMPONENT", own), f"gcbj{class_code}", "block"
    if 0.55 <= style < 0.8 or class_code not in SIGNS:
        layer = "DLSS" if class_code == "0104" else "COMPONENT"  # as CASS has it
        return Sign(f"34{class_code}", layer, own), f"gcbj{class_code}", "code"
    signs = SIGNS[class_code]
    sign = signs[int(which * len(signs))]
    return sign, BLOCKS.get(sign.code, f"gc{sign.code}"), "code"


def _skeletons(sheet: _Map) -> None:
    """Notice boards and pole transformers, which only the map knows: object on ASSIST, drawn parts elsewhere."""
    for code, class_code, layer, parts, many in SKELETONS:
        u, v = (
            sheet.rng.integers(1, 5, many) * 2 - 0.4,
            sheet.rng.integers(1, 9, many) + 0.3 + sheet.rng.random(many) * 0.4,
        )
        for x, y in _plane(u.tolist(), v.tolist()):
            handle = sheet.drawing.insert(sheet.at("ASSIST"), f"gc{code}", (x, y, 3.0), code=code)
            sheet.symbols[handle] = Symbol("code", (class_code,), class_code)
            own = Sign(code, "ASSIST", (class_code,))
            sheet.placed.append(Placed(own, f"gc{code}", (x, y, 3.0), sheet.symbols[handle]))
            for part in range(1, parts + 1):
                sheet.drawing.insert(sheet.at(layer), f"gc{code}", (x, y, 3.0), code=f"{code}-{part}")
                sheet.ignore("drawn_part")
