"""Ground distances and the 100 m cells that the store is indexed by. Degrees of CGCS2000 throughout."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CELLS_PER_DEGREE: Final = 1000  # 111 m from south to north; 66 m from west to east at 53.5°N, China's northern end
ROW: Final = 1_000_000  # cells of one row lie side by side: cell = row * ROW + column
TILES_PER_DEGREE: Final = 50  # 2 km: what batches lock that may join the same things
REACH_M: Final = 30.0  # less than half a cell everywhere in China: what lies so near is in one of at most four cells


def metres_per_degree(latitude_deg: Numbers) -> tuple[Numbers, Numbers]:
    """Metres that a degree spans to the east and to the north at a latitude; the ellipsoid's series."""
    angle = np.radians(latitude_deg)
    east = 111412.84 * np.cos(angle) - 93.5 * np.cos(3 * angle) + 0.118 * np.cos(5 * angle)
    north = 111132.92 - 559.82 * np.cos(2 * angle) + 1.175 * np.cos(4 * angle)
    return east, north


def distance_m(longitude_1: Numbers, latitude_1: Numbers, longitude_2: Numbers, latitude_2: Numbers) -> Numbers:
    """Metres on the ground between places less than a kilometre apart."""
    east, north = metres_per_degree((latitude_1 + latitude_2) / 2)
    return np.hypot((longitude_2 - longitude_1) * east, (latitude_2 - latitude_1) * north)


def cell(longitude_deg: pl.Expr, latitude_deg: pl.Expr, per_degree: int = CELLS_PER_DEGREE) -> pl.Expr:
    """The cell of a place, Int64; of those that the store is indexed by, or of smaller ones, `per_degree` of them."""
    row, column = ((axis * per_degree).floor().cast(pl.Int64) for axis in (latitude_deg, longitude_deg))
    return row * (ROW // CELLS_PER_DEGREE * per_degree) + column


def cells_in_reach(places: pl.DataFrame, reach_m: float = REACH_M, per_degree: int = CELLS_PER_DEGREE) -> pl.DataFrame:
    """place (row of places, UInt32), cell: the one to four cells within reach_m, at most REACH_M, of each place.

    places: longitude_deg, latitude_deg; per_degree: as `cell` has it, of cells no narrower than twice the reach
    """
    reach = [min(reach_m, REACH_M) / scale for scale in metres_per_degree(places["latitude_deg"].to_numpy())]
    around = places.select("longitude_deg", "latitude_deg", east=pl.Series(reach[0]), north=pl.Series(reach[1]))
    corners = around.with_row_index("place").select(
        "place",
        *(
            cell(
                pl.col("longitude_deg") + x * pl.col("east"), pl.col("latitude_deg") + y * pl.col("north"), per_degree
            ).alias(name)
            for name, x, y in (("sw", -1, -1), ("se", 1, -1), ("nw", -1, 1), ("ne", 1, 1))
        ),
    )
    wider, higher = pl.col("se") != pl.col("sw"), pl.col("nw") != pl.col("sw")
    parts = (("sw", pl.lit(True)), ("se", wider), ("nw", higher), ("ne", wider & higher))
    return pl.concat([corners.filter(which).select("place", cell=name) for name, which in parts])


def tiles(places: pl.DataFrame) -> list[int]:
    """The tiles, in order, in which things lie that may be the same as one at a place."""
    return sorted(cells_in_reach(places, REACH_M, TILES_PER_DEGREE)["cell"].unique().to_list())


def cells_for(reach_m: float) -> int:
    """How many cells to a degree, so that none is narrower than twice the reach, in China's north either."""
    return int(max(CELLS_PER_DEGREE, min(CELLS_PER_DEGREE * REACH_M / reach_m, 1e6))) if reach_m > 0 else 1_000_000


def cell_ranges(longitude_deg: float, latitude_deg: float, radius_m: float) -> list[tuple[int, int]]:
    """The cells within a radius of one place, a first and last one for each row of cells."""
    scales = metres_per_degree(np.array([latitude_deg]))
    east, north = (radius_m / float(scale[0]) for scale in scales)
    columns = [int(np.floor((longitude_deg + side * east) * CELLS_PER_DEGREE)) for side in (-1, 1)]
    rows = [int(np.floor((latitude_deg + side * north) * CELLS_PER_DEGREE)) for side in (-1, 1)]
    return [(row * ROW + columns[0], row * ROW + columns[1]) for row in range(rows[0], rows[1] + 1)]
