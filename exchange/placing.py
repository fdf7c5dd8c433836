"""落图落格 Where a candidate is: CGCS2000 position, unit grid and division by polygon."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from exchange.local_systems import LocalSystem, transformation
from exchange.transformation import (
    ZONE_M,
    Extent,
    Numbers,
    Transformation,
    by_epsg,
    degrees_by_zone,
    zone_before_easting,
)
from mappings.findings import Severity
from mappings.schema import FINDINGS, PLACED, conform
from mappings.systems import EPSG, is_in_degrees
from security.errors import Misconfigured, Refusal

Indices = NDArray[np.int64]

DECIMALS_DEG: Final = 8  # a millimetre
PLACES_AT_ONCE: Final = 65_536
SQUARES_PER_DEGREE: Final = 1000
SQUARE_MARGIN: Final = 1e-6  # of a square's side: what rounding may put beside the square that it was counted into


class Areas(msgspec.Struct, frozen=True):
    """Polygons by code, in ascending order of code. tree: over the polygons, which are prepared."""

    codes: tuple[str, ...]
    polygons: NDArray[np.object_]
    tree: shapely.STRtree

    def at(self, longitude_deg: Numbers, latitude_deg: Numbers) -> pl.Series:
        """The code of the polygon that each place lies in, null for none.

        Tie rule: a place on an edge belongs to every polygon that has the edge; the lowest code wins.
        """
        column, row = (np.floor(axis * SQUARES_PER_DEGREE) for axis in (longitude_deg, latitude_deg))
        by_square = np.argsort(row * (360 * SQUARES_PER_DEGREE) + column)
        lowest = np.full(len(by_square), len(self.codes))
        for start in range(0, len(by_square), PLACES_AT_ONCE):
            some = by_square[start : start + PLACES_AT_ONCE]
            place, area = self._held(longitude_deg[some], latitude_deg[some], column[some], row[some])
            np.minimum.at(lowest, some[place], area)
        return pl.Series([*self.codes, None], dtype=pl.String).gather(lowest)

    def _held(self, x: Numbers, y: Numbers, column: Numbers, row: Numbers) -> tuple[Indices, Indices]:
        """Every pair of a place and a polygon that holds it. Places of one square, `column` and `row`, stand together.

        The tree is asked once for a square: a geometry for each of a million places would cost more than all else here.
        """
        first = np.flatnonzero((np.diff(column, prepend=np.nan) != 0) | (np.diff(row, prepend=np.nan) != 0))
        low = [(axis[first] - SQUARE_MARGIN) / SQUARES_PER_DEGREE for axis in (column, row)]
        high = [(axis[first] + 1 + SQUARE_MARGIN) / SQUARES_PER_DEGREE for axis in (column, row)]
        square, area = self.tree.query(shapely.box(*low, *high))
        # Each pair of a square and a polygon becomes as many as there are places in the square.
        many = np.diff(first, append=len(x))[square]
        nth = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        place, areas = np.repeat(first[square], many) + nth, np.repeat(area, many)
        west, south, east, north = np.repeat(shapely.bounds(self.polygons[area]), many, axis=0).T
        near = (x[place] >= west) & (x[place] <= east) & (y[place] >= south) & (y[place] <= north)
        place, areas = place[near], areas[near]
        inside = shapely.intersects_xy(self.polygons[areas], x[place], y[place])
        return place[inside], areas[inside]


class City(msgspec.Struct, frozen=True):
    """The city's districts and unit grid. extent_deg: west, south, east, north in EPSG:4490; systems: local ones."""

    districts: Areas
    grid: Areas
    extent_deg: Extent
    systems: Mapping[str, LocalSystem] = {}


class Placing(msgspec.Struct, frozen=True):
    """placed: PLACED, the candidates in their order; findings: FINDINGS."""

    placed: pl.DataFrame
    findings: pl.DataFrame


