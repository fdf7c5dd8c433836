"""What a map draws as a line or an area keeps its course, and stands where that is: from the drawing to the answer."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import shapely

from connectors.formats import dxf
from exchange import claims, joining, validation
from exchange.ownership import ownership
from exchange.placing import load_city, place
from exchange.store.embedded import Embedded
from exchange.store.frames import Batch, BatchDelivery
from exchange.store.store import Store
from mappings import outlines
from mappings.apply import Mapped, map_records, take
from mappings.load import load_feeds
from samples import city as sample_city
from samples.drawing import Drawing
from security.message import in_memory

FEED = load_feeds([Path(__file__).parents[2] / "mappings/feeds"])["planning-map-500"]
CITY = Path(sample_city.__file__).parent
EXTENT = (121.54, 29.862, 121.56, 29.877)
X, Y = 649_471.0, 3_306_486.0  # in the made-up city
BED = [(X, Y), (X + 6, Y), (X + 6, Y + 2), (X + 2, Y + 2), (X + 2, Y + 9), (X, Y + 9)]  # its middle lies outside it
RAIL = [(X + 20, Y), (X + 20, Y + 30), (X + 30, Y + 30)]


def mapped(drawing: Drawing) -> Mapped:
    batches = dxf.decode([in_memory(drawing.octets())], FEED.options)
    return map_records(pl.concat([take(batch.frame, FEED) for batch in batches]), FEED)


def a_polyline(corners: list[tuple[float, float]], *, closed: bool = True, code: str = "215400") -> Mapped:
    drawing = Drawing()
    drawing.polyline("ZBTZ", corners, closed=closed, code=code)
    return mapped(drawing)


def test_an_area_stands_at_a_point_inside_it_and_keeps_its_course() -> None:
    (row,) = a_polyline(BED).candidates.rows(named=True)
    outline = shapely.from_wkt(row["outline"])
    assert (row["class_code"], row["class_basis"]) == ("0405", "cass")
    assert outline.equals(shapely.Polygon(BED))
    assert outline.contains(shapely.Point(row["x"], row["y"]))


def test_a_line_stands_at_its_middle_by_length() -> None:
    (row,) = a_polyline(RAIL, closed=False, code="144400").candidates.rows(named=True)
    assert row["class_code"] == "0211|0408|0604"
    assert shapely.from_wkt(row["outline"]).equals(shapely.LineString(RAIL))
    assert (row["x"], row["y"]) == pytest.approx((X + 20, Y + 20))


def test_a_component_s_own_code_is_one_for_areas_too() -> None:
    (row,) = a_polyline(BED, code="340405").candidates.rows(named=True)
    assert (row["class_code"], row["class_basis"]) == ("0405", "cass_components")


@pytest.mark.parametrize("code", ["163100", "141121", "", "215400-1"])
def test_lines_without_the_code_of_a_component_are_left_out_by_name(code: str) -> None:
    done = a_polyline(BED, code=code)
    assert done.candidates.is_empty()
    assert done.findings["code"].to_list() == ["ignored.outline"]


def test_a_telling_layer_makes_no_component_of_a_line() -> None:
    drawing = Drawing()
    drawing.polyline("路灯", BED, closed=True)
    assert mapped(drawing).findings["code"].to_list() == ["ignored.outline"]


@pytest.mark.parametrize(
    ("corners", "most"),
    [
        ([(X, Y), (X + 6, Y + 6), (X + 6, Y), (X, Y + 6)], outlines.CORNERS),  # crosses itself
        (BED, 5),
        ([(X, Y), (X + 2e5, Y), (X, Y + 6)], outlines.CORNERS),
    ],
)
def test_an_outline_that_cannot_be_kept_is_said_and_the_thing_stays(
    corners: list[tuple[float, float]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "CORNERS", most)
    done = a_polyline(corners)
    (row,) = done.candidates.rows(named=True)
    assert (row["outline"], row["x"], row["y"]) == (None, X, Y)
    assert done.findings.select("code", "severity").rows() == [("outline.left_out", "warning")]


def test_the_course_is_kept_with_the_claim_in_degrees_and_shown(tmp_path: Path) -> None:
    drawing = Drawing()
    drawing.polyline("ZBTZ", BED, closed=True, code="215400")
    drawing.insert("DLDW", "gc155210", (X + 40, Y, 3.0), code="155210")
    done = mapped(drawing)
    grid = load_city(CITY / "districts.geojson", CITY / "grid.geojson", EXTENT)
    placing = place(done.candidates, crs=FEED.crs, accuracy_m=FEED.accuracy_m, city=grid, limit_m=1.0)
    now = datetime(2026, 6, 30, tzinfo=UTC)
    delivery = BatchDelivery("planning", "m", now, now, 0, "signed")
    lists = validation.lists("2007", grid=grid.grid.codes, districts=grid.districts.codes)
    checked = validation.check(placing.placed, done.findings, deliveries=[delivery], classes=(), lists=lists)
    compared = claims.compare(
        placing.placed,
        pl.concat([done.findings, placing.findings, checked]),
        (store := Store(Embedded(tmp_path))).seen(FEED.id),
        [delivery],
        unread=done.unread,
        content="snapshot",
        crs=FEED.crs,
        gone_limit_percent=10.0,
    )
    joined = joining.join(compared.versions, store.near(FEED.id, compared.versions))
    store.commit(Batch(FEED.id, "planning", now, (delivery,), ("00" * 32,), compared, joined.links, joined.ties))
    said = {claim.source_key: claim for key in (1, 2) for claim in ownership(store, str(key)).claims}
    (bed,) = [claim for claim in said.values() if "outline_deg" in claim.attributes]
    area = shapely.from_wkt(bed.attributes["outline_deg"])
    assert len(said) == 2
    assert area.geom_type == "Polygon"
    assert len(area.exterior.coords) == len(BED) + 1
    where = placing.placed.filter(pl.col("outline").is_not_null()).row(0, named=True)
    assert area.contains(shapely.Point(where["longitude_deg"], where["latitude_deg"]))
