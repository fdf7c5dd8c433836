"""A made-up city of 20 km by 20 km, four districts and 40,000 unit grids, and the register of what stands in it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyproj
from numpy.typing import NDArray

from exchange.cli.trial import City
from samples import quarter

FEED: Final = "bench-register"
BUREAU: Final = "urban-management"
FEEDS: Final = (Path(__file__).parent / "feeds",)
SOUTH_WEST_DEG: Final = (121.4, 29.8)
CELL_DEG: Final = 0.001
CELLS: Final = 200  # along each side
DISTRICTS: Final = (("330203", "330205"), ("330212", "330206"))  # [south, north][west, east]
SWING_DEG: Final = 0.003  # of the districts' common borders, so that they are no straight lines
BORDER_POINTS: Final = 2_000
SEED: Final = 20_261_125

Numbers = NDArray[np.float64]


def city(folder: Path) -> City:
    """The city; its polygons are written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"districts": _districts(), "grid": _grid()}
    for name, polygons in files.items():
        features = [_feature(code, ring) for code, ring in polygons.items()]
        document = {"type": "FeatureCollection", "features": features}
        (folder / f"{name}.geojson").write_text(json.dumps(document), encoding="utf-8")
    (west, south), side = SOUTH_WEST_DEG, CELLS * CELL_DEG
    extent = (west, south, west + side, south + side)
    return City(extent, folder / "districts.geojson", folder / "grid.geojson", FEEDS)


def register(rows: int) -> pl.DataFrame:
    """The register as its bureau writes it, all text: ten classes, every key and place once. Always the same rows."""
    rng = np.random.default_rng(SEED)
    to_metres = pyproj.Transformer.from_crs("EPSG:4490", "EPSG:4549", always_xy=True)
    east, north = rng.uniform(0.5, CELLS - 0.5, (2, rows)) * CELL_DEG
    easting, northing = to_metres.transform(SOUTH_WEST_DEG[0] + east, SOUTH_WEST_DEG[1] + north)
    kinds = [one for one in quarter.KINDS if one.class_code < "0119" and one.census_word != "立杆"]
    kind = rng.integers(0, len(kinds), rows)
    streets = [f"{street}{number}号" for street in (*quarter.ACROSS, *quarter.UPWARD) for number in range(1, 400)]
    days = np.datetime64("2010-01-01") + rng.integers(0, 5_000, rows)
    columns = {
        "编号": pl.Series([f"B{number:08}" for number in range(rows)]),
        "类型": _chosen([one.census_word for one in kinds], kind),
        "X": _decimals(northing, 3),  # survey tables: X is north
        "Y": _decimals(easting, 3),
        "高程": _decimals(rng.uniform(1.5, 6, rows), 2),
        "道路": _chosen(streets, rng.integers(0, len(streets), rows)),
        "主管部门": _chosen([one.authority for one in kinds], kind),
        "权属单位": _chosen([one.owner for one in kinds], kind),
        "养护单位": _chosen([one.maintainer for one in kinds], kind),
        "状态": _chosen(["完好", "破损", "丢失"], rng.choice(3, rows, p=[0.97, 0.02, 0.01])),
        "初始日期": pl.Series(days).dt.strftime("%Y%m%d"),
        "数据来源": _chosen(["实测", "地形图"], rng.integers(0, 2, rows)),
        "备注": _chosen([None, "井盖与井座齐平", "周边无积水"], rng.choice(3, rows, p=[0.8, 0.1, 0.1])),
        "录入": _chosen(["甲", "乙", "丙"], rng.integers(0, 3, rows)),  # the feed does not read it
    }
    return pl.DataFrame(columns)


def told_again(rows: pl.DataFrame, time: int) -> pl.DataFrame:
    """The same rows shuffled, the column that the feed does not read altered: nothing is new in them."""
    return rows.sample(fraction=1.0, shuffle=True, seed=time).with_columns(pl.lit(f"第{time}次").alias("录入"))


def _chosen(words: Sequence[str | None], numbers: NDArray[np.int64]) -> pl.Series:
    return pl.Series(words).gather(numbers)


def _decimals(values: Numbers, places: int) -> pl.Series:
    return pl.Series([f"{value:.{places}f}" for value in values.tolist()])


def _districts() -> dict[str, NDArray[np.float64]]:
    """Rings of four districts that cover the city, with two winding borders across it."""
    middle, far = CELLS / 2 * CELL_DEG, CELLS * CELL_DEG
    along = np.linspace(0, far, BORDER_POINTS + 1)
    wave = middle + SWING_DEG * np.sin(along / far * 10 * np.pi)  # at both ends and in the middle no swing
    across, upward = np.column_stack([along, wave]), np.column_stack([wave, along])
    half = BORDER_POINTS // 2 + 1
    found = {}
    for north, pair in enumerate(DISTRICTS):
        for east, code in enumerate(pair):
            level = across[half - 1 :] if east else across[:half]
            rising = upward[half - 1 :] if north else upward[:half]
            corner = np.array([[far * east, far * north]])
            # From the corner along the level border to the middle, then along the rising one to the edge.
            inward = level[::-1] if east else level
            outward = rising if north else rising[::-1]
            found[code] = np.vstack([corner, inward, outward[1:], corner]) + SOUTH_WEST_DEG
    return found


def _grid() -> dict[str, NDArray[np.float64]]:
    """Rings of the unit grids; each is numbered in the district that its middle lies in."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    rings = {}
    for column in range(CELLS):
        for row in range(CELLS):
            division = DISTRICTS[row >= CELLS // 2][column >= CELLS // 2]
            code = f"{division}{column // 100 + 1:03}{column % 100 + 1:03}{row + 1:03}"
            rings[code] = SOUTH_WEST_DEG + CELL_DEG * (square + np.array([column, row]))
    return rings


def _feature(code: str, ring: NDArray[np.float64]) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [ring.round(7).tolist()]}
    return {"type": "Feature", "properties": {"code": code}, "geometry": geometry}