def load_city(
    districts: Path, grid: Path, extent_deg: Extent, systems: Mapping[str, LocalSystem] | None = None
) -> City:
    """The city from two GeoJSON FeatureCollections in EPSG:4490, property `code` each. Raises Misconfigured."""
    west, south, east, north = extent_deg
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise Misconfigured("config.setting", f"city.extent {extent_deg}: west, south, east, north in degrees")
    return City(_areas(districts), _areas(grid), extent_deg, systems or {})


def place(candidates: pl.DataFrame, *, crs: str, accuracy_m: float, city: City, limit_m: float) -> Placing:
    """Candidates (CANDIDATES) with their position, accuracy, grid and division.

    crs:        the feed's, `EPSG:4547`, `local:NAME`, `GCJ-02`; x, y are east then north, or longitude then latitude
    accuracy_m: of the source; that of the transformation is added
    limit_m:    a transformation less accurate than this is refused

    Findings (errors): `position.axes_swapped`, `position.zone_prefix`, `position.outside_city`; those rows have no
    position.
    Raises Refusal placing.crs_unknown, placing.no_transformation, placing.transformation_too_coarse; Misconfigured
    config.system_unknown.
    """
    way = way_to_degrees(crs, city, limit_m)
    x, y = (candidates[axis].fill_null(np.nan).to_numpy() for axis in ("x", "y"))
    said = np.isfinite(x) & np.isfinite(y)
    longitude, latitude = way.degrees_of(x, y)
    division = _within(city.districts, longitude, latitude, city.extent_deg)
    outside = said & division.is_null().to_numpy()
    swapped, zoned = outside.copy(), outside.copy()
    swapped[outside] = _in_extent(*way.degrees_of(y[outside], x[outside]), city.extent_deg)
    zoned[outside] = ~swapped[outside] & _is_in_by_zone(x[outside], y[outside], crs, city)
    kept = said & ~outside
    placed = candidates.with_columns(
        pl.Series("longitude_deg", np.where(kept, longitude, np.nan)).fill_nan(None),
        pl.Series("latitude_deg", np.where(kept, latitude, np.nan)).fill_nan(None),
        division.alias("division_of_position"),
        _within(city.grid, longitude, latitude, city.extent_deg).alias("grid_of_position"),
        accuracy_m=pl.lit(accuracy_m + way.accuracy_m),
        outline_deg=_outlines(candidates["outline"], kept, way),
    )
    findings = [
        _findings(candidates, swapped, "position.axes_swapped"),
        _findings(candidates, zoned, "position.zone_prefix"),
        _findings(candidates, outside & ~swapped & ~zoned, "position.outside_city"),
    ]
    return Placing(conform(placed, PLACED), pl.concat(findings))


def _is_in_by_zone(x: Numbers, y: Numbers, crs: str, city: City) -> NDArray[np.bool_]:
    """Whether a place that the declared system puts outside is in the city by the zone number before its own easting,
    or with the declared system's before an easting that has none."""
    if is_in_degrees(crs):
        return np.zeros(len(x), dtype=np.bool_)
    found = _in_extent(*degrees_by_zone(x, y, city.extent_deg), city.extent_deg)
    if EPSG.fullmatch(crs) and (zone := zone_before_easting(crs)):
        with_zone = by_epsg(crs, city.extent_deg).degrees_of(x + zone * ZONE_M, y)
        found |= (x < ZONE_M) & _in_extent(*with_zone, city.extent_deg)
    return found


def to_plane(longitude_deg: Numbers, latitude_deg: Numbers, crs: str, city: City) -> tuple[Numbers, Numbers]:
    """The way back: x and y in a feed's reference system. Raises as `place`."""
    return transformation(crs, city.extent_deg, city.systems).back(longitude_deg, latitude_deg)


def plane_extent(crs: str, city: City) -> Extent:
    """The city's extent in a feed's reference system: west, south, east, north. Raises as `place`."""
    west, south, east, north = city.extent_deg
    along = np.tile(np.linspace(west, east, 21), 2)  # along parallels a plane's corners are not its ends
    x, y = to_plane(along, np.repeat([south, north], 21), crs, city)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def way_to_degrees(crs: str, city: City, limit_m: float) -> Transformation:
    """From a feed's reference system to CGCS2000, if it is as accurate as limit_m. Raises as `place`."""
    way = transformation(crs, city.extent_deg, city.systems)
    if way.accuracy_m > limit_m:
        raise Refusal("placing.transformation_too_coarse", f"{crs}: {way.accuracy_m:.3g} m, limit {limit_m} m")
    return way


