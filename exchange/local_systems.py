"""地方坐标系 Local reference systems of the city's, each proved at its control points when it is loaded.

Parameters stay inside the function that transforms (`exchange.local_parameters` says why): here are their kind, and how
far control points are off. PROJ is given them as text and quotes it in what it says, so no cause of its is kept.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from pyproj.exceptions import ProjError
from pyproj.transformer import Transformer

from exchange.local_parameters import ELLIPSOIDS, OURS, Parameters, Plane, Space, read_parameters, wrong_file
from exchange.store.places import metres_per_degree
from exchange.transformation import DEFLECTED, Extent, Numbers, Transformation, by_epsg, by_transformer
from mappings.feed import Feed
from mappings.systems import local_name
from security.errors import Misconfigured, Refusal

# How far [plane] may turn and stretch otherwise than the projection beside it: datums do less, mistakes more.
STRETCHES_ALIKE, TURNS_ALIKE_DEG = 1e-4, 0.02
STEP_M: Final = 1000.0

# All that PROJ says comes at DEBUG; with PROJ_DEBUG set it would log each parameter that it is given.
logging.getLogger("pyproj").setLevel(logging.INFO)


class LocalSystem(msgspec.Struct, frozen=True):
    """A local system whose parameters were read.

    kind:           of its parameters: four of the plane, seven of space, or none but its projection
    rests_on:       where they lead, or of which ellipsoid they are: `EPSG:4549`, `Krassovsky 1940`
    transformation: to CGCS2000; its accuracy is the residuals' RMS, and that of what follows [plane]
    residuals_m:    (control points, 2): east and north, what the parameters give less what the point says
    """

    name: str
    kind: Literal["plane", "space", "projection"]
    rests_on: str
    transformation: Transformation
    residuals_m: Numbers

    @property
    def distances_m(self) -> Numbers:
        """(control points,): how far each is off."""
        return np.hypot(self.residuals_m[:, 0], self.residuals_m[:, 1])

    @property
    def rms_m(self) -> float:
        """Root of the mean square of the distances; 0 without control points."""
        return float(np.sqrt(np.mean(self.distances_m**2))) if len(self.residuals_m) else 0.0

    @property
    def worst_m(self) -> float:
        """The largest distance; 0 without control points."""
        return float(self.distances_m.max(initial=0.0))


def read_systems(folder: Path, extent_deg: Extent) -> dict[str, LocalSystem]:
    """Every local system of a folder by name, however far its control points are off.

    Raises Misconfigured config.no_folder, config.system_exposed, config.system_file.
    """
    if not folder.is_dir():
        raise Misconfigured("config.no_folder", f"{folder}: no such folder of local systems")
    return {path.stem: read_system(path, extent_deg) for path in sorted(folder.glob("*.toml"))}


def check_residuals(systems: Iterable[LocalSystem], worst_m: float) -> None:
    """Return if no control point is farther off than allowed. Raises Misconfigured config.system_residual."""
    for system in systems:
        if not system.worst_m <= worst_m:  # infinite, too: a point that the projection does not reach
            raise Misconfigured(
                "config.system_residual",
                f"{system.name}: a control point is {system.worst_m * 100:.1f} cm off, more than the "
                f"{worst_m * 100:g} cm of [tolerances] control_point_m; yongtong systems check {system.name}",
            )


def transformation(crs: str, extent_deg: Extent, systems: Mapping[str, LocalSystem]) -> Transformation:
    """The way from any system that a feed may declare to CGCS2000.

    Raises Refusal of `by_epsg`; Misconfigured config.system_unknown.
    """
    if crs in DEFLECTED:
        return DEFLECTED[crs]
    name = local_name(crs)
    if not name:
        return by_epsg(crs, extent_deg)
    if name not in systems:
        raise Misconfigured("config.system_unknown", f"{crs}: no {name}.toml in the folder of [city] systems")
    return systems[name].transformation


def check_declared(feeds: Iterable[Feed], systems: Mapping[str, LocalSystem]) -> None:
    """Return if every local system that a feed declares is there. Raises Misconfigured config.system_unknown."""
    for feed in feeds:
        if (name := local_name(feed.crs)) and name not in systems:
            raise Misconfigured(
                "config.system_unknown",
                f"{feed.id}.toml: crs: {feed.crs}: no {name}.toml in the folder of [city] systems",
            )


def read_system(path: Path, extent_deg: Extent) -> LocalSystem:
    """One system from its file, however far its control points are off.

    Raises Misconfigured config.system_exposed, config.system_file; never with a value of the file.
    """
    said = read_parameters(path)
    try:
        way = _way(said, extent_deg)
        alike = not said.plane or not said.is_projected or _are_alike(said, way)
        fault = "" if alike else "plane: turns or stretches otherwise than the projection: correct one, or leave it out"
    except Refusal as refusal:
        fault = f"plane.to: {refusal.code}"
    except ProjError:
        fault = "PROJ does not take these parameters"
    if fault:
        raise wrong_file(path, fault)
    kind: Literal["plane", "space", "projection"] = "plane" if said.plane else "space" if said.space else "projection"
    rests_on = said.plane.to if said.plane else str(said.ellipsoid)
    system = LocalSystem(path.stem, kind, rests_on, way, _residuals_m(said, way, extent_deg))
    proven = msgspec.structs.replace(way, accuracy_m=way.accuracy_m + system.rms_m)
    return msgspec.structs.replace(system, transformation=proven)


def _way(said: Parameters, extent_deg: Extent) -> Transformation:
    """From the system's plane to CGCS2000. Raises Refusal of `by_epsg`, ProjError."""
    if said.plane:
        then = by_epsg(said.plane.to, extent_deg)
        ways = (partial(_by_plane, said.plane, then), partial(_back_to_plane, said.plane, then))
        return Transformation(then.accuracy_m, *ways)
    steps = ["+proj=pipeline", f"+step +inv {_projection(said)}"]
    if said.space:
        steps += [f"+step +proj=cart {_ellipsoid(said)}", f"+step {_helmert(said.space)}", "+step +inv +proj=cart"]
        steps[-1] += f" {_shape(*ELLIPSOIDS[OURS])}"
    steps.append("+step +proj=unitconvert +xy_in=rad +xy_out=deg")
    return by_transformer(0.0, Transformer.from_pipeline(" ".join(steps)))


