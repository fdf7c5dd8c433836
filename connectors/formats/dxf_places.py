"""Where a drawing's entities lie in the world: extrusions, and the symbols of an array. Columns in, columns out.

No format of its own: `connectors.formats.dxf` makes records. Frames here have x, y, z, x2, y2, z2 and nx, ny, nz (the
extrusion) as text; what is not computed stays as the drawing spells it.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from security.errors import Refusal

PLACES = (("x", "y", "z"), ("x2", "y2", "z2"))
_NORMAL = ("nx", "ny", "nz")
_OBLIQUE = 1 / 64  # of the arbitrary axis rule: nearer to the world's z axis than this, its y axis is taken


def numbers(texts: pl.Series) -> pl.Series:
    """Finite numbers; 0 where the drawing says none. Raises Refusal decode.not_readable."""
    said = texts.str.strip_chars()
    values = said.fill_null("0").replace("", "0").cast(pl.Float64, strict=False)
    if not values.is_finite().fill_null(False).all():
        raise Refusal("decode.not_readable", "a coordinate that is no number")
    return values


def whole_numbers(texts: pl.Series, otherwise: int = 0) -> pl.Series:
    """Flags and counts; `otherwise` where the drawing says none. Raises Refusal decode.not_readable."""
    values = texts.fill_null(str(otherwise)).str.strip_chars().cast(pl.Int64, strict=False)
    if values.null_count():
        raise Refusal("decode.not_readable", "a flag or a count that is no whole number")
    return values


def to_world(rows: pl.DataFrame, own: pl.Series) -> pl.DataFrame:
    """The rows, each place brought from the entity's own system (OCS) to the world's, where the two differ.

    own: which rows give their places in their own system
    """
    own = own & rows["nz"].is_not_null()
    if not own.any():
        return rows
    normal = np.zeros((rows.height, 3))
    normal[own.to_numpy()] = np.stack([numbers(rows[part].filter(own)) for part in _NORMAL], axis=1)
    upright = (normal[:, :2] == 0).all(axis=1)
    below = own & pl.Series(upright & (normal[:, 2] < 0))
    tilted = own & pl.Series(~(upright & (normal[:, 2] != 0)))
    for place in PLACES:
        said = rows[place[0]].is_not_null() & rows[place[1]].is_not_null()
        if (turned := below & said).any():
            rows = rows.with_columns(
                _put(rows[axis], turned, _opposite(rows[axis].filter(turned))) for axis in place[::2]
            )
        if (turned := tilted & said).any():
            there = np.stack([numbers(rows[axis].filter(turned)) for axis in place], axis=1)
            world = _tilted(normal[turned.to_numpy()], there)
            rows = rows.with_columns(
                _put(rows[axis], turned, pl.Series(world[:, at]).cast(pl.String)) for at, axis in enumerate(place)
            )
    return rows


def in_world(
    rows: pl.DataFrame, row: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of points in the world's system. row: which of the rows each belongs to; its `height` is the point's."""
    own = rows.select(own=~pl.col("spatial") & pl.col("nz").is_not_null())["own"]
    if not own.any():
        return x, y
    normal = np.tile([0.0, 0.0, 1.0], (rows.height, 1))
    normal[own.to_numpy()] = np.stack([numbers(rows[part].filter(own)) for part in _NORMAL], axis=1)
    height = np.zeros(rows.height)
    height[own.to_numpy()] = numbers(rows["height"].filter(own)).to_numpy()
    world = _tilted(normal[row], np.stack([x, y, height[row]], axis=1))
    turned = (normal != [0.0, 0.0, 1.0]).any(axis=1)[row]
    return np.where(turned, world[:, 0], x), np.where(turned, world[:, 1], y)


