"""The made-up quarter itself: two districts, their unit grids, and what truly stands in its streets.

The district codes are labels; their outlines, the streets and the units are invented. Everything lies on a lattice of
cells of about 100 m by 100 m (万米单元网格), leaning a little so that no edge is a meridian. Nothing stands within 2 m
of a cell's edge, so that no survey error moves a component into another grid.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

WEST, EAST = "330203", "330205"
COLUMNS, ROWS = 12, 10
BORDER: Final = COLUMNS // 2  # the column of cells with which the eastern district begins
SOUTH_WEST_DEG: Final = (121.5440, 29.8650)
CELL_DEG: Final = (0.00104, 0.0009)
CELL_M: Final = (100.4, 99.8)  # the same, on the ground at this latitude
LEAN_DEG: Final = np.array([0, 10, 20, 25, 30, 30, 25, 20, 15, 10, 0]) * 1e-5  # each row of corners, to the east
EDGE_M: Final = 2.0

TWINS, TWINS_KNOWN_TO_BOTH = 20, 12

EXTENT_DEG: Final = (121.54, 29.862, 121.56, 29.877)  # west, south, east, north: the city for the placing step


class Kind(NamedTuple):
    """A class as it stands along a street: one each spacing_m, offset_m to the side of the axis."""

    class_code: str
    census_word: str
    water_word: str  # empty: not in the water bureau's register
    spacing_m: float
    offset_m: float
    authority: str
    owner: str
    maintainer: str


WATER = ("样城水务局", "样城自来水公司", "样城自来水公司")
DRAINAGE = ("样城水务局", "样城排水公司", "样城市政养护所")
LIGHTING = ("样城城市管理局", "样城路灯管理所", "样城路灯管理所")
POWER = ("样城供电局", "样城供电公司", "样城供电公司")
TELECOM = ("样城通信管理处", "样城通信公司", "样城通信公司")
STREET = ("样城城市管理局", "样城市政养护所", "样城市政养护所")
CLEANING = ("样城城市管理局", "样城环境卫生所", "样城环境卫生所")
TRAFFIC = ("样城公安局", "样城交通警察大队", "样城交通设施养护队")

KINDS: Final = (
    Kind("0101", "上水井盖", "给水井", 60, 5.0, *WATER),
    Kind("0102", "污水井盖", "污水检查井", 40, 0.0, *DRAINAGE),
    Kind("0103", "雨水井盖", "雨水检查井", 40, -3.0, *DRAINAGE),
    Kind("0104", "雨水箅子", "", 60, 6.5, *STREET),
    Kind("0105", "电力井盖", "", 90, -7.0, *POWER),
    Kind("0106", "路灯井盖", "", 150, 8.0, *LIGHTING),
    Kind("0107", "通讯井盖", "", 80, -5.5, *TELECOM),
    Kind("0113", "消火栓", "室外消火栓", 120, -8.5, *WATER),
    Kind("0116", "配电箱", "", 300, 10.0, *POWER),
    Kind("0117", "立杆", "", 200, -9.5, *STREET),
    Kind("0118", "路灯", "", 30, 9.0, *LIGHTING),
    Kind("0209", "交通标志牌", "", 150, 10.5, *TRAFFIC),
    Kind("0210", "交通信号灯", "", 240, -10.0, *TRAFFIC),
    Kind("0305", "果皮箱", "", 110, -10.5, *CLEANING),
)
OWNERLESS: Final = Kind("0114", "无主井盖", "", 900, 2.0, "", "", "")

# Streets run along the middle of every second row and column of cells. 䶮 is in GB18030 and not in GBK.
ACROSS: Final = ("䶮溪路", "望江路", "学前街", "横塘路", "南苑路")
UPWARD: Final = ("东津街", "石埠街", "染坊街", "稻香街", "仓前街", "渔浦街")


def degrees(u: Numbers, v: Numbers) -> tuple[Numbers, Numbers]:
    """Longitude and latitude (EPSG:4490) of lattice places: u cells to the east, v cells to the north."""
    lean = np.interp(v, np.arange(ROWS + 1), LEAN_DEG)
    return SOUTH_WEST_DEG[0] + u * CELL_DEG[0] + lean, SOUTH_WEST_DEG[1] + v * CELL_DEG[1]


def division(column: int, border: int = BORDER) -> str:
    """The district of a column of cells: half the quarter each, until the border between them is moved."""
    return WEST if column < border else EAST


def grid_code(column: int, row: int, border: int = BORDER) -> str:
    """District 6, street 3, community 3, sequence 3: each district has two streets of two communities of 15 grids,
    numbered from west to east and from north to south. Grids that come to the east by a border that is moved make a
    third community; no code is used again."""
    across, down = column % 6, ROWS - 1 - row
    if division(column, border) != division(column):
        return f"{EAST}{1 + down // 5:03}003{1 + down % 5 * 6 + across:03}"
    return f"{division(column)}{1 + down // 5:03}{1 + across // 3:03}{1 + down % 5 * 3 + across % 3:03}"


def _polygon(code: str, corners: list[tuple[int, int]]) -> dict[str, Any]:
    u, v = np.array(corners + corners[:1], dtype=np.float64).T
    ring = [[round(x, 7), round(y, 7)] for x, y in zip(*(axis.tolist() for axis in degrees(u, v)), strict=True)]
    return {
        "type": "Feature",
        "properties": {"code": code},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def grids(border: int = BORDER) -> dict[str, Any]:
    """The unit grids as a GeoJSON FeatureCollection in EPSG:4490; they tile the districts without gap or overlap.

    border: the column of cells with which the eastern district begins
    """
    cells = [(i, j) for i in range(COLUMNS) for j in range(ROWS)]
    squares = [_polygon(grid_code(i, j, border), [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]) for i, j in cells]
    return {"type": "FeatureCollection", "features": squares}


def districts(border: int = BORDER) -> dict[str, Any]:
    """The two districts, with the corners of the grids on every edge, so that the edge they share is the same line."""

    def outline(first: int, last: int) -> list[tuple[int, int]]:
        south, north = [(i, 0) for i in range(first, last)], [(i, ROWS) for i in range(last, first, -1)]
        return south + [(last, j) for j in range(ROWS)] + north + [(first, j) for j in range(ROWS, 0, -1)]

    halves = ((WEST, 0, border), (EAST, border, COLUMNS))
    return {"type": "FeatureCollection", "features": [_polygon(code, outline(a, b)) for code, a, b in halves]}


def _along(kind: Kind, name: str, axis: float, length_m: float, rng: np.random.Generator) -> pl.DataFrame:
    """One kind along one street: metres along it, metres to the side of its axis, which is `axis` cells in."""
    along_m = np.arange(kind.spacing_m / 2, length_m, kind.spacing_m)
    along_m = along_m + (rng.random(along_m.size) - 0.5) * kind.spacing_m / 3
    side_m = kind.offset_m + rng.random(along_m.size) - 0.5
    return pl.DataFrame({"along_m": along_m, "side_m": side_m}).with_columns(
        axis=pl.lit(axis), place=pl.lit(name), class_code=pl.lit(kind.class_code)
    )


def _twins(things: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """A second cover of the same class beside 20 water and sewer covers.

    12 stand 1.8 to 2.2 m off, and both bureaus know both; 8 stand 2.4 to 2.8 m off, and each bureau knows only one of
    the two, so that nothing may be joined there.
    """
    covers = np.flatnonzero(things["class_code"].is_in(["0101", "0102"]).to_numpy())
    chosen = np.sort(rng.permutation(covers)[:TWINS])
    both = np.arange(TWINS) < TWINS_KNOWN_TO_BOTH
    apart_m = np.where(both, 1.8, 2.4) + rng.random(TWINS) * 0.4
    twin = pl.Series("twin", [None] * things.height, dtype=pl.Int64).scatter(chosen, np.arange(TWINS))
    seconds = things[chosen].with_columns(
        along_m=pl.col("along_m") + pl.Series(apart_m), twin=pl.int_range(TWINS), second=pl.lit(True)
    )
    return pl.concat([things.with_columns(twin, second=pl.lit(False)), seconds])


def components(rng: np.random.Generator) -> pl.DataFrame:
    """What truly stands in the quarter, one row a thing.

    Columns: thing, class_code, place, longitude_deg, latitude_deg, grid_code, division_code, twin (the pair it belongs
    to), second (the later of the pair).
    """
    kinds = (*KINDS, OWNERLESS)
    across = [_along(k, n, 2 * i + 0.5, COLUMNS * CELL_M[0], rng) for k in kinds for i, n in enumerate(ACROSS)]
    upward = [_along(k, n, 2 * i + 0.5, ROWS * CELL_M[1], rng) for k in kinds for i, n in enumerate(UPWARD)]
    # A street that runs north leaves the crossings to the street that runs east.
    crossing_m = (pl.col("along_m") / CELL_M[1] - 0.5) % 2 * CELL_M[1]
    things = pl.concat(
        [
            pl.concat(across).with_columns(
                u=pl.col("along_m") / CELL_M[0], v=pl.col("axis") + pl.col("side_m") / CELL_M[1], east=pl.lit(True)
            ),
            pl.concat(upward)
            .filter(crossing_m.is_between(15, 2 * CELL_M[1] - 15))
            .with_columns(
                u=pl.col("axis") + pl.col("side_m") / CELL_M[0], v=pl.col("along_m") / CELL_M[1], east=pl.lit(False)
            ),
        ]
    )
    things = _twins(things, rng).with_columns(
        u=pl.when("east").then(pl.col("along_m") / CELL_M[0]).otherwise("u"),
        v=pl.when("east").then("v").otherwise(pl.col("along_m") / CELL_M[1]),
    )
    inside = [
        (pl.col(axis) % 1 * size_m).is_between(EDGE_M, size_m - EDGE_M) & pl.col(axis).is_between(0, cells)
        for axis, size_m, cells in (("u", CELL_M[0], COLUMNS), ("v", CELL_M[1], ROWS))
    ]
    things = things.filter(*inside)
    longitude, latitude = degrees(things["u"].to_numpy(), things["v"].to_numpy())
    columns, rows = things["u"].floor().cast(pl.Int64).to_list(), things["v"].floor().cast(pl.Int64).to_list()
    return things.select(
        pl.int_range(pl.len()).alias("thing"),
        "class_code",
        "place",
        pl.Series("longitude_deg", longitude),
        pl.Series("latitude_deg", latitude),
        pl.Series("grid_code", [grid_code(i, j) for i, j in zip(columns, rows, strict=True)]),
        pl.Series("division_code", [division(i) for i in columns]),
        "twin",
        "second",
    )
