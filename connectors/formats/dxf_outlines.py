"""The course of polylines on the ground, arcs as chords that keep to a stated distance from them.

No format of its own: `connectors.formats.dxf` makes records.
"""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.formats.dxf_places import in_world
from security.errors import Refusal

POINTS: Final = 250_000  # of one outline
_SURFACE: Final = 16 | 64  # flags of a POLYLINE that is a mesh
Array = NDArray[np.float64]


def outlines(rows: pl.DataFrame, corners: pl.DataFrame, chord_error_m: float) -> pl.DataFrame:
    """head, outline: WKT of each polyline, in the world's system: a POLYGON where it is closed, else a LINESTRING.

    rows:    heads with `bits` (flags), `spatial`, `height` and the extrusion
    corners: head, x, y, bulge as spelled, in order; the bulge is the tangent of a quarter of the arc's angle, positive
             to the left of the way
    None is given to a mesh, to what has fewer than two corners, and to what has a corner that is no finite number.
    """
    said = pl.col("x", "y").str.strip_chars().cast(pl.Float64, strict=False)
    bulge = pl.col("bulge").fill_null("0").str.strip_chars().cast(pl.Float64, strict=False)
    numbers = corners.select("head", said, bulge)
    finite = pl.all_horizontal(pl.col("x", "y", "bulge").is_finite().fill_null(False).all(), pl.len() > 1)
    numbers = numbers.filter(finite.over("head"))
    about = rows.select("head", "bits", "spatial", "height", "nx", "ny", "nz").with_row_index("row")
    numbers = numbers.join(about, on="head", how="inner", maintain_order="left").filter(
        pl.col("bits") & pl.lit(_SURFACE) == 0
    )
    if numbers.is_empty():
        return pl.DataFrame(schema={"head": pl.UInt32, "outline": pl.String})
    head, x, y = _flattened(numbers, chord_error_m)
    of_rows = about["row"].gather(pl.Series(np.searchsorted(about["head"].to_numpy(), head)))
    x, y = in_world(rows, of_rows.to_numpy(), x, y)
    points = pl.DataFrame({"head": head, "x": x, "y": y}).select(
        "head", point=pl.concat_str(pl.col("x", "y").cast(pl.String), separator=" ")
    )
    ways = points.group_by("head", maintain_order=True).agg(pl.col("point").str.join(", "), count=pl.len())
    ways = ways.join(about.select("head", "bits"), on="head", how="left", maintain_order="left")
    area = (pl.col("bits") & 1 == 1) & (pl.col("count") > 3)
    return ways.select(
        "head",
        outline=pl.when(area)
        .then(pl.format("POLYGON (({}))", "point"))
        .otherwise(pl.format("LINESTRING ({})", "point")),
    )


def _flattened(corners: pl.DataFrame, chord_error_m: float) -> tuple[NDArray[np.uint32], Array, Array]:
    """head, x, y of the points of all outlines: each corner, and between two of them those that an arc needs."""
    head = corners["head"].to_numpy()
    x, y, bulge = (corners[name].to_numpy() for name in ("x", "y", "bulge"))
    bulge = np.where(corners["spatial"].to_numpy(), 0.0, bulge)
    first = np.flatnonzero(np.diff(head, prepend=head[0] + 1) != 0)
    last = np.append(first[1:], len(head)) - 1
    after = np.arange(1, len(head) + 1)
    after[last] = first
    closed = (corners["bits"].to_numpy() & 1 == 1)[last]
    bulge = bulge.copy()
    bulge[last[~closed]] = 0.0
    with np.errstate(all="ignore"):
        steps = _steps(np.hypot(x[after] - x, y[after] - y), np.abs(bulge), chord_error_m)
    if (np.add.reduceat(steps, first) > POINTS).any():
        raise Refusal("decode.too_large", f"an outline of more than {POINTS} points")
    counts = steps.astype(np.int64)
    counts[last[closed]] += 1  # and the first corner again
    source = np.repeat(np.arange(len(head)), counts)
    part = (np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)) / steps[source]
    px, py = _on_arcs(x[source], y[source], x[after[source]], y[after[source]], bulge[source], part)
    return head[source], px, py


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
