"""坐标转换 From a declared reference system to CGCS2000 in degrees, each with how much less sure a place becomes."""

import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.aoi import AreaOfInterest
from pyproj.enums import TransformDirection as Way
from pyproj.exceptions import CRSError
from pyproj.transformer import Transformer, TransformerGroup

from exchange import deflected
from security.errors import Refusal

CITY_CRS: Final = "EPSG:4490"  # CGCS2000, degrees

Extent = tuple[float, float, float, float]
Numbers = NDArray[np.float64]

ZONE_M: Final = 1_000_000  # what a zone number before the easting counts
ZONES: Final = {**dict.fromkeys(range(13, 24), 4478), **dict.fromkeys(range(25, 46), 4488)}  # six degrees, and three


class Transformation(msgspec.Struct, frozen=True):
    """A way to CGCS2000.

    accuracy_m: what is added to the accuracy of each place, metres
    degrees_of: from x and y (east then north in metres, or longitude then latitude) to longitude and latitude; a place
                that the projection does not reach comes out infinite, NaN as NaN
    back:       the way back, from longitude and latitude
    """

    accuracy_m: float
    degrees_of: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]
    back: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]

    def __repr__(self) -> str:  # what it calls holds parameters, of local systems secret ones
        return f"<Transformation to {self.accuracy_m} m>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


DEFLECTED: Final = {
    "GCJ-02": Transformation(deflected.ACCURACY_M, deflected.wgs_of_gcj02, deflected.gcj02_of),
    "BD-09": Transformation(deflected.ACCURACY_M, deflected.wgs_of_bd09, deflected.bd09_of),
}


@functools.cache
def by_epsg(crs: str, extent_deg: Extent) -> Transformation:
    """The best transformation to CGCS2000 in the city. A guess without parameters (ballpark) is no transformation.

    Raises Refusal placing.crs_unknown, placing.no_transformation.
    """
    try:
        source = CRS.from_user_input(crs)
    except CRSError as problem:
        raise Refusal("placing.crs_unknown", crs) from problem
    area = None if crs == CITY_CRS else AreaOfInterest(*extent_deg)  # nothing to transform is right everywhere
    group = TransformerGroup(
        source,
        CITY_CRS,
        always_xy=True,
        area_of_interest=area,  # type: ignore[arg-type]  # pyproj's stub names its private twin of the class
        allow_ballpark=False,
    )
    usable = [transformer for transformer in group.transformers if transformer.accuracy >= 0]
    if not usable:
        raise Refusal("placing.no_transformation", f"{crs} -> {CITY_CRS}")
    best = min(usable, key=lambda transformer: transformer.accuracy)
    return by_transformer(best.accuracy, best)


def by_transformer(accuracy_m: float, transformer: Transformer) -> Transformation:
    """What PROJ computes, there and back."""
    ways = (functools.partial(_transformed, transformer, way) for way in (Way.FORWARD, Way.INVERSE))
    return Transformation(accuracy_m, *ways)


def _transformed(transformer: Transformer, way: Way, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    one, other = transformer.transform(x, y, direction=way)
    return one, other


@functools.cache
def zone_before_easting(crs: str) -> int:
    """The zone number that a system of EPSG has before its eastings (40 of EPSG:4528); 0 where it has none."""
    operation = CRS.from_user_input(crs).coordinate_operation
    shift = [float(value.value) for value in operation.params if value.name == "False easting"] if operation else []
    return int(shift[0] // ZONE_M) if shift else 0


def degrees_by_zone(x: Numbers, y: Numbers, extent_deg: Extent) -> tuple[Numbers, Numbers]:
    """Where places lie in CGCS2000 by the zone number before their own easting; NaN where there is none.

    x, y: east, north in metres. Zones 25 to 45 are of three degrees, 13 to 23 of six.
    """
    longitude, latitude = np.full(len(x), np.nan), np.full(len(x), np.nan)
    zone = np.floor_divide(x, ZONE_M)
    for number in np.unique(zone[np.isin(zone, list(ZONES))]).astype(int):
        here = zone == number
        way = by_epsg(f"EPSG:{ZONES[number] + number}", extent_deg)
        longitude[here], latitude[here] = way.degrees_of(x[here], y[here])
    return longitude, latitude