def _by_plane(plane: Plane, then: Transformation, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    turned = plane.scale * np.exp(1j * np.radians(plane.rotation_deg)) * (x + 1j * y)
    return then.degrees_of(plane.dx_m + turned.real, plane.dy_m + turned.imag)


def _back_to_plane(
    plane: Plane, then: Transformation, longitude: Numbers, latitude: Numbers
) -> tuple[Numbers, Numbers]:
    x, y = then.back(longitude, latitude)
    turned = (x - plane.dx_m + 1j * (y - plane.dy_m)) * np.exp(-1j * np.radians(plane.rotation_deg)) / plane.scale
    return turned.real, turned.imag


def _projection(said: Parameters) -> str:
    axis_m, inverse_flattening = ELLIPSOIDS[str(said.ellipsoid)]
    assert said.projection_height_m is not None
    shape = _shape(axis_m + said.projection_height_m, inverse_flattening)
    offset = f"+x_0={said.false_easting_m!r} +y_0={said.false_northing_m!r}"
    return f"+proj=tmerc +lat_0=0 +lon_0={said.central_meridian_deg!r} +k=1 {offset} {shape}"


def _ellipsoid(said: Parameters) -> str:
    return _shape(*ELLIPSOIDS[str(said.ellipsoid)])


def _shape(axis_m: float, inverse_flattening: float) -> str:
    return f"+a={axis_m!r} +rf={inverse_flattening!r}"


def _helmert(space: Space) -> str:
    shift = f"+x={space.tx_m!r} +y={space.ty_m!r} +z={space.tz_m!r}"
    turn = f"+rx={space.rx_arcsec!r} +ry={space.ry_arcsec!r} +rz={space.rz_arcsec!r}"
    return f"+proj=helmert {shift} {turn} +s={space.scale_ppm!r} +convention=position_vector"


def _residuals_m(said: Parameters, way: Transformation, extent_deg: Extent) -> Numbers:
    """(control points, 2), east and north."""
    if not said.control:
        return np.empty((0, 2))
    x, y = (np.array([getattr(point, key) for point in said.control]) for key in ("x_m", "y_m"))
    globe = np.array([(point.longitude_deg, point.latitude_deg) for point in said.control], dtype=np.float64)
    if said.plane:
        to = np.array([(point.to_x_m, point.to_y_m) for point in said.control], dtype=np.float64)
        there = np.column_stack(by_epsg(said.plane.to, extent_deg).degrees_of(*to.T))
        globe = np.where(np.isnan(globe), there, globe)
    longitude, latitude = way.degrees_of(x, y)
    east, north = metres_per_degree(globe[:, 1])
    return np.column_stack([(longitude - globe[:, 0]) * east, (latitude - globe[:, 1]) * north])


def _are_alike(said: Parameters, way: Transformation) -> bool:
    """Whether the projection turns and stretches as the four parameters do, at the first control point."""
    first = said.control[0]
    ends = way.degrees_of(np.array([first.x_m, first.x_m + STEP_M]), np.array([first.y_m, first.y_m]))
    x, y = Transformer.from_pipeline(
        f"+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step {_projection(said)}"
    ).transform(*ends)
    step = complex(x[1] - x[0], y[1] - y[0]) / STEP_M
    return abs(abs(step) - 1) <= STRETCHES_ALIKE and abs(np.degrees(np.angle(step))) <= TURNS_ALIKE_DEG
