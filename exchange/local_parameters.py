"""地方坐标系参数 The secret file of a local reference system: its keys, and whether they can be meant.

For its owner alone. No value of it stands in any message: messages name keys, and control points by their number. What
the parsers themselves say quotes what they read, so it is not passed on, nor kept as a cause.

Axes: x is east, y is north, here as everywhere in the bus; survey sheets write X for north.
"""

import math
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from mappings.systems import EPSG, NAME, is_in_degrees
from security.errors import Misconfigured

ELLIPSOIDS: Final = {  # semi-major axis in metres, inverse flattening
    "CGCS2000": (6_378_137.0, 298.257222101),
    "Krassovsky 1940": (6_378_245.0, 298.3),  # Beijing 1954
    "IAG 1975": (6_378_140.0, 298.257),  # Xian 1980
}
OURS: Final = "CGCS2000"
PROJECTION: Final = ("ellipsoid", "central_meridian_deg", "false_easting_m", "false_northing_m", "projection_height_m")
APART_M: Final = 100.0  # two control points: one shows neither a wrong rotation nor a wrong scale
# What a number may be, by its key. Beyond it something else was meant: ppm for a factor, minutes for degrees.
BOUNDS: Final = {
    "central_meridian_deg": (70.0, 140.0),
    "projection_height_m": (-500.0, 9_000.0),
    "scale": (0.99, 1.01),
    "rotation_deg": (-360.0, 360.0),
    **dict.fromkeys(("rx_arcsec", "ry_arcsec", "rz_arcsec"), (-60.0, 60.0)),
    "scale_ppm": (-100.0, 100.0),
    "longitude_deg": (70.0, 140.0),
    "latitude_deg": (0.0, 60.0),
}
LENGTHS_M: Final = (-1e8, 1e8)


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is never printed, whoever prints it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Plane(Secret, frozen=True, forbid_unknown_fields=True):
    """四参数: x' = dx + scale (x cos r - y sin r), y' = dy + scale (x sin r + y cos r), in metres of `to`.

    rotation_deg: r, counter-clockwise; scale: a factor near 1
    """

    to: str
    dx_m: float
    dy_m: float
    rotation_deg: float
    scale: float


class Space(Secret, frozen=True, forbid_unknown_fields=True):
    """七参数 onto CGCS2000 by the position vector convention (EPSG method 1033): rotations turn the vector.

    In the coordinate frame convention (1032) the same parameters have rotations of the other sign.
    """

    tx_m: float
    ty_m: float
    tz_m: float
    rx_arcsec: float
    ry_arcsec: float
    rz_arcsec: float
    scale_ppm: float


class Control(Secret, frozen=True, forbid_unknown_fields=True):
    """控制点: a place in this system, and in that of `[plane] to` or in degrees of CGCS2000."""

    x_m: float
    y_m: float
    to_x_m: float | None = None
    to_y_m: float | None = None
    longitude_deg: float | None = None
    latitude_deg: float | None = None


class Parameters(Secret, frozen=True, forbid_unknown_fields=True):
    """The keys of NAME.toml. The five of the projection stand together or not at all.

    projection_height_m: the ellipsoid's semi-major axis is longer by so much; its flattening, and latitude and
                         longitude of a place, stay as they are
    """

    ellipsoid: str | None = None
    central_meridian_deg: float | None = None
    false_easting_m: float | None = None
    false_northing_m: float | None = None
    projection_height_m: float | None = None
    plane: Plane | None = None
    space: Space | None = None
    control: list[Control] = []

    @property
    def is_projected(self) -> bool:
        """Whether it says a projection."""
        return self.ellipsoid is not None

    @property
    def is_defined(self) -> bool:
        """Whether it follows from its definition, and no point has to prove it: a projection of CGCS2000 itself."""
        return not self.plane and not self.space and self.projection_height_m == 0


