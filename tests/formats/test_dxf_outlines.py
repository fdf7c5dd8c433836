"""The course of a polyline is what two other readers draw, and an arc's chords keep to the stated distance from it."""

from collections.abc import Callable
from pathlib import Path

import ezdxf
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


# Hatches


def hatch(*paths: str, more: str = "") -> str:
    return (
        f"0\nHATCH\n8\n0\n10\n0\n20\n0\n30\n2.5\n{more}2\nSOLID\n70\n1\n71\n0\n91\n{len(paths)}\n{''.join(paths)}"
        "75\n0\n76\n1\n98\n1\n10\n7\n20\n7\n"
    )


def ring(corners: list[Corner]) -> str:
    said = "".join(f"10\n{x!r}\n20\n{y!r}\n42\n{bulge!r}\n" for x, y, bulge in corners)
    return f"92\n3\n72\n1\n73\n1\n93\n{len(corners)}\n{said}97\n1\n330\nAB\n"


def edges(*said: str) -> str:
    return f"92\n1\n93\n{len(said)}\n{''.join(said)}97\n0\n"


def line(x: float, y: float, x2: float, y2: float) -> str:
    return f"72\n1\n10\n{x!r}\n20\n{y!r}\n11\n{x2!r}\n21\n{y2!r}\n"


def arc(x: float, y: float, radius: float, begin: float, end: float, left: int = 1) -> str:
    return f"72\n2\n10\n{x!r}\n20\n{y!r}\n40\n{radius!r}\n50\n{begin!r}\n51\n{end!r}\n73\n{left}\n"


SQUARE: list[Corner] = [(0, 0, 0), (10, 0, 0), (10, 10, 0), (0, 10, 0)]


def test_a_hatch_is_the_area_within_its_boundary() -> None:
    square = course(hatch(ring(SQUARE)))
    assert shapely.equals(square, shapely.box(0, 0, 10, 10))
    below = course(hatch(ring(SQUARE), more="210\n0\n220\n0\n230\n-1\n"))
    assert shapely.equals(below, shapely.box(-10, 0, 0, 10))
    lines = [line(0, 0, 10, 0), line(10, 0, 10, 10), line(10, 10, 0, 0)]
    triangle = course(hatch(edges(*lines)))
    assert shapely.equals(triangle, shapely.Polygon([(0, 0), (10, 0), (10, 10)]))


def test_what_is_drawn_in_a_hatch_is_cut_out_of_it_and_what_is_in_that_is_not() -> None:
    circle = edges(arc(5, 5, 4, 0, 360))
    inner = ring([(4, 4, 0), (6, 4, 0), (6, 6, 0), (4, 6, 0)])
    said = course(hatch(ring(SQUARE), circle, inner), 1)
    assert said is not None
    assert said.area == pytest.approx(100 - 50.2655 + 4, abs=0.02)


@pytest.mark.parametrize("left", [1, 0])
@pytest.mark.parametrize(("begin", "end"), [(0.0, 90.0), (300.0, 30.0), (45.0, 315.0), (0.0, 360.0)])
def test_a_hatch_s_arcs_are_the_ones_that_ezdxf_reads(left: int, begin: float, end: float, tmp_path: Path) -> None:
    document = ezdxf.new()
    path = document.modelspace().add_hatch().paths.add_edge_path()
    path.add_arc((3, 4), radius=5, start_angle=begin, end_angle=end, ccw=bool(left))
    [edge] = path.edges
    if end != 360:
        path.add_line(*((edge.end_point, edge.start_point) if left else (edge.start_point, edge.end_point)))
    document.saveas(tmp_path / "hatch.dxf")
    [said] = pl.concat(b.frame for b in dxf.decode([file_content(tmp_path / "hatch.dxf")], {"chord_mm": 1}))["outline"]
    points = [(p.x, p.y) for p in edge.construction_tool().flattening(1e-5)] if end != 360 else None
    theirs = shapely.Polygon(points) if points else shapely.Point(3, 4).buffer(5, 4096)
    ours = shapely.from_wkt(said)
    assert shapely.hausdorff_distance(ours.exterior, theirs.exterior) <= 0.0011
    assert ours.area == pytest.approx(theirs.area, abs=0.05)


@pytest.mark.parametrize(
    "entity",
    [
        hatch(),
        hatch(edges(line(0, 0, 10, 0), line(10, 0.01, 0, 0))),
        hatch(edges("72\n3\n10\n0\n20\n0\n11\n5\n21\n0\n40\n0.5\n50\n0\n51\n360\n73\n1\n")),
        hatch(edges(arc(0, 0, float("nan"), 0, 360))),
        hatch(ring(SQUARE), ring([])),
        hatch(edges("72\n2\n10\n0\n20\n0\n")),
        hatch(ring(SQUARE), ring([(0, 0, 0), (5, 5, 0), (5, 0, 0), (0, 5, 0)])),
        hatch(ring(SQUARE), edges("72\n4\n94\n3\n73\n0\n74\n0\n95\n0\n96\n0\n97\n0\n")),
    ],
    ids=["no-path", "open", "ellipse", "nan", "empty", "short", "crossing", "spline"],
)
def test_a_boundary_that_is_not_wholly_lines_and_arcs_that_meet_is_no_outline(entity: str) -> None:
    assert course(entity) is None


def test_a_sample_s_hatch_is_the_area_that_gdal_draws(shared_data: Callable[[str], Path]) -> None:
    file = shared_data("dxf_samples") / "libredwg_example_2018.dxf"
    frame = pl.concat(batch.frame for batch in dxf.decode([file_content(file)], {"chord_mm": 1}))
    [said] = frame.filter(entity="HATCH")["outline"]
    pyogrio.set_gdal_config_options({"DXF_INCLUDE_RAW_CODE_VALUES": "NO", "DXF_INLINE_BLOCKS": "FALSE"})
    meta, _, geometry, columns = pyogrio.raw.read(file, layer="entities")
    kinds = dict(zip(meta["fields"], columns, strict=True))["SubClasses"]
    [theirs] = [shapely.from_wkb(g) for g, kind in zip(geometry, kinds, strict=True) if kind and "AcDbHatch" in kind]
    assert shapely.hausdorff_distance(shapely.from_wkt(said), shapely.force_2d(theirs)) < 0.001
