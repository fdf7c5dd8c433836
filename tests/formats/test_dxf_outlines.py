"""The course of a polyline is what two other readers draw, and an arc's chords keep to the stated distance from it."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyogrio
import pytest
import shapely
from ezdxf.entities import LWPolyline
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats import dxf
from security.message import file_content
from tests.formats.test_dxf import SURVEYS, VERSIONS, drawing, records, refusal

Corner = tuple[float, float, float]  # x, y, bulge


def flat(corners: list[Corner], *, closed: bool = False, more: str = "") -> str:
    said = "".join(f"10\n{x!r}\n20\n{y!r}\n" + (f"42\n{bulge!r}\n" if bulge else "") for x, y, bulge in corners)
    return f"0\nLWPOLYLINE\n8\n0\n90\n{len(corners)}\n70\n{int(closed)}\n38\n2.5\n{more}{said}"


def vertices(corners: list[Corner], flags: int = 0, of_each: int = 0) -> str:
    each = "".join(f"0\nVERTEX\n8\n0\n10\n{x!r}\n20\n{y!r}\n42\n{bulge!r}\n70\n{of_each}\n" for x, y, bulge in corners)
    return f"0\nPOLYLINE\n8\n0\n66\n1\n70\n{flags}\n30\n2.5\n{each}0\nSEQEND\n"


def course(entity: str, chord_mm: int = 10) -> shapely.Geometry | None:
    [said] = records(entity, chord_mm=chord_mm)["outline"]
    return None if said is None else shapely.from_wkt(said)


def drawn(corners: list[Corner], closed: bool, normal: tuple[float, ...]) -> shapely.Geometry:
    """The lines and arcs that ezdxf takes it apart into, the arcs by chords a hundredth of a millimetre from them."""
    entity = LWPolyline.new(dxfattribs={"elevation": 2.5, "extrusion": normal})
    entity.append_points(corners, format="xyb")
    entity.closed = closed
    parts = [
        list(part.flattening(1e-5)) if part.dxftype() == "ARC" else [part.dxf.start, part.dxf.end]
        for part in entity.virtual_entities()
    ]
    return shapely.MultiLineString([[(place.x, place.y) for place in part] for part in parts])


PLACES = st.floats(-500, 500).map(lambda value: round(value, 3))
BULGES = st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.4142, -0.1, 3.0, 0.001])


@given(
    corners=st.lists(st.tuples(PLACES, PLACES, BULGES), min_size=2, max_size=6, unique_by=lambda c: (c[0], c[1])),
    closed=st.booleans(),
    normal=st.sampled_from([(0, 0, 1), (0, 0, -1), (0.6, 0.0, 0.8)]),
    chord_mm=st.sampled_from([1, 10, 1000]),
)
@settings(max_examples=60, deadline=None)
def test_an_arc_s_chords_keep_to_the_stated_distance_from_what_ezdxf_draws(
    corners: list[Corner], closed: bool, normal: tuple[float, float, float], chord_mm: int
) -> None:
    more = "".join(f"{code}\n{value}\n" for code, value in zip((210, 220, 230), normal, strict=True))
    ours = course(flat(corners, closed=closed, more=more), chord_mm)
    assert ours is not None
    line = ours.exterior if ours.geom_type == "Polygon" else ours
    assert shapely.hausdorff_distance(line, drawn(corners, closed, normal)) <= chord_mm / 1000 + 2e-5
    with_vertices = course(vertices(corners, int(closed)), chord_mm)
    if normal == (0, 0, 1):
        assert shapely.equals_exact(ours, with_vertices)


def test_a_half_circle_is_as_long_as_it_should_be_and_a_closed_one_is_an_area() -> None:
    half = course(flat([(0, 0, 1.0), (10, 0, 0)]), 1)
    assert half is not None
    assert half.length == pytest.approx(15.70796, abs=0.005)
    assert half.bounds[1] == pytest.approx(-5, abs=0.001)  # a positive bulge lies to the right of the chord
    circle = course(flat([(0, 0, 1.0), (10, 0, 1.0)], closed=True), 1)
    assert circle is not None
    assert (circle.geom_type, circle.area) == ("Polygon", pytest.approx(78.5398, abs=0.05))


def test_what_is_straight_has_its_corners_and_no_others() -> None:
    assert records(flat([(649654.95, 3307153.91, 0), (1.5, 2, 0)]), chord_mm=1)["outline"].to_list() == [
        "LINESTRING (649654.95 3307153.91, 1.5 2.0)"
    ]
    square: list[Corner] = [(0, 0, 0), (1, 0, 0), (1, 1, 0)]
    assert records(flat(square, closed=True), chord_mm=1)["outline"].to_list() == [
        "POLYGON ((0.0 0.0, 1.0 0.0, 1.0 1.0, 0.0 0.0))"
    ]


@pytest.mark.parametrize(
    "entity",
    [
        flat([(1, 2, 0)]),
        flat([(1, 2, 0), (float("nan"), 2, 0)]),
        flat([(1, 2, 0), (3, 4, float("inf"))]),
        vertices([(1, 2, 0), (3, 4, 0)], 64),
        vertices([(1, 2, 0), (3, 4, 0)], 16),
        vertices([(1, 2, 0), (3, 4, 0)], 4, 16),
        "0\nPOINT\n8\n0\n10\n1\n20\n2\n",
    ],
    ids=["one-corner", "nan", "bulge", "faces", "mesh", "frame", "point"],
)
def test_what_has_no_course_has_no_outline(entity: str) -> None:
    assert course(entity) is None


def test_without_the_option_there_is_no_column() -> None:
    assert "outline" not in records(flat([(1, 2, 0), (3, 4, 0)])).columns


def test_an_arc_that_would_take_too_many_chords_is_refused() -> None:
    octets = drawing(flat([(0, 0, 1.0), (1e9, 0, 0), (1, 1, 0)])).encode("gbk")
    assert refusal(octets, {"chord_mm": 1})[0] == "decode.too_large"


@pytest.mark.parametrize(
    "path", [*(f"pipe_survey/{name}" for name in SURVEYS), *(f"dxf_samples/libredwg_sample_{v}" for v in VERSIONS)]
)
def test_polylines_of_samples_run_where_gdal_draws_them(path: str, shared_data: Callable[[str], Path]) -> None:
    folder, _, name = path.partition("/")
    file = shared_data(folder) / f"{name}.dxf"
    pyogrio.set_gdal_config_options({"DXF_INCLUDE_RAW_CODE_VALUES": "NO", "DXF_INLINE_BLOCKS": "FALSE"})
    meta, _, geometry, columns = pyogrio.raw.read(file, layer="entities")
    kinds = dict(zip(meta["fields"], columns, strict=True))["SubClasses"]
    lines = [
        shapely.from_wkb(wkb) for wkb, kind in zip(geometry, kinds, strict=True) if kind is None or "olyline" in kind
    ]
    theirs = [line for line in lines if line.geom_type == "LineString" and len(line.coords) > 2]
    frame = pl.concat(batch.frame for batch in dxf.decode([file_content(file)], {"chord_mm": 1}))
    ours = [shapely.from_wkt(said) for said in frame["outline"].drop_nulls()]
    ours = [each.exterior if each.geom_type == "Polygon" else each for each in ours]
    ours = [line for line in ours if len(line.coords) > 2]
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert shapely.hausdorff_distance(mine, shapely.force_2d(other)) < 0.05
