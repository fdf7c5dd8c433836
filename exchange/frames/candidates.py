"""Reference systems that a batch may really be in: those that surveys of a city use, each either way round."""

import functools
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from pyproj import Transformer
from pyproj.exceptions import CRSError, ProjError

from exchange.frames.similarity import Numbers
from exchange.transformation import CITY_CRS, DEFLECTED
from mappings.systems import is_in_degrees

FIRST_MERIDIAN: Final = 75  # of CGCS2000's zones of three and of six degrees, 3° and 6° apart
BY_MERIDIAN, BY_ZONE, BY_WIDE_ZONE = 4534, 4513, 4491  # EPSG numbers of that meridian; the zone stands before eastings
NEIGHBOURS_DEG: Final = 4.6  # meridians so near are looked at: the city's own, its neighbours', and one beyond
WEB: Final = "EPSG:3857"
UTM_BEFORE: Final = 32630  # EPSG number of UTM's zones in the northern hemisphere, by (meridian + 3) / 6
WORLDWIDE: Final = frozenset({WEB, *(f"EPSG:{UTM_BEFORE + zone}" for zone in range(1, 31))})  # none of the country's


class Candidate(msgspec.Struct, frozen=True):
    """A system, with the axes as the feed has them or exchanged.

    through: of `GCJ-02` and `BD-09`, the plane onto which deflected degrees were projected, or empty
    """

    system: str
    swapped: bool = False
    through: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it puts things anywhere: a system by number, or deflected degrees."""
        return self.system in DEFLECTED or _is_known(self.system)

    def degrees(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Longitude and latitude (CGCS2000) of what is stated, x east then y north; NaN where it has none."""
        x, y = (y, x) if self.swapped else (x, y)
        longitude, latitude = _to_degrees(self.through or self.system, x, y)
        if self.system in DEFLECTED:
            longitude, latitude = DEFLECTED[self.system].degrees_of(longitude, latitude)
        said = np.isfinite(longitude) & np.isfinite(latitude)
        return np.where(said, longitude, np.nan), np.where(said, latitude, np.nan)


def candidates(crs: str, longitude_deg: float) -> list[Candidate]:
    """What a batch of a feed may be in, the likeliest first: as its file says (where that is a system by number), with
    its axes exchanged, then the others. longitude_deg: the middle of the city."""
    systems = list(dict.fromkeys([*([crs] if _is_known(crs) else []), *_near(longitude_deg), *DEFLECTED]))
    through = [crs] if _is_known(crs) and not is_degrees(crs) else []
    return [
        *(Candidate(system, swapped) for system in systems for swapped in (False, True)),
        *(Candidate(system, swapped, plane) for system in DEFLECTED for plane in through for swapped in (False, True)),
    ]


def plane_of(crs: str, longitude_deg: float) -> str:
    """The plane in which metres are told: the feed's own, else CGCS2000 by the nearest meridian of 3° zones."""
    if _is_known(crs) and not is_degrees(crs):
        return crs
    return f"EPSG:{BY_MERIDIAN + round((longitude_deg - FIRST_MERIDIAN) / 3)}"


def planes_near(longitude_deg: float) -> list[str]:
    """Planes of CGCS2000 without a zone before eastings, of meridians near the city, the nearest first."""
    return [f"EPSG:{BY_MERIDIAN + (m - FIRST_MERIDIAN) // 3}" for m in _meridians(longitude_deg, 3)]


def is_degrees(system: str) -> bool:
    """Whether a system counts in degrees."""
    return bool(is_in_degrees(system))


def on_plane(plane: str, longitude_deg: Numbers, latitude_deg: Numbers) -> tuple[Numbers, Numbers]:
    """East and north of places, metres; infinite where the plane does not reach."""
    return _way(CITY_CRS, plane).transform(longitude_deg, latitude_deg)


def _near(longitude_deg: float) -> Iterator[str]:
    yield CITY_CRS
    for meridian in _meridians(longitude_deg, 3):
        nth = (meridian - FIRST_MERIDIAN) // 3
        yield from (f"EPSG:{BY_MERIDIAN + nth}", f"EPSG:{BY_ZONE + nth}")
    for meridian in _meridians(longitude_deg, 6):
        yield from (
            f"EPSG:{BY_WIDE_ZONE + (meridian - FIRST_MERIDIAN) // 6}",
            f"EPSG:{UTM_BEFORE + (meridian + 3) // 6}",
        )
    yield WEB


def _meridians(longitude_deg: float, step: int) -> list[int]:
    """Central meridians of zones so many degrees wide, the nearest first."""
    near = [m for m in range(FIRST_MERIDIAN, 136, step) if abs(m - longitude_deg) <= max(NEIGHBOURS_DEG, step * 0.6)]
    return sorted(near, key=lambda meridian: abs(meridian - longitude_deg))


@functools.cache
def _is_known(crs: str) -> bool:
    try:
        return crs.startswith("EPSG:") and _way(crs, CITY_CRS) is not None
    except CRSError:
        return False


@functools.cache
def _way(source: str, target: str) -> Transformer:
    """Also without parameters, which `exchange.transformation` never goes: what such a way leaves is a shift between
    the pairs, and is told as one."""
    return Transformer.from_crs(source, target, always_xy=True, allow_ballpark=True)


def _to_degrees(system: str, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    if system in DEFLECTED or system == CITY_CRS:
        fits = (np.abs(x) <= 180) & (np.abs(y) <= 90)
        return np.where(fits, x, np.nan), np.where(fits, y, np.nan)
    try:
        longitude, latitude = _way(system, CITY_CRS).transform(x, y)
    except ProjError:
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    return longitude, latitude
