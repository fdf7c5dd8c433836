"""偏转坐标 GCJ-02 and BD-09: what public maps in China show instead of a place, and the place again.

Degrees, longitude first, arrays of one shape in all functions. The place itself is WGS 84, and CGCS2000 is taken as
the same: on the ellipsoids a place differs by 0.11 mm at most, and what is deflected in China was drawn from surveys in
CGCS2000. (A receiver's WGS 84 of today moves with the plate, some 3 cm a year since 2000.0; `ACCURACY_M` holds that.)

The formula is that which has been public since 2010 (`wgtochina_lb`, then `eviltransform`); no standard states it. It
is a deflection in metres by polynomials and sines of the place, put on degrees by the Krassovsky ellipsoid. BD-09
turns and stretches GCJ-02 once more. Nothing here is a secret, and nothing here is a datum: what comes back is as good
as `ACCURACY_M` says.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Pair = tuple[Numbers, Numbers]

ACCURACY_M: Final = 1.0
"""What is added to the accuracy of a place that came by GCJ-02 or BD-09, metres.

The program that the surveying bureau gave out adds three things that the public formula leaves out, in each axis: a
random part between 0 and 1 m, a sine of the time of day of 1 m at most, and a millimetre for each metre of height. They
cannot be taken away again. Services seem to leave them out likewise: one published comparison (WGS 84 to GCJ-02 by four
ways; cnblogs.com/alunzuishuai/p/16344879.html) finds two within centimetres of the formula and one within decimetres.
So the random part's greatest is taken, and not less: which program a source went by, nobody says.
"""

SEMI_MAJOR_M: Final = 6_378_245.0  # Krassovsky 1940
ECCENTRICITY_SQUARED: Final = 0.00669342162296594323
WEST, EAST, SOUTH, NORTH = 72.004, 137.8347, 0.8293, 55.8271  # the formula's box; outside nothing is deflected
PER_TURN: Final = np.pi * 3000 / 180  # of BD-09's waves, radians a degree
BD_SHIFT: Final = (0.0065, 0.006)  # degrees
# Each step leaves less than 0.003 of the error before, of BD-09's own part 0.025: a kilometre becomes some micrometres.
GCJ02_STEPS, BD09_STEPS = 4, 6


def gcj02_of(longitude_deg: Numbers, latitude_deg: Numbers) -> Pair:
    """GCJ-02 of places in WGS 84. Outside of the formula's box, and for NaN, what is given."""
    inside = (longitude_deg >= WEST) & (longitude_deg <= EAST) & (latitude_deg >= SOUTH) & (latitude_deg <= NORTH)
    x, y = np.where(inside, longitude_deg - 105, 0.0), np.where(inside, latitude_deg - 35, 0.0)
    east_m, north_m = _deflection_m(x, y)
    latitude = np.radians(y + 35)
    root = np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    parallel_m = SEMI_MAJOR_M / root * np.cos(latitude)  # radius of the parallel
    meridian_m = SEMI_MAJOR_M * (1 - ECCENTRICITY_SQUARED) / root**3  # radius of curvature of the meridian
    return (
        np.where(inside, longitude_deg + np.degrees(east_m / parallel_m), longitude_deg),
        np.where(inside, latitude_deg + np.degrees(north_m / meridian_m), latitude_deg),
    )


def wgs_of_gcj02(longitude_deg: Numbers, latitude_deg: Numbers) -> Pair:
    """WGS 84 of places in GCJ-02: `gcj02_of` of it gives them again, within a hundredth of a millimetre.

    Within a kilometre of the edge of the formula's box two places have one GCJ-02, or none; no city lies there.
    """
    return _inverse(gcj02_of, longitude_deg, latitude_deg, GCJ02_STEPS)


def bd09_of(longitude_deg: Numbers, latitude_deg: Numbers) -> Pair:
    """BD-09 of places in WGS 84."""
    return _bd09_of_gcj02(*gcj02_of(longitude_deg, latitude_deg))


def wgs_of_bd09(longitude_deg: Numbers, latitude_deg: Numbers) -> Pair:
    """WGS 84 of places in BD-09: `bd09_of` of it gives them again, within a hundredth of a millimetre.

    The inverse of BD-09's step that is usually published is only near it (up to 0.23 m off); this one is iterated.
    """
    return wgs_of_gcj02(*_inverse(_bd09_of_gcj02, longitude_deg, latitude_deg, BD09_STEPS))


def _deflection_m(x: Numbers, y: Numbers) -> Pair:
    """How far to the east and to the north, metres. x, y: degrees east of 105° and north of 35°."""
    root, turn_x, turn_y = np.sqrt(np.abs(x)), np.pi * x, np.pi * y
    common = 20 * np.sin(6 * turn_x) + 20 * np.sin(2 * turn_x)
    of_x = 20 * np.sin(turn_x) + 40 * np.sin(turn_x / 3) + 150 * np.sin(turn_x / 12) + 300 * np.sin(turn_x / 30)
    of_y = 20 * np.sin(turn_y) + 40 * np.sin(turn_y / 3) + 160 * np.sin(turn_y / 12) + 320 * np.sin(turn_y / 30)
    return (
        300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root + (common + of_x) * 2 / 3,
        -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root + (common + of_y) * 2 / 3,
    )


@np.errstate(invalid="ignore", over="ignore")  # what is no number stays none
def _bd09_of_gcj02(longitude_deg: Numbers, latitude_deg: Numbers) -> Pair:
    radius = np.hypot(longitude_deg, latitude_deg) + 0.00002 * np.sin(latitude_deg * PER_TURN)
    angle = np.arctan2(latitude_deg, longitude_deg) + 0.000003 * np.cos(longitude_deg * PER_TURN)
    return radius * np.cos(angle) + BD_SHIFT[0], radius * np.sin(angle) + BD_SHIFT[1]


@np.errstate(invalid="ignore", over="ignore")
def _inverse(
    forward: Callable[[Numbers, Numbers], Pair], longitude_deg: Numbers, latitude_deg: Numbers, steps: int
) -> Pair:
    """What `forward` makes into these, by the fixed point of place = given - (forward(place) - place)."""
    longitude, latitude = longitude_deg, latitude_deg
    for _ in range(steps):
        there = forward(longitude, latitude)
        longitude, latitude = longitude_deg - (there[0] - longitude), latitude_deg - (there[1] - latitude)
    return longitude, latitude
