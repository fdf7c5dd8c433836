"""Files of local reference systems whose parameters nobody mistakes for anything else, and their leaks."""

import math
import re
from pathlib import Path
from typing import Final

import numpy as np
from pyproj import Proj

EXTENT: Final = (121.53, 29.85, 121.57, 29.89)
# Of places in the city: longitude, latitude.
PLACES: Final = ((121.5412345678, 29.8612345678), (121.5598765432, 29.8687654321), (121.5487654321, 29.8765432198))

PLANE: Final = {"dx_m": 601_987.4321, "dy_m": 3_301_234.5678, "rotation_deg": 0.31415926, "scale": 1.0000271828}
SPACE: Final = {
    **{"tx_m": -15.4153, "ty_m": -144.2637, "tz_m": -81.2746},
    **{"rx_arcsec": 0.8127, "ry_arcsec": -1.3849, "rz_arcsec": 2.7163, "scale_ppm": -3.5824},
}
PROJECTION: Final = {
    "central_meridian_deg": 121.5283185,
    "false_easting_m": 61_803.3988,
    "false_northing_m": -3_141_592.6535,
    "projection_height_m": 27.1828,
}


def table(said: dict[str, float]) -> str:
    return "".join(f"{key} = {value!r}\n" for key, value in said.items())


def of_plane(e: float, n: float) -> tuple[float, float]:
    """The local place of one in EPSG:4549, by the four parameters the other way."""
    angle, dx, dy = math.radians(PLANE["rotation_deg"]), e - PLANE["dx_m"], n - PLANE["dy_m"]
    x, y = math.cos(angle) * dx + math.sin(angle) * dy, -math.sin(angle) * dx + math.cos(angle) * dy
    return x / PLANE["scale"], y / PLANE["scale"]


def of_space(longitude: float, latitude: float) -> tuple[float, float]:
    """The local place of one in CGCS2000, by geometry written out: no pipeline, no Helmert of PROJ's."""
    a, f = 6_378_137.0, 1 / 298.257222101
    e2 = f * (2 - f)
    phi, lam = math.radians(latitude), math.radians(longitude)
    n = a / math.sqrt(1 - e2 * math.sin(phi) ** 2)
    there = np.array(
        [n * math.cos(phi) * math.cos(lam), n * math.cos(phi) * math.sin(lam), n * (1 - e2) * math.sin(phi)]
    )
    rx, ry, rz = (math.radians(SPACE[f"r{axis}_arcsec"] / 3600) for axis in "xyz")
    turn = np.array([[1, -rz, ry], [rz, 1, -rx], [-ry, rx, 1]])  # position vector, small angles
    shift = np.array([SPACE["tx_m"], SPACE["ty_m"], SPACE["tz_m"]])
    x, y, z = np.linalg.solve((1 + SPACE["scale_ppm"] * 1e-6) * turn, there - shift)
    a, f = 6_378_245.0, 1 / 298.3  # Krassovsky
    e2, p = f * (2 - f), math.hypot(x, y)
    phi = math.atan2(z, p * (1 - e2))
    for _ in range(10):
        n = a / math.sqrt(1 - e2 * math.sin(phi) ** 2)
        phi = math.atan2(z + e2 * n * math.sin(phi), p)
    return projected("Krassovsky", math.degrees(math.atan2(y, x)), math.degrees(phi))


def projected(ellipsoid: str, longitude: float, latitude: float) -> tuple[float, float]:
    """On the plane of PROJECTION, by Krüger's series for the transverse Mercator, to the fourth power of n."""
    a, f = {"Krassovsky": (6_378_245.0, 1 / 298.3), "CGCS2000": (6_378_137.0, 1 / 298.257222101)}[ellipsoid]
    a += PROJECTION["projection_height_m"]
    n = f / (2 - f)
    alpha = [
        n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16 + 41 * n**4 / 180,
        13 * n**2 / 48 - 3 * n**3 / 5 + 557 * n**4 / 1440,
        61 * n**3 / 240 - 103 * n**4 / 140,
        49561 * n**4 / 161280,
    ]
    phi, lam = math.radians(latitude), math.radians(longitude - PROJECTION["central_meridian_deg"])
    e = 2 * math.sqrt(n) / (1 + n)
    t = math.sinh(math.atanh(math.sin(phi)) - e * math.atanh(e * math.sin(phi)))
    xi, eta = math.atan2(t, math.cos(lam)), math.asinh(math.sin(lam) / math.hypot(t, math.cos(lam)))
    radius = a / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    north = xi + sum(b * math.sin(2 * j * xi) * math.cosh(2 * j * eta) for j, b in enumerate(alpha, 1))
    east = eta + sum(b * math.cos(2 * j * xi) * math.sinh(2 * j * eta) for j, b in enumerate(alpha, 1))
    return PROJECTION["false_easting_m"] + radius * east, PROJECTION["false_northing_m"] + radius * north


def plane_file(off_m: float = 0.0) -> str:
    """A purely local frame; off_m: how far east of its control points the parameters put them."""
    text = f'[plane]\nto = "EPSG:4549"\n{table(PLANE)}'
    for place in PLACES:
        e, n = Proj("EPSG:4549")(*place)
        x, y = of_plane(e, n)
        text += f"[[control]]\n{table({'x_m': x, 'y_m': y, 'to_x_m': e - off_m, 'to_y_m': n})}"
    return text


def space_file() -> str:
    """An independent system on the ellipsoid of Beijing 1954."""
    text = f'ellipsoid = "Krassovsky 1940"\n{table(PROJECTION)}[space]\n{table(SPACE)}'
    return text + "".join(on_globe(of_space(*place), place) for place in PLACES)


def projection_file() -> str:
    """CGCS2000 on a plane of the city's own height."""
    text = f'ellipsoid = "CGCS2000"\n{table(PROJECTION)}'
    return text + "".join(on_globe(projected("CGCS2000", *place), place) for place in PLACES)


def on_globe(here: tuple[float, float], place: tuple[float, float]) -> str:
    numbers = {"x_m": here[0], "y_m": here[1], "longitude_deg": place[0], "latitude_deg": place[1]}
    return f"[[control]]\n{table(numbers)}"


FILES: Final = {"plane": plane_file, "space": space_file, "projection": projection_file}


def written(folder: Path, name: str, text: str) -> Path:
    """The file, for its owner alone."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def leaks(said: str, text: str) -> list[str]:
    """What of the numbers in a system's file stands in a text, in whole or but for its last digits."""
    numbers = {number for number in re.findall(r"\d+\.\d+", text) if len(number) > 6}
    assert len(numbers) > 8
    return sorted(number for number in numbers if number[:-2] in said)
