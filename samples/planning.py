"""What planning delivers of the made-up quarter besides its map: boundaries that move by a column of cells, imagery.

The first version of districts and unit grids is what the settings' files say too. In the second the border between the
districts lies one column further west: one street's houses and all that stands before them change their district, and
ten grids are retired for ten with new codes.
"""

from typing import Any, Final

import msgspec
import polars as pl

from samples import quarter

LATER_BORDER: Final = quarter.BORDER - 1


class Boundary(msgspec.Struct, frozen=True):
    """What the second version does. retired: grid codes, each with the one that took its place; moved: components by
    name (as in `Truth`), with the grid that they then stand in; all others stay."""

    retired: dict[str, str]
    moved: dict[str, str]


def boundary(things: pl.DataFrame, named: pl.DataFrame) -> Boundary:
    """The truth of the second version. things: thing, grid_code; named: thing, key of each component."""
    rows = range(quarter.ROWS)
    retired = {quarter.grid_code(LATER_BORDER, j): quarter.grid_code(LATER_BORDER, j, LATER_BORDER) for j in rows}
    there = named.join(things.select("thing", "grid_code"), on="thing").filter(pl.col("grid_code").is_in(list(retired)))
    return Boundary(retired, {key: retired[code] for key, code in there.select("key", "grid_code").sort("key").rows()})


def _image(code: str, day: str, resolution_m: float, west: int, east: int) -> dict[str, Any]:
    """A strip of the quarter, from one column of cells to another."""
    corners = [(west, 0), (east, 0), (east, quarter.ROWS), (west, quarter.ROWS), (west, 0)]
    longitude, latitude = quarter.degrees(
        *(pl.Series([corner[axis] for corner in corners], dtype=pl.Float64).to_numpy() for axis in (0, 1))
    )
    ring = [[round(x, 7), round(y, 7)] for x, y in zip(longitude.tolist(), latitude.tolist(), strict=True)]
    said = {
        "code": code,
        "resolution": str(resolution_m),
        "day": day,
        "sheets": "07.25-49.50 07.25-49.75",
        "sha256": (f"{resolution_m}{code}".encode().hex() * 8)[:64],
        "address": f"规划局影像库/{day[:4]}/{code}",
    }
    return {"type": "Feature", "properties": said, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def imagery() -> dict[str, Any]:
    """Footprints as a GeoJSON FeatureCollection: the whole quarter flown in 2024, its western half again in 2026."""
    images = [_image("DOM-2024-01", "2024-10-18", 0.2, 0, 12), _image("DOM-2026-03", "2026-03-09", 0.05, 0, 6)]
    return {"type": "FeatureCollection", "features": images}