def symbols(inserts: pl.DataFrame, most: int) -> pl.Series:
    """How many symbols each row is: rows x columns of an INSERT, else 1. Raises Refusal decode.too_large."""
    counts = pl.Series("symbols", np.ones(inserts.height, np.int64))
    arrays = _arrays(inserts)
    if not arrays.any():
        return counts
    across, down = _grid(inserts.filter(arrays), most)
    if (across * down > most).any():
        raise Refusal("decode.too_large", f"an INSERT of more than {most} symbols")
    return counts.scatter(arrays.arg_true(), across * down)


def spread(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Each row as often as it has `symbols`, row by row of the array; `place`: what the key of the later ones adds."""
    if (rows["symbols"] == 1).all():
        return rows.with_columns(place=pl.lit(None, pl.String))
    counts = rows["symbols"].to_numpy()
    source = np.repeat(np.arange(rows.height), counts)
    number = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
    each = rows[source]
    moved = pl.Series(number > 0)
    these = each.filter(moved)
    at = number[number > 0]
    columns = _grid(these, most)[0].to_numpy()
    up, right = at // columns * numbers(these["up"]).to_numpy(), at % columns * numbers(these["across"]).to_numpy()
    turned = np.radians(numbers(these["rotation"]).to_numpy())
    x = numbers(these["x"]) + pl.Series(right * np.cos(turned) - up * np.sin(turned))
    y = numbers(these["y"]) + pl.Series(right * np.sin(turned) + up * np.cos(turned))
    place = pl.Series([f":{row}:{column}" for row, column in zip(at // columns, at % columns, strict=True)])
    return each.with_columns(
        _put(each["x"], moved, x.cast(pl.String)),
        _put(each["y"], moved, y.cast(pl.String)),
        _put(pl.Series("place", [None] * each.height, pl.String), moved, place),
    )


def _arrays(rows: pl.DataFrame) -> pl.Series:
    # Group 70 of an INSERT counts its columns. What is not said is one.
    several = [~pl.col(count).str.strip_chars().is_in(["0", "1"]).fill_null(True) for count in ("flags", "rows")]
    return rows.select(arrays=(pl.col("kind") == "INSERT") & pl.any_horizontal(several))["arrays"]


def _grid(arrays: pl.DataFrame, most: int) -> tuple[pl.Series, pl.Series]:
    """Columns and rows of each array, one more than `most` where there are more than that."""
    across, down = (whole_numbers(arrays[count], 1).clip(1, most + 1) for count in ("flags", "rows"))
    return across, down


def _put(column: pl.Series, where: pl.Series, values: pl.Series) -> pl.Series:
    return column.scatter(where.arg_true(), values)


def _opposite(texts: pl.Series) -> pl.Series:
    """Numbers' texts with the other sign, their digits as they are spelled."""
    said = texts.str.strip_chars()
    other = said.str.strip_prefix("-").zip_with(
        said.str.starts_with("-").fill_null(False), "-" + said.str.strip_prefix("+")
    )
    return other.zip_with(numbers(texts) != 0, texts)


def _tilted(normal: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of the systems whose z axes are `normal`, by the arbitrary axis rule of the DXF reference. All (n, 3)."""
    greatest = np.abs(normal).max(axis=1, keepdims=True)
    if not greatest.all():
        raise Refusal("decode.not_readable", "an extrusion without a direction")
    az = normal / greatest  # first, for the square of a great number is none
    az /= np.linalg.norm(az, axis=1, keepdims=True)
    nx, ny, nz = az.T
    zero = np.zeros_like(nx)
    steep = (np.abs(nx) < _OBLIQUE) & (np.abs(ny) < _OBLIQUE)
    ax = np.where(steep[:, None], np.stack([nz, zero, -nx], axis=1), np.stack([-ny, nx, zero], axis=1))
    ax /= np.linalg.norm(ax, axis=1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        world: NDArray[np.float64] = place[:, :1] * ax + place[:, 1:2] * np.cross(az, ax) + place[:, 2:] * az
    if not np.isfinite(world).all():
        raise Refusal("decode.not_readable", "a place beyond all numbers")
    return world