def read_parameters(path: Path) -> Parameters:
    """What a file says. Raises Misconfigured config.system_exposed, config.system_file, naming file and key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as problem:
        raise wrong_file(path, str(problem.strerror)) from problem
    if mode & 0o077:
        raise Misconfigured(
            "config.system_exposed", f"{path} has mode {mode:04o}: other accounts can get at it; chmod 600 {path}"
        )
    said = _parsed(path)
    wrong = said if isinstance(said, str) else next(_mistakes(said, path.stem), "")
    if wrong or isinstance(said, str):
        raise wrong_file(path, wrong)
    return said


def wrong_file(path: Path, what: str) -> Misconfigured:
    """The file cannot be meant. what: key and fault, never a value."""
    return Misconfigured("config.system_file", f"{path}: {what}")


def _parsed(path: Path) -> Parameters | str:
    """What the file says, or what is wrong with it."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Parameters)
    except OSError as problem:
        return str(problem.strerror)
    except UnicodeDecodeError:
        return "is not UTF-8"
    except tomllib.TOMLDecodeError as problem:
        place = re.search(r"line \d+", str(problem))
        return f"is no TOML ({place[0] if place else 'its end'})"
    except msgspec.ValidationError as problem:  # names types and the key, and of a key that is none what it is called
        return re.sub(r"unknown field `.*`", "an unknown key", str(problem))


def _mistakes(said: Parameters, name: str) -> Iterator[str]:
    """What is wrong, in reading order, each with its key."""
    if not NAME.fullmatch(name):
        yield "the file's name is not lower-case letters, digits and single hyphens"
    yield from _number_mistakes(said)
    lacking = [key for key in PROJECTION if getattr(said, key) is None]
    if 0 < len(lacking) < len(PROJECTION):
        yield f"{lacking[0]}: is missing; the keys of the projection stand together or not at all"
    if said.ellipsoid is not None and said.ellipsoid not in ELLIPSOIDS:
        yield f"ellipsoid: is none of {', '.join(ELLIPSOIDS)}"
    if said.plane and said.space:
        yield "plane, space: one of the two"
    if said.plane and not (EPSG.fullmatch(said.plane.to) and is_in_degrees(said.plane.to) is False):
        yield "plane.to: is no system in metres of the form EPSG:4549"
    if not said.plane and not said.is_projected:
        yield "says neither [plane] nor a projection"
    if not said.plane and not said.space and said.ellipsoid not in (None, OURS):
        yield "ellipsoid: of another datum than CGCS2000, and no [space] or [plane] leads there"
    yield from _control_mistakes(said)


def _number_mistakes(said: Parameters) -> Iterator[str]:
    parts: list[tuple[str, Secret | None]] = [("", said), ("plane.", said.plane), ("space.", said.space)]
    parts += [(f"control {number}: ", point) for number, point in enumerate(said.control, 1)]
    for where, part in parts:
        for key in part.__struct_fields__ if part else ():
            value, (low, high) = getattr(part, key), BOUNDS.get(key, LENGTHS_M)
            if isinstance(value, float) and not low <= value <= high:  # NaN, too
                yield f"{where}{key}: is not between {low:,g} and {high:,g}"


def _control_mistakes(said: Parameters) -> Iterator[str]:
    for number, point in enumerate(said.control, 1):
        plane, globe = (point.to_x_m, point.to_y_m), (point.longitude_deg, point.latitude_deg)
        if sorted([_whole(plane), _whole(globe)]) != [False, True] or None in (plane if _whole(plane) else globe):
            yield f"control {number}: has either to_x_m and to_y_m or longitude_deg and latitude_deg"
        elif _whole(plane) and not said.plane:
            yield f"control {number}: to_x_m is in the system of [plane] to, which is not there"
    if said.is_defined:
        return
    first = said.control[0] if said.control else None
    if first is None or not any(math.hypot(p.x_m - first.x_m, p.y_m - first.y_m) >= APART_M for p in said.control):
        yield f"control: two points at least, {APART_M:g} m apart: parameters that nothing proves are a guess"


def _whole(pair: tuple[float | None, float | None]) -> bool:
    return pair != (None, None)
