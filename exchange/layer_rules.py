"""What must be right of a version of a layer: codes, outlines, and how outlines that tile the city lie together.

A rule gives FINDINGS; an error refuses the whole version (`exchange.layers.compare`). What is measured on the ground is
measured in metres of a plane that touches the city's middle. Outlines are drawn one by one, so that neighbours differ
by centimetres: only what is wider than SLIVER_M on average (twice its area by its outline) lies over another.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Final

import msgspec
import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from exchange.store.places import metres_per_degree
from exchange.transformation import Extent
from mappings.findings import Severity
from mappings.schema import FINDINGS, KEY, conform
from security.errors import Refusal

Geometries = NDArray[np.object_]
Marks = NDArray[np.bool_]

SLIVER_M: Final = 0.1
MOST_CORNERS: Final = 250_000  # of one feature
MOST_CORNERS_IN_ALL: Final = 20_000_000
MOST_PAIRS: Final = 200  # of outlines whose boxes meet, for each outline; in a map some ten
MOST_OVERLAPS: Final = 1_000  # are told
AT_ONCE: Final = 1_000
KINDS: Final = (  # by shapely's number; -1 of none at all
    "point", "line", "ring", "area", "points", "lines", "areas", "several kinds", "",
)  # fmt: skip
LENGTHS: Final = {"source_key": 128, "name": 200, "sheets": 2_000, "address": 500}  # characters
VALUE_CHARACTERS: Final = 80
IMAGERY: Final = "imagery"
UNIT_GRID: Final = "unit-grid"
DISTRICT: Final = "district"
# Layers whose outlines tile the city, from the largest: what a code looks like, and how many of its digits name the
# area of the layer before that it lies in. Grid codes of the older edition have 14 digits.
TILING: Final[Mapping[str, tuple[str, int]]] = {
    DISTRICT: (r"^[0-9]{6}$", 0),
    "street": (r"^[0-9]{9}$", 6),
    "community": (r"^[0-9]{12}$", 9),
    UNIT_GRID: (r"^[0-9]{14,15}$", 12),
}


class Parents(msgspec.Struct, frozen=True):
    """The areas that those of a layer lie in. digits: of a code, that name one; places: degrees, by code."""

    digits: int
    places: Mapping[str, shapely.Geometry]


class About(msgspec.Struct, frozen=True):
    """What the rules go by. extent_deg: of the city; day: on which the delivery was received; parents: of a layer that
    tiles the city; divisions: codes in force, which districts must be among."""

    layer: str
    extent_deg: Extent
    day: date
    parents: Parents | None
    divisions: frozenset[str]


def check(features: pl.DataFrame, places: Geometries, about: About) -> pl.DataFrame:
    """FINDINGS of one delivery of a layer.

    features: FEATURES; places: degrees of CGCS2000, None where it could not be read
    Raises Refusal `layer.too_large`, `layer.too_tangled`.
    """
    found = _said(features, about.layer, about.day)
    found += _shapes(features, places, about.layer, about.extent_deg)
    if about.layer in TILING:
        found += _codes(features, about.layer, about.divisions)
        if not any(one.height for one in found):  # outlines that are none cannot be laid over one another
            found += _together(features, places, about.parents, about.extent_deg)
    return pl.concat([pl.DataFrame(schema=FINDINGS), *found])


# Each by itself -------------------------------------------------------------------------------------------------------


def _said(features: pl.DataFrame, layer: str, day: date) -> list[pl.DataFrame]:
    key = pl.col("source_key")
    rules = [
        ("key.missing", "source_key", key.is_null()),
        ("layer.code_doubled", "source_key", key.is_not_null() & ~key.is_first_distinct()),
        *(("text.too_long", name, pl.col(name).str.len_chars() > most) for name, most in LENGTHS.items()),
        *(("text.control_characters", name, pl.col(name).str.contains(r"\p{Cc}")) for name in LENGTHS),
    ]
    if layer == IMAGERY:
        rules += [
            ("imagery.incomplete", "resolution_m", ~(pl.col("resolution_m") > 0).fill_null(False)),
            ("imagery.incomplete", "taken_on", pl.col("taken_on").is_null()),
            ("date.future", "taken_on", pl.col("taken_on") > day),
            ("imagery.incomplete", "digest", ~pl.col("digest").str.contains(r"^[0-9a-f]{64}$").fill_null(False)),
            ("imagery.incomplete", "address", pl.col("address").is_null()),
        ]
    wrong = features.select(rule.fill_null(False).alias(str(number)) for number, (_, _, rule) in enumerate(rules))
    return [
        _findings(features, wrong[str(number)].to_numpy(), code, field)
        for number, (code, field, _) in enumerate(rules)
        if wrong[str(number)].any()
    ]


def _shapes(features: pl.DataFrame, places: Geometries, layer: str, extent_deg: Extent) -> list[pl.DataFrame]:
    missing, corners = shapely.is_missing(places), shapely.get_num_coordinates(places)
    if corners.sum() > MOST_CORNERS_IN_ALL:
        raise Refusal("layer.too_large", f"{corners.sum()} > {MOST_CORNERS_IN_ALL}")
    many = corners > MOST_CORNERS
    looked_at = places.copy()
    looked_at[many] = None
    kinds = shapely.get_type_id(looked_at)
    no_area = ~missing & ~many & ~np.isin(kinds, (3, 6)) & (layer in TILING or layer == IMAGERY)
    invalid = ~missing & ~many & ~shapely.is_valid(looked_at)
    west, south, east, north = shapely.bounds(places).T
    out = (west < extent_deg[0]) | (south < extent_deg[1]) | (east > extent_deg[2]) | (north > extent_deg[3])
    reasons = np.where(invalid, shapely.is_valid_reason(looked_at), None)
    marks: list[tuple[Marks, str, Iterable[object] | None]] = [
        (missing, "layer.geometry_missing", None),
        (many, "layer.too_many_corners", corners),
        (no_area, "layer.no_area", np.array(KINDS)[kinds]),
        (invalid, "layer.geometry_invalid", reasons),
        (~missing & out, "layer.outside_city", None),
    ]
    return [_findings(features, wrong, code, "geometry", said) for wrong, code, said in marks if wrong.any()]


def _codes(features: pl.DataFrame, layer: str, divisions: frozenset[str]) -> list[pl.DataFrame]:
    """Well-formed, and of a district, one that is in force."""
    key = pl.col("source_key")
    malformed = features.select(~key.str.contains(TILING[layer][0])).to_series().fill_null(False)
    unknown = features.select(~key.is_in(sorted(divisions)) & (layer == DISTRICT)).to_series().fill_null(False)
    return [
        _findings(features, malformed.to_numpy(), "layer.code_malformed", "source_key"),
        _findings(features, (unknown & ~malformed).to_numpy(), "layer.code_unknown", "source_key"),
    ]


# Together -------------------------------------------------------------------------------------------------------------


def _together(
    features: pl.DataFrame, places: Geometries, parents: Parents | None, extent_deg: Extent
) -> list[pl.DataFrame]:
    if not len(places):
        return []
    plane = _on_plane(places, extent_deg)
    found = _overlaps(features, plane)
    if parents is not None:
        found += _within_parents(features, plane, parents, extent_deg)
    return found + _gaps(features, plane, places)


def _on_plane(places: Geometries, extent_deg: Extent) -> Geometries:
    """The same in metres, east and north of the middle of the city."""
    middle = np.array([(extent_deg[0] + extent_deg[2]) / 2, (extent_deg[1] + extent_deg[3]) / 2])
    scale = np.array([float(one[0]) for one in metres_per_degree(middle[1:])])
    plane: Geometries = shapely.transform(places, lambda corners: (corners - middle) * scale)
    return plane


def _width_m(shapes: Geometries) -> NDArray[np.float64]:
    """How wide each is on average; 0 of what has no area."""
    around = shapely.length(shapes)
    width = np.zeros(len(shapes))
    np.divide(2 * shapely.area(shapes), around, out=width, where=around > 0)
    return width


def _overlaps(features: pl.DataFrame, plane: Geometries) -> list[pl.DataFrame]:
    """The later of each two that lie over one another. Raises Refusal `layer.too_tangled`."""
    tree, looked_at, lying = shapely.STRtree(plane), 0, []
    for start in range(0, len(plane), AT_ONCE):
        one, other = tree.query(plane[start : start + AT_ONCE])
        one = one + start
        one, other = one[other < one], other[other < one]
        looked_at += len(one)
        if looked_at > MOST_PAIRS * len(plane):
            raise Refusal("layer.too_tangled", f"{looked_at} / {len(plane)}")
        meet = ~shapely.touches(plane[one], plane[other])
        one, other = one[meet], other[meet]
        both = shapely.intersection(plane[one], plane[other])
        wide = _width_m(both) > SLIVER_M
        lying.append((one[wide], other[wide], shapely.area(both[wide])))
        if sum(len(some) for some, _, _ in lying) > MOST_OVERLAPS:
            break
    one, other, area = (np.concatenate(parts) for parts in zip(*lying, strict=True))
    one, other, area = one[:MOST_OVERLAPS], other[:MOST_OVERLAPS], area[:MOST_OVERLAPS]
    keys = features["source_key"]
    over = features.select(*KEY)[one].with_columns(
        value=pl.Series([f"{keys[int(of)]}: {m2:.0f} m²" for of, m2 in zip(other, area, strict=True)], dtype=pl.String)
    )
    return [_told(over, "layer.overlap", "geometry", Severity.ERROR)]


def _within_parents(
    features: pl.DataFrame, plane: Geometries, parents: Parents, extent_deg: Extent
) -> list[pl.DataFrame]:
    """Each lies in the area that its code begins with."""
    codes = sorted(parents.places)
    around = _on_plane(np.array([parents.places[code] for code in codes], dtype=object), extent_deg)
    named = features["source_key"].str.head(parents.digits)
    number = named.replace_strict(codes, list(range(len(codes))), default=None, return_dtype=pl.Int64)
    unknown = number.is_null().to_numpy()
    owner = np.where(unknown, None, around[number.fill_null(0).to_numpy()]) if codes else np.full(len(plane), None)
    beyond = _width_m(shapely.difference(plane, owner)) > SLIVER_M
    return [
        _findings(features, unknown, "layer.parent_unknown", "source_key"),
        _findings(features, ~unknown & beyond, "layer.outside_parent", "geometry"),
    ]


def _gaps(features: pl.DataFrame, plane: Geometries, places: Geometries) -> list[pl.DataFrame]:
    """A warning for each hole that all together leave, at the neighbour with the lowest number.

    A hole may be meant (a lake without grids): who puts the version in force has it before their eyes.
    """
    whole = shapely.union_all(plane)
    rings = [ring for part in shapely.get_parts(whole) for ring in part.interiors]
    holes = shapely.polygons(np.array(rings, dtype=object)) if rings else np.array([], dtype=object)
    holes = holes[_width_m(holes) > SLIVER_M][:MOST_OVERLAPS]
    if not len(holes):
        return []
    hole, beside = shapely.STRtree(plane).query(holes, predicate="dwithin", distance=SLIVER_M)
    first = pl.DataFrame({"hole": hole, "beside": beside}).group_by("hole").agg(pl.col("beside").min()).sort("hole")
    corner = shapely.centroid(places[first["beside"].to_numpy()])
    area = shapely.area(holes[first["hole"].to_numpy()])
    said = [
        f"{m2:.0f} m², {x:.5f} {y:.5f}"
        for m2, x, y in zip(area, shapely.get_x(corner), shapely.get_y(corner), strict=True)
    ]
    beside_them = features.select(*KEY)[first["beside"].to_numpy()].with_columns(value=pl.Series(said, dtype=pl.String))
    return [_told(beside_them, "layer.gap", "geometry", Severity.WARNING)]


# Findings -------------------------------------------------------------------------------------------------------------


def _findings(
    features: pl.DataFrame, wrong: Marks, code: str, field: str, said: Iterable[object] | None = None
) -> pl.DataFrame:
    """FINDINGS for the features marked; the value is what is said, else that of the field, but for a geometry."""
    value: pl.Expr | pl.Series = pl.lit(None, pl.String) if field == "geometry" else pl.col(field).cast(pl.String)
    if said is not None:
        value = pl.Series("value", [None if one is None else str(one) for one in said], dtype=pl.String)
    named = features.select(*KEY, value=value).filter(pl.Series(wrong))
    return _told(named, code, field, Severity.ERROR)


def _told(named: pl.DataFrame, code: str, field: str, severity: Severity) -> pl.DataFrame:
    said = named.with_columns(
        code=pl.lit(code),
        field=pl.lit(field),
        severity=pl.lit(severity.value),
        value=pl.col("value").str.head(VALUE_CHARACTERS),
    )
    return conform(said, FINDINGS)
