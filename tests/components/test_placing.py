"""Positions, edges, swapped axes, and transformations that must not be guessed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point

from exchange.deflected import bd09_of, gcj02_of
from exchange.placing import Placing, load_city, place
from security.errors import Misconfigured, Refusal
from tests.components.builders import CITY, EAST, LIMIT_M, WEST, a_row, areas, candidates


def placed(*rows: dict[str, Any], crs: str = "EPSG:4490") -> Placing:
    return place(candidates(rows), crs=crs, accuracy_m=0.5, city=CITY, limit_m=LIMIT_M)


def test_a_projected_position_comes_out_at_the_published_place() -> None:
    # domain/maps-and-crs.md: two independent computations agree to the centimetre
    row = placed(a_row("K", x=649654.95, y=3307153.91), crs="EPSG:4549").placed.row(0, named=True)
    assert abs(row["longitude_deg"] - 121.549) < 2e-7
    assert abs(row["latitude_deg"] - 29.874) < 2e-7
    assert (row["division_of_position"], row["grid_of_position"]) == (WEST, "330203001001002")
    assert row["accuracy_m"] == 0.5


@pytest.mark.parametrize(
    "x, y, division, grid",
    [
        (121.55, 29.865, WEST, "330203001001001"),  # on the edge of two districts
        (121.55, 29.87, WEST, "330203001001001"),  # on the corner of four grids
        (121.545, 29.87, WEST, "330203001001001"),  # on the edge of two grids of one district
        (121.5500001, 29.87, EAST, "330205001001001"),
    ],
)
def test_a_place_on_an_edge_belongs_to_the_lowest_code(x: float, y: float, division: str, grid: str) -> None:
    row = placed(a_row("K", x=x, y=y)).placed.row(0, named=True)
    assert (row["division_of_position"], row["grid_of_position"]) == (division, grid)


def test_the_tie_rule_does_not_hang_on_the_order_of_the_file() -> None:
    boxes = {"B": (0.0, 0.0, 1.0, 1.0), "A": (1.0, 0.0, 2.0, 1.0)}
    for order in (boxes, dict(reversed(boxes.items()))):
        found = areas(order).at(pl.Series([1.0, 0.5]).to_numpy(), pl.Series([0.5, 0.5]).to_numpy())
        assert found.to_list() == ["A", "B"]


def test_swapped_axes_are_noticed_and_the_place_outside_the_city_is_called_so() -> None:
    good, swapped, far = a_row("A"), a_row("B", x=29.865, y=121.541), a_row("C", x=120.0, y=30.0)
    result = placed(good, swapped, far)
    assert result.findings.select("record", "code", "severity").rows() == [
        (1, "position.axes_swapped", "error"),
        (2, "position.outside_city", "error"),
    ]
    assert result.placed["longitude_deg"].is_null().to_list() == [False, True, True]


def test_swapped_axes_of_metres_are_noticed() -> None:
    result = placed(a_row("A", x=3307153.91, y=649654.95), crs="EPSG:4549")
    assert result.findings["code"].to_list() == ["position.axes_swapped"]


@pytest.mark.parametrize("crs, deflected", [("GCJ-02", gcj02_of), ("BD-09", bd09_of)])
def test_a_deflected_position_comes_back_to_its_place_and_is_so_much_less_sure(crs: str, deflected: Any) -> None:
    x, y = deflected(np.array([121.549]), np.array([29.874]))
    there = a_row("K", x=x[0], y=y[0]), a_row("L", x=y[0], y=x[0])
    result = placed(*there, crs=crs)
    row = result.placed.row(0, named=True)
    assert row["longitude_deg"] == pytest.approx(121.549, abs=1e-9)
    assert row["latitude_deg"] == pytest.approx(29.874, abs=1e-9)
    assert row["accuracy_m"] == 1.5
    assert result.findings.select("record", "code").rows() == [(1, "position.axes_swapped")]


# 121.549, 29.874: in zone 40, in zone 41, and in zone 20 of six degrees (central meridian 117), 21 (123)
@pytest.mark.parametrize(
    "crs, x, y",
    [
        ("EPSG:4549", 40649654.95, 3307153.91),
        ("EPSG:4550", 40649654.95, 3307153.91),
        ("EPSG:4549", 41359814.28, 3307030.40),
        ("EPSG:4549", 21359814.28, 3307030.40),
        ("EPSG:4529", 40649654.95, 3307153.91),
        ("EPSG:4528", 649654.95, 3307153.91),
        ("EPSG:4529", 359814.28, 3307030.40),
        ("EPSG:4528", 41359814.28, 3307030.40),
    ],
)
def test_a_zone_number_that_is_not_the_declared_system_s_is_said(crs: str, x: float, y: float) -> None:
    far = a_row("B", x=40_000_000.0, y=y)
    result = placed(a_row("A", x=x, y=y), far, crs=crs)
    assert result.findings["code"].to_list() == ["position.zone_prefix", "position.outside_city"]
    assert result.placed["longitude_deg"].null_count() == 2


@pytest.mark.parametrize("x", [359814.28, 1e300, -1e300, 40_500_000_000.0, 46_649_654.95, 24_649_654.95])
def test_another_zone_without_its_number_and_numbers_that_are_none_are_outside_the_city(x: float) -> None:
    assert placed(a_row("A", x=x, y=3307030.40), crs="EPSG:4549").findings["code"].to_list() == [
        "position.outside_city"
    ]


def test_inside_the_extent_but_in_no_district_is_outside_the_city() -> None:
    assert placed(a_row("A", x=121.565)).findings["code"].to_list() == ["position.outside_city"]


def test_a_candidate_without_coordinates_is_placed_nowhere_and_no_finding_here() -> None:
    result = placed(a_row("A", x=None), a_row("B", y=None))
    assert result.findings.is_empty()
    assert result.placed["division_of_position"].to_list() == [None, None]


def test_an_empty_batch_is_placed() -> None:
    assert placed().placed.is_empty()


@pytest.mark.parametrize(
    "crs, code",
    [
        ("EPSG:99999", "placing.crs_unknown"),
        ("EPSG:2437", "placing.no_transformation"),  # Beijing 1954: local parameters would be needed
        ("EPSG:2385", "placing.no_transformation"),  # Xian 1980: likewise
    ],
)
def test_a_transformation_that_would_be_a_guess_is_refused(crs: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        placed(a_row("K", x=649654.95, y=3307153.91), crs=crs)
    assert refused.value.code == code


def test_a_transformation_less_accurate_than_the_limit_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        place(candidates([a_row("K")]), crs="EPSG:4490", accuracy_m=0.5, city=CITY, limit_m=-0.1)
    assert refused.value.code == "placing.transformation_too_coarse"


def geojson(path: Path, features: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def a_feature(code: str, ring: list[list[float]]) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"code": code}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


SQUARE = [[121.54, 29.86], [121.55, 29.86], [121.55, 29.87], [121.54, 29.87], [121.54, 29.86]]
BOW_TIE = [[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_a_city_is_loaded_from_geojson(tmp_path: Path) -> None:
    file = geojson(tmp_path / "a.geojson", [a_feature("B", SQUARE), a_feature("A", SQUARE)])
    city = load_city(file, file, (121.53, 29.85, 121.57, 29.89))
    assert city.districts.codes == ("A", "B")


@pytest.mark.parametrize(
    "features",
    [
        [a_feature("A", SQUARE), a_feature("A", SQUARE)],
        [a_feature("A", BOW_TIE)],
        [{"type": "Feature", "properties": {}, "geometry": None}],
    ],
)
def test_a_bad_city_file_stops_the_start_and_is_named(tmp_path: Path, features: list[dict[str, Any]]) -> None:
    file = geojson(tmp_path / "bad.geojson", features)
    with pytest.raises(Misconfigured, match=r"bad\.geojson"):
        load_city(file, file, (121.53, 29.85, 121.57, 29.89))


def test_an_extent_the_wrong_way_round_stops_the_start(tmp_path: Path) -> None:
    file = geojson(tmp_path / "a.geojson", [a_feature("A", SQUARE)])
    with pytest.raises(Misconfigured, match="extent"):
        load_city(file, file, (29.85, 121.53, 29.89, 121.57))


# Places on, beside and far from the edges of squares a thousandth of a degree wide, and of the polygons.
AXES = st.sampled_from([0.0, 1e-9, -1e-9, 0.0005, 0.001, 0.001 + 1e-12, 0.0025, 0.00999, 0.01, 0.02, 0.0201])


@given(st.lists(st.tuples(AXES, AXES), max_size=40))
def test_asked_square_by_square_a_place_lies_where_each_polygon_says(offsets: list[tuple[float, float]]) -> None:
    longitude, latitude = (np.array([origin + off[n] for off in offsets]) for n, origin in ((0, 121.54), (1, 29.86)))
    for known in (CITY.grid, CITY.districts):
        alone = [
            next(
                (c for c, shape in zip(known.codes, known.polygons, strict=True) if shape.intersects(Point(*at))), None
            )
            for at in zip(longitude, latitude, strict=True)
        ]
        assert known.at(longitude, latitude).to_list() == alone
