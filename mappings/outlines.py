"""范围与走向 Things that a map draws as a line or an area: their course, and the one point that stands for them."""

from typing import Final

import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from mappings.findings import Severity
from mappings.schema import CANDIDATES, FINDINGS, KEY, conform

CORNERS: Final = 2_000  # of one thing; a district's border is no component
ACROSS_M: Final = 100_000.0  # no component is so large; a corner that strays would have no place in degrees
DECIMALS: Final = 3  # of a metre

Shapes = NDArray[np.object_]


def with_outlines(candidates: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """CANDIDATES with x and y of what has an `outline` on it, and FINDINGS of outlines that are left out.

    The point of an area is one inside it, that of a line its middle by length; the outline is written to the
    millimetre. One that crosses itself, has more than CORNERS, is larger than a city or is no WKT of a line or an area
    is left out with the warning `outline.left_out`, and the thing stays where its record says.
    """
    drawn = candidates["outline"].is_not_null().arg_true()
    if drawn.is_empty():
        return candidates, pl.DataFrame(schema=FINDINGS)
    said = candidates["outline"].gather(drawn)
    shapes: Shapes = shapely.from_wkt(said.to_numpy(), on_invalid="ignore")
    kind, corners = shapely.get_type_id(shapes), shapely.get_num_coordinates(shapes)
    area, line = np.isin(kind, (3, 6)), kind == 1
    west, south, east, north = shapely.bounds(shapes).T
    small = (east - west < ACROSS_M) & (north - south < ACROSS_M)  # false where there are no bounds
    whole = (area | line) & (corners <= CORNERS) & small & shapely.is_valid(shapes)
    points = np.full(len(shapes), None, dtype=np.object_)
    points[whole & area] = shapely.point_on_surface(shapes[whole & area])
    points[whole & line] = shapely.line_interpolate_point(shapes[whole & line], 0.5, normalized=True)
    kept, left_out = drawn.filter(pl.Series(whole)), drawn.filter(pl.Series(~whole))
    text = pl.Series(shapely.to_wkt(shapes[whole], rounding_precision=DECIMALS).tolist(), dtype=pl.String)
    found = candidates[left_out].select(
        *KEY,
        code=pl.lit("outline.left_out"),
        field=pl.lit("outline"),
        severity=pl.lit(Severity.WARNING.value),
        value=pl.Series(corners[~whole].astype(str).tolist(), dtype=pl.String),
    )
    columns = {
        "outline": candidates["outline"].scatter(left_out, None).scatter(kept, text),
        "x": candidates["x"].scatter(kept, shapely.get_x(points[whole])),
        "y": candidates["y"].scatter(kept, shapely.get_y(points[whole])),
    }
    return conform(candidates.with_columns(**columns), CANDIDATES), conform(found, FINDINGS)
