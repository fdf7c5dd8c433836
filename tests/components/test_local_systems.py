"""Local systems: right against geometry written out, proved at control points, and never told."""

import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec import structs
from pyproj import Geod, Proj
from rich.console import Console
from rich.pretty import Pretty

from exchange.local_parameters import read_parameters
from exchange.local_systems import LocalSystem, check_declared, check_residuals, read_system, read_systems
from exchange.placing import Placing, place
from exchange.store.places import distance_m
from mappings.load import read_feed
from security.errors import Misconfigured, Refusal, sentences
from tests.components.builders import CITY, EAST, LIMIT_M, WEST, a_row, candidates
from tests.components.local_files import (
    EXTENT,
    FILES,
    PLACES,
    of_plane,
    of_space,
    plane_file,
    projected,
    space_file,
    written,
)
from tests.components.local_files import leaks as leaked
from tests.mappings.test_load import GOOD, ROOT

CENTRE = (121.549, 29.874)
AT_ZERO = 'ellipsoid = "CGCS2000"\ncentral_meridian_deg = 120\nfalse_easting_m = 500000\nfalse_northing_m = 0\n'


def a_system(folder: Path, text: str, name: str = "city") -> LocalSystem:
    return read_system(written(folder, name, text), EXTENT)


def degrees(system: LocalSystem, x: float, y: float) -> tuple[float, float]:
    longitude, latitude = system.transformation.degrees_of(np.array([x]), np.array([y]))
    return float(longitude[0]), float(latitude[0])


def off_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    return float(distance_m(*(np.array([number]) for number in (*one, *other)))[0])


# Right ----------------------------------------------------------------------------------------------------------------


def test_a_projection_of_cgcs2000_is_the_one_that_epsg_knows(tmp_path: Path) -> None:
    # domain/maps-and-crs.md: two independent computations agree to the centimetre
    system = a_system(tmp_path, f"{AT_ZERO}projection_height_m = 0\n")
    assert off_m(degrees(system, 649_654.95, 3_307_153.91), CENTRE) < 0.01
    assert (system.kind, system.rests_on, system.transformation.accuracy_m) == ("projection", "CGCS2000", 0.0)


@pytest.mark.parametrize(
    "kind, local",
    [
        ("plane", lambda *at: of_plane(*Proj("EPSG:4549")(*at))),
        ("space", of_space),
        ("projection", lambda *at: projected("CGCS2000", *at)),
    ],
)
def test_a_system_is_that_of_geometry_written_out(
    tmp_path: Path, kind: str, local: Callable[..., tuple[float, float]]
) -> None:
    system = a_system(tmp_path, FILES[kind]())
    assert off_m(degrees(system, *local(*CENTRE)), CENTRE) < 0.001
    back = system.transformation.back(*(np.array([axis]) for axis in CENTRE))
    assert np.hypot(*(there[0] - here for there, here in zip(back, local(*CENTRE), strict=True))) < 0.001
    assert (system.kind, len(system.residuals_m)) == (kind, 3)
    assert system.worst_m < 0.001


def test_a_hundred_metres_of_projection_height_are_1_57_cm_for_each_kilometre(tmp_path: Path) -> None:
    def ground_m(height_m: int) -> float:
        way = a_system(tmp_path, f"{AT_ZERO}projection_height_m = {height_m}\n{control}").transformation
        ends = way.degrees_of(np.array([500_000.0, 501_000.0]), np.array([3_307_153.91] * 2))
        return float(Geod(ellps="GRS80").inv(ends[0][0], ends[1][0], ends[0][1], ends[1][1])[2])

    point = "[[control]]\nx_m = {}\ny_m = 0\nlongitude_deg = 120\nlatitude_deg = 0\n"
    control = point.format(500_000) + point.format(510_000)
    assert ground_m(0) == pytest.approx(1000.0, abs=0.0001)
    assert (ground_m(0) - ground_m(100)) * 100 == pytest.approx(1.568, abs=0.001)


