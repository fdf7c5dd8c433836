"""Tags to corners: where polylines and the boundaries of hatches turn. Numbers, in the entity's own system.

No format of its own: `dxf_entities` asks for them, `dxf_outlines` makes lines of them. A corner has a bulge: the
tangent of a quarter of the angle of the arc to the next corner, 0 where the way is straight, positive to the left. What
is said in another way than by places, lines and arcs (ellipses, splines), or does not meet, has corners that are no
numbers.
"""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.formats.dxf_tags import Tags

SCHEMA: Final = {"entity": pl.Int64, "ring": pl.Int64, "x": pl.Float64, "y": pl.Float64, "bulge": pl.Float64}
_POLYLINE: Final = 2  # flag of a hatch's path
_LINE, _ARC = 1, 2  # kinds of its edges
_MEETING_M: Final = 0.001  # ends of two edges that are nearer are one place

Indices = NDArray[np.int64]
Array = NDArray[np.float64]


def of_polylines(tags: Tags, owner: NDArray[np.int32], of: NDArray[np.bool_]) -> pl.DataFrame:
    """SCHEMA: of each LWPOLYLINE, one ring. owner: the entity of each tag; of: which entities are such."""
    at = np.flatnonzero((tags.codes == 10) & of[owner])
    limits = np.minimum(_next(tags, 10, at), _next(tags, 0, at))
    return _table(owner[at], np.zeros(len(at)), *_corner(tags, at, limits))


@np.errstate(invalid="ignore", over="ignore")  # what is no number is asked for in the end
def of_hatches(tags: Tags, owner: NDArray[np.int32], of: NDArray[np.bool_]) -> pl.DataFrame:
    """SCHEMA: of each HATCH, a ring for each path of its boundary."""
    paths = np.flatnonzero((tags.codes == 92) & of[owner])
    if not len(paths):
        return pl.DataFrame(schema=SCHEMA)
    stops = np.minimum.reduce([_next(tags, code, paths) for code in (92, 75, 0)])
    flags = _numbers(tags, paths)
    flat = flags % (2 * _POLYLINE) >= _POLYLINE

    def within(code: int, which: NDArray[np.bool_]) -> tuple[Indices, Indices]:
        at = np.flatnonzero(tags.codes == code)
        path = np.searchsorted(paths, at) - 1
        ours = (path >= 0) & (at < stops[path]) & which[path]
        return at[ours], path[ours]

    at, path = within(10, flat)
    limits = np.minimum(_next(tags, 10, at), stops[path])
    corners = _table(owner[at], path, *_corner(tags, at, limits))
    at, path = within(72, ~flat)
    edges = _edges(tags, at, path, np.minimum(_next(tags, 72, at), stops[path]))
    of_edges = _table(np.repeat(owner[at], 2), np.repeat(path, 2), *edges)
    # A straight edge has no corner in its middle.
    of_edges = of_edges.filter(pl.Series(np.tile([True, False], len(at))) | (pl.col("bulge") != 0))
    whole = pl.concat([corners, of_edges])
    empty = np.setdiff1d(np.arange(len(paths)), whole["ring"].to_numpy())
    none = np.full(len(empty), np.nan)
    whole = pl.concat([whole, _table(owner[paths[empty]], empty, none, none, none)])
    return whole.sort("entity", "ring", maintain_order=True)


def _edges(tags: Tags, at: Indices, path: Indices, limits: Indices) -> tuple[Array, Array, Array]:
    """x, y, bulge of two corners for each edge: where it begins, and the middle of its arc."""
    kind = _numbers(tags, at)
    x, y, x2, y2, radius, begin, end, left = (_after(tags, c, at, limits) for c in (10, 20, 11, 21, 40, 50, 51, 73))
    side = np.where(left == 0, -1.0, 1.0)
    sweep = side * (360.0 - (begin - end) % 360.0)  # a whole circle where both are one
    bulge = np.tan(np.radians(sweep) / 8)

    def on_arc(part: float) -> tuple[Array, Array]:
        angle = np.radians(side * begin + sweep * part)
        return x + radius * np.cos(angle), y + radius * np.sin(angle)

    line, arc = kind == _LINE, kind == _ARC
    starts, middles, ends = (
        tuple(
            np.where(line, straight, np.where(arc, round_, np.nan))
            for straight, round_ in zip(of_line, on_arc(part), strict=True)
        )
        for part, of_line in ((0.0, (x, y)), (0.5, (x, y)), (1.0, (x2, y2)))
    )
    first = np.flatnonzero(np.diff(path, prepend=-1) != 0)
    after = np.arange(1, len(at) + 1)
    after[np.append(first[1:], len(at))[: len(first)] - 1] = first
    apart = np.hypot(ends[0] - starts[0][after], ends[1] - starts[1][after])
    bulges = np.where(apart < _MEETING_M, np.where(arc, bulge, 0.0), np.nan)
    both = [np.stack([starts[axis], middles[axis]], axis=1).ravel() for axis in (0, 1)]
    return both[0], both[1], np.repeat(bulges, 2)


def _corner(tags: Tags, at: Indices, limits: Indices) -> tuple[Array, Array, Array]:
    """x, y, bulge: of each tag 10, the 20 and the 42 behind it; a bulge that is not said is 0."""
    said, bulge = _place(tags, 42, at, limits), _after(tags, 42, at, limits)
    return _numbers(tags, at), _after(tags, 20, at, limits), np.where(said < 0, 0.0, bulge)


def _next(tags: Tags, code: int, at: Indices) -> Indices:
    """The next tag of that code behind each; the number of tags where there is none."""
    known = np.append(np.flatnonzero(tags.codes == code), len(tags.codes))
    after: Indices = known[np.searchsorted(known, at, side="right").clip(max=len(known) - 1)]
    return after


def _place(tags: Tags, code: int, at: Indices, limits: Indices) -> Indices:
    after = _next(tags, code, at)
    return np.where(after < limits, after, -1)


def _after(tags: Tags, code: int, at: Indices, limits: Indices) -> Array:
    """The number of the first tag of that code between a tag and a limit; NaN where there is none."""
    return _numbers(tags, _place(tags, code, at, limits))


def _numbers(tags: Tags, at: Indices) -> Array:
    said = tags.texts(at).str.strip_chars().cast(pl.Float64, strict=False)
    return said.fill_null(float("nan")).to_numpy()


def _table(entity: NDArray[np.int32], ring: NDArray[np.generic], x: Array, y: Array, bulge: Array) -> pl.DataFrame:
    return pl.DataFrame({"entity": entity, "ring": ring, "x": x, "y": y, "bulge": bulge}, schema_overrides=SCHEMA)