def _areas(path: Path) -> Areas:
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        found = {str(f["properties"]["code"]): shapely.from_geojson(json.dumps(f["geometry"])) for f in features}
    except (OSError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError) as problem:
        raise Misconfigured(
            "config.file", f"{path}: not a FeatureCollection of polygons with a `code` ({problem})"
        ) from problem
    if len(found) != len(features):
        raise Misconfigured("config.file", f"{path}: a code stands twice")
    for code, polygon in found.items():
        _must_be_polygon(path, code, polygon)
    return areas_of(found)


def areas_of(found: Mapping[str, BaseGeometry]) -> Areas:
    """Areas of valid polygons, by code."""
    codes = tuple(sorted(found))
    polygons = np.array([found[code] for code in codes], dtype=np.object_)
    shapely.prepare(polygons)
    return Areas(codes, polygons, shapely.STRtree(polygons))


def geojson_of(areas: Areas) -> bytes:
    """Areas as `load_city` reads them; the same areas are the same octets."""
    said = zip(areas.codes, shapely.to_geojson(areas.polygons).tolist(), strict=True)
    features = [
        {"type": "Feature", "properties": {"code": code}, "geometry": msgspec.Raw(place.encode())}
        for code, place in said
    ]
    return msgspec.json.encode({"type": "FeatureCollection", "features": features})


def codes_at(city: City, longitude_deg: Numbers, latitude_deg: Numbers) -> tuple[pl.Series, pl.Series]:
    """The district and the unit grid of each place, null where there is none."""
    at = longitude_deg, latitude_deg, city.extent_deg
    return _within(city.districts, *at), _within(city.grid, *at)


def _must_be_polygon(path: Path, code: str, polygon: BaseGeometry) -> None:
    if polygon.geom_type not in ("Polygon", "MultiPolygon") or not polygon.is_valid or polygon.is_empty:
        raise Misconfigured("config.file", f"{path}: {code} is not a valid polygon")


def _outlines(outline: pl.Series, kept: NDArray[np.bool_], way: Transformation) -> pl.Series:
    """Outlines in degrees, WKT, of what is placed."""
    drawn = (outline.is_not_null() & pl.Series(kept)).arg_true()
    if drawn.is_empty():
        return pl.Series(dtype=pl.String).extend_constant(None, len(outline))
    shapes = shapely.from_wkt(outline.gather(drawn).to_numpy())
    turned = shapely.transform(shapes, way.degrees_of, interleaved=False)
    texts = shapely.to_wkt(turned, rounding_precision=DECIMALS_DEG)
    return pl.Series(dtype=pl.String).extend_constant(None, len(outline)).scatter(drawn, texts.tolist())


def _within(areas: Areas, longitude: Numbers, latitude: Numbers, extent: Extent) -> pl.Series:
    """Codes of the areas, asked only for places inside the extent."""
    inside = np.flatnonzero(_in_extent(longitude, latitude, extent))
    codes = pl.Series(dtype=pl.String).extend_constant(None, len(longitude))
    return codes.scatter(inside, areas.at(longitude[inside], latitude[inside]))


def _in_extent(longitude: Numbers, latitude: Numbers, extent: Extent) -> NDArray[np.bool_]:
    west, south, east, north = extent
    return (longitude >= west) & (longitude <= east) & (latitude >= south) & (latitude <= north)


def _findings(candidates: pl.DataFrame, wrong: NDArray[np.bool_], code: str) -> pl.DataFrame:
    """FINDINGS for the rows marked; the value is what the source said, east then north."""
    said = candidates.filter(pl.Series(wrong)).with_columns(
        code=pl.lit(code),
        field=pl.lit("x"),
        severity=pl.lit(Severity.ERROR.value),
        value=pl.format("{} {}", "x", "y").str.head(80),
    )
    return conform(said, FINDINGS)