def test_the_rms_at_control_points_is_added_to_the_accuracy(tmp_path: Path) -> None:
    system = a_system(tmp_path, plane_file(off_m=0.06))
    assert system.rms_m == pytest.approx(0.06, rel=1e-3)
    assert system.residuals_m[:, 0] == pytest.approx([0.06] * 3, rel=1e-3)
    row = placed(system, *of_plane(*Proj("EPSG:4549")(*CENTRE))).placed.row(0, named=True)
    assert row["accuracy_m"] == pytest.approx(0.56, rel=1e-3)
    assert (row["division_of_position"], row["grid_of_position"]) == (WEST, "330203001001002")


def placed(system: LocalSystem, x: float, y: float) -> Placing:
    city = structs.replace(CITY, systems={system.name: system})
    return place(
        candidates([a_row("K", x=x, y=y)]), crs=f"local:{system.name}", accuracy_m=0.5, city=city, limit_m=LIMIT_M
    )


def test_swapped_axes_of_a_local_plane_are_noticed(tmp_path: Path) -> None:
    x, y = of_plane(*Proj("EPSG:4549")(*CENTRE))
    assert placed(a_system(tmp_path, plane_file()), y, x).findings["code"].to_list() == ["position.axes_swapped"]


def test_the_other_convention_of_rotations_is_seen_at_the_control_points(tmp_path: Path) -> None:
    turned = space_file().replace("rz_arcsec = ", "rz_arcsec = -")
    assert a_system(tmp_path, turned).worst_m > 50


def test_the_examples_of_the_document_hold(tmp_path: Path) -> None:
    text = (ROOT / "docs/systems.md").read_text(encoding="utf-8")
    systems = [a_system(tmp_path, said) for said in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    assert [system.kind for system in systems] == ["plane", "space"]
    assert all(system.worst_m < 0.002 for system in systems)


# Refused --------------------------------------------------------------------------------------------------------------


def test_parameters_that_miss_a_control_point_stop_the_start_and_say_by_how_much(tmp_path: Path) -> None:
    system = a_system(tmp_path, plane_file(off_m=0.25))
    check_residuals([system], 0.26)
    with pytest.raises(
        Misconfigured, match=r"city: a control point is 25\.0 cm off.*yongtong systems check city"
    ) as told:
        check_residuals([system], 0.1)
    assert told.value.code == "config.system_residual"


def test_a_control_point_that_the_projection_does_not_reach_is_a_miss(tmp_path: Path) -> None:
    system = a_system(tmp_path, plane_file() + "[[control]]\nx_m = 1e7\ny_m = 9e7\nto_x_m = 0\nto_y_m = 0\n")
    with pytest.raises(Misconfigured):
        check_residuals([system], 1.0)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, "city", plane_file())
    path.chmod(mode)
    with pytest.raises(Misconfigured, match=f"{path} has mode {mode:04o}") as told:
        read_system(path, EXTENT)
    assert told.value.code == "config.system_exposed"


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "city.toml").symlink_to("nothing")
    with pytest.raises(Misconfigured, match=r"city\.toml: No such file"):
        read_systems(tmp_path, EXTENT)


def test_a_system_that_is_not_here_is_named_and_nothing_is_guessed(tmp_path: Path) -> None:
    feed = read_feed(GOOD.replace("EPSG:4549", "local:nowhere").encode(), "lighting-census")
    for ask in (
        lambda: check_declared([feed], read_systems(tmp_path, EXTENT)),
        lambda: place(candidates([a_row("K")]), crs="local:nowhere", accuracy_m=0.5, city=CITY, limit_m=LIMIT_M),
    ):
        with pytest.raises(
            Misconfigured, match=r"local:nowhere: no nowhere\.toml in the folder of \[city\] systems"
        ) as told:
            ask()
        assert told.value.code == "config.system_unknown"
    assert "systems.md" in sentences()["config.system_unknown"].next_zh


def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as told:
        read_systems(tmp_path / "nowhere", EXTENT)
    assert told.value.code == "config.no_folder"


