"""The course of polylines and the areas of hatches, arcs as chords that keep to a stated distance from them.

No format of its own: `connectors.formats.dxf` makes records.
"""

import functools
from typing import Final

import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from connectors.formats.dxf_places import in_world
from security.errors import Refusal

POINTS: Final = 250_000  # of one outline
_SURFACE: Final = 16 | 64  # flags of a POLYLINE that is a mesh
Array = NDArray[np.float64]


@np.errstate(all="ignore")  # a straight way has no radius, and sums may be beyond all numbers
def outlines(rows: pl.DataFrame, corners: pl.DataFrame, chord_error_m: float) -> pl.DataFrame:
    """head, outline: WKT in the world's system: of a polyline a POLYGON where it is closed, else a LINESTRING; of a
    hatch the area within an odd number of its rings.

    rows:    heads with `kind`, `bits` (flags), `spatial`, `height` and the extrusion
    corners: head, and the columns of `dxf_corners`; of one head in order
    None is given to a mesh, to what has a ring of fewer than two corners or a corner that is no finite number, and to a
    hatch whose rings cross themselves.
    """
    finite = pl.all_horizontal(pl.col("x", "y", "bulge").is_finite().fill_null(False).all())
    several = (pl.len().over("head", "ring") > 1).all()
    about = rows.select("head", "kind", "bits", "spatial", "height", "nx", "ny", "nz").with_row_index("row")
    known = corners.filter(finite.over("head"), several.over("head"))
    known = known.join(about, on="head", how="inner", maintain_order="left")
    area = (pl.col("kind") == "HATCH") | (pl.col("bits") & 1 == 1)
    known = known.filter(pl.col("bits") & pl.lit(_SURFACE) == 0)
    known = known.with_columns(closed=area, ring=pl.struct("head", "ring").rle_id())
    if known.is_empty():
        return pl.DataFrame(schema={"head": pl.UInt32, "outline": pl.String})
    source, x, y = _flattened(known, chord_error_m)
    x, y = in_world(rows, known["row"].gather(pl.Series(source)).to_numpy(), x, y)
    points = known.select("head", "ring", "closed")[source].with_columns(x=pl.Series(x), y=pl.Series(y))
    point = pl.concat_str(pl.col("x", "y").cast(pl.String), separator=" ")
    ways = points.group_by("head", "ring", maintain_order=True).agg(
        pl.col("closed").first() & (pl.len() > 3), way=pl.format("({})", point.str.join(", "))
    )
    whole = ways.group_by("head", maintain_order=True).agg(pl.col("closed").all(), pl.col("way"), rings=pl.len())
    one = pl.col("way").list.first()
    simple = pl.when("closed").then(pl.format("POLYGON ({})", one)).otherwise(pl.format("LINESTRING {}", one))
    of_several = whole.filter(pl.col("rings") > 1)
    areas = [_odd(rings) for rings in of_several["way"]]
    return pl.concat(
        [
            whole.filter(pl.col("rings") == 1).select("head", outline=simple),
            of_several.select("head", outline=pl.Series(areas, dtype=pl.String)),
        ]
    )


def _odd(rings: list[str]) -> str | None:
    """The area that lies within an odd number of the rings, as a hatch is drawn."""
    areas = [shapely.from_wkt(f"POLYGON ({ring})", on_invalid="ignore") for ring in rings]
    if not all(area is not None and area.is_valid for area in areas):
        return None
    return str(shapely.to_wkt(functools.reduce(shapely.symmetric_difference, areas), rounding_precision=-1))


def _flattened(corners: pl.DataFrame, chord_error_m: float) -> tuple[NDArray[np.int64], Array, Array]:
    """Corner, x, y of the points of all rings: each corner, and behind it those that the arc to the next one needs."""
    ring = corners["ring"].to_numpy().astype(np.int64)
    x, y, bulge = (corners[name].to_numpy() for name in ("x", "y", "bulge"))
    bulge = np.where(corners["spatial"].to_numpy(), 0.0, bulge)
    first = np.flatnonzero(np.diff(ring, prepend=-1) != 0)
    last = np.append(first[1:], len(ring)) - 1
    after = np.arange(1, len(ring) + 1)
    after[last] = first
    closed = corners["closed"].to_numpy()[last]
    bulge = bulge.copy()
    bulge[last[~closed]] = 0.0
    steps = _steps(np.hypot(x[after] - x, y[after] - y), np.abs(bulge), chord_error_m)
    if (np.add.reduceat(steps, first) > POINTS).any():
        raise Refusal("decode.too_large", f"an outline of more than {POINTS} points")
    counts = steps.astype(np.int64)
    counts[last[closed]] += 1  # and the first corner again
    source = np.repeat(np.arange(len(ring)), counts)
    part = (np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)) / steps[source]
    px, py = _on_arcs(x[source], y[source], x[after[source]], y[after[source]], bulge[source], part)
    return source, px, py


def _steps(chord: Array, bulge: Array, chord_error_m: float) -> Array:
    """How many chords each arc needs, so that none is farther from it than that: 1 where it is straight."""
    radius = chord * (1 + bulge * bulge) / (4 * bulge)
    angle = 2 * np.arccos(np.clip(1 - chord_error_m / radius, 0.0, 1.0))  # of a chord; at most half a turn
    wanted = np.ceil(4 * np.arctan(bulge) / angle)
    return np.where((bulge > 0) & (chord > 0), np.where(np.isfinite(wanted), np.maximum(wanted, 1), POINTS + 1), 1.0)


def _on_arcs(x: Array, y: Array, x2: Array, y2: Array, bulge: Array, part: Array) -> tuple[Array, Array]:
    """Places on the way from x, y to x2, y2, `part` of the arc's angle from its beginning."""
    arc = (bulge != 0) & (part > 0) & (part < 1)
    px, py = np.where(part == 1, x2, x), np.where(part == 1, y2, y)
    b, dx, dy = bulge[arc], x2[arc] - x[arc], y2[arc] - y[arc]
    # The centre lies on the chord's perpendicular; what is turned is the radius to the beginning.
    aside = (1 - b * b) / (4 * b)
    rx, ry = dx / 2 - dy * aside, dy / 2 + dx * aside
    turn = 4 * np.arctan(b) * part[arc]
    px[arc] = x[arc] + rx - rx * np.cos(turn) + ry * np.sin(turn)
    py[arc] = y[arc] + ry - rx * np.sin(turn) - ry * np.cos(turn)
    return px, py