def test_beijing_1954_without_parameters_is_refused_and_says_where_they_go() -> None:
    with pytest.raises(Refusal) as refused:
        place(candidates([a_row("K")]), crs="EPSG:2437", accuracy_m=0.5, city=CITY, limit_m=LIMIT_M)
    assert "local:NAME" in refused.value.sentence.next_en


SPOILT = [
    ("plane", "scale = 1.00", "scale = 27.00", "plane.scale: is not between 0.99 and 1.01"),
    ("plane", "scale = 1.0000271828", "scale = nan", "plane.scale: is not between"),
    ("plane", "dx_m = ", "dx_m = 1000", "plane.dx_m: is not between"),
    ("plane", "dx_m = 601987.4321", "dx_m = '601987.4321'", "Expected `float`, got `str` - at `$.plane.dx_m`"),
    ("plane", "dx_m = 601987.4321", "601987_4321 = 1", "an unknown key"),
    ("plane", "dx_m = 601987.4321", f"dx_m = {10**400}", "Number out of range - at `$.plane.dx_m`"),
    ("plane", "dx_m = 601987.4321", "dx_m = 1e400", "plane.dx_m: is not between"),
    ("plane", "dx_m = 601987.4321", "dx_m = true", "Expected `float`, got `bool` - at `$.plane.dx_m`"),
    ("plane", "rotation_deg", "rotation_rad", "an unknown key"),
    ("plane", "dx_m = 601987.4321", "", "missing required field `dx_m`"),
    ("plane", "dx_m = 601987.4321", "dx_m = 601987.4321 601987.4321", "is no TOML (line 3)"),
    ("plane", "dx_m = 601987.4321", "dx_m = 601987.4321\ndx_m = 601987.4321", "is no TOML (line 4)"),
    ("plane", "EPSG:4549", "EPSG:4490", "plane.to: is no system in metres"),
    ("plane", "EPSG:4549", "601987.4321", "plane.to: is no system in metres"),
    ("plane", "EPSG:4549", "EPSG:2437", "plane.to: placing.no_transformation"),
    ("plane", "[plane]", "[space]", "an unknown key"),
    ("plane", "to_x_m = ", "x2_m = ", "an unknown key"),
    ("plane", "to_y_m = ", "latitude_deg = 29 # ", "control 1: has either to_x_m and to_y_m or longitude_deg"),
    ("space", "Krassovsky 1940", "Krasovsky", "ellipsoid: is none of CGCS2000, Krassovsky 1940, IAG 1975"),
    ("space", "false_northing_m", "#", "false_northing_m: is missing; the keys of the projection stand together"),
    ("space", "ellipsoid", "#", "ellipsoid: is missing"),
    ("space", "rx_arcsec = 0.8127", "rx_arcsec = 812.7", "space.rx_arcsec: is not between -60 and 60"),
    ("space", "longitude_deg = 121.5412345678", "longitude_deg = 29.8612345678", "control 1: longitude_deg: is not"),
    ("space", "[[control]]", "[[controls]]", "an unknown key"),
    (
        "projection",
        "CGCS2000",
        "Krassovsky 1940",
        "ellipsoid: of another datum than CGCS2000, and no [space] or [plane]",
    ),
    ("projection", "longitude_deg = ", "to_x_m = 1\nto_y_m = 1\n# ", "control 1: has either"),
]


@pytest.mark.parametrize("kind, good, bad, said", SPOILT)
def test_one_thing_spoilt_is_named_by_its_key_and_no_number_of_the_file_is_told(
    tmp_path: Path, kind: str, good: str, bad: str, said: str
) -> None:
    text = FILES[kind]()
    assert good in text
    path = written(tmp_path, "city", text.replace(good, bad))
    with pytest.raises(Misconfigured) as told:
        read_system(path, EXTENT)
    problem = told.value
    assert (problem.code, str(problem).startswith(f"{path}: ")) == ("config.system_file", True)
    assert said in str(problem)
    assert leaked(str(problem), text) == []
    assert (problem.__cause__, problem.__context__) == (None, None)  # a traceback quotes what the parsers said


def test_parameters_without_control_points_are_a_guess(tmp_path: Path) -> None:
    for kind in ("plane", "space", "projection"):
        head, _, points = FILES[kind]().partition("[[control]]")
        one = head + "[[control]]" + points.split("[[control]]")[0]
        for few in (head, one, one + "[[control]]" + points.split("[[control]]")[0]):
            with pytest.raises(Misconfigured, match=r"control: two points at least, 100 m apart"):
                a_system(tmp_path, few)


def test_four_parameters_that_turn_otherwise_than_the_projection_beside_them_are_refused(tmp_path: Path) -> None:
    # EPSG:4550 onto EPSG:4549: meridians converge by 1.49 degrees, and the scales are by 40 ppm apart
    here, there = Proj("EPSG:4550"), Proj("EPSG:4549")
    (a, b), (c, d) = ((complex(*proj(*PLACES[0])), complex(*proj(*PLACES[1]))) for proj in (here, there))
    turn = (d - c) / (b - a)
    shift = c - turn * a
    said = {"dx_m": shift.real, "dy_m": shift.imag, "rotation_deg": math.degrees(np.angle(turn)), "scale": abs(turn)}
    points = "".join(
        f"[[control]]\nx_m = {x!r}\ny_m = {y!r}\nlongitude_deg = {at[0]!r}\nlatitude_deg = {at[1]!r}\n"
        for at in PLACES
        for x, y in [here(*at)]
    )
    plane = '[plane]\nto = "EPSG:4549"\n' + "".join(f"{key} = {value!r}\n" for key, value in said.items())
    right = AT_ZERO.replace("120", "123") + "projection_height_m = 0\n"
    assert a_system(tmp_path, right + plane + points).worst_m < 0.05
    with pytest.raises(Misconfigured, match="plane: turns or stretches otherwise than the projection"):
        a_system(tmp_path, right.replace("123", "120") + plane + points)


# Never told -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILES)
def test_what_holds_parameters_shows_none_however_it_is_printed(tmp_path: Path, kind: str) -> None:
    text = FILES[kind]()
    path = written(tmp_path, "city", text)
    system, said = read_system(path, EXTENT), read_parameters(path)
    city = structs.replace(CITY, systems={"city": system})
    paper = io.StringIO()
    for thing in (system, said, said.plane, said.space, said.control, system.transformation, {"city": city.systems}):
        Console(file=paper, width=10_000).print(Pretty(thing), thing)
        paper.write(f"{thing!r} {thing} {thing}")
    assert leaked(paper.getvalue(), text) == []
    assert leaked(text, text)  # the search itself finds them


READING = """
import logging, pathlib, sys
import numpy as np
from exchange.local_systems import read_system
logging.basicConfig(level=logging.DEBUG)
system = read_system(pathlib.Path(sys.argv[1]), (121.53, 29.85, 121.57, 29.89))
print(system.transformation.degrees_of(np.array([0.0, 1e300, np.nan]), np.array([9e7, 9e7, 9e7])), system.rms_m)
"""


def test_with_all_of_proj_s_debugging_on_no_parameter_is_logged(tmp_path: Path) -> None:
    text = space_file()
    command = [sys.executable, "-c", READING, str(written(tmp_path, "city", text))]
    environment = {**os.environ, "PROJ_DEBUG": "3"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT, check=True)
    assert "inf" in done.stdout
    assert leaked(done.stdout + done.stderr, text) == []


def test_a_finding_quotes_what_the_sender_said_and_no_parameter(tmp_path: Path) -> None:
    text = plane_file()
    found = placed(a_system(tmp_path, text), 1.0, 2.0).findings
    assert found["value"].to_list() == ["1.0 2.0"]
    assert leaked(str(found.select(pl.all().cast(pl.String)).rows()), text) == []


def test_east_of_the_meridian_the_second_district_is_found(tmp_path: Path) -> None:
    x, y = of_plane(*Proj("EPSG:4549")(121.5551, 29.8701))
    row = placed(a_system(tmp_path, plane_file()), x, y).placed.row(0, named=True)
    assert row["division_of_position"] == EAST
