"""A real street's nine sheets, read in place: every row, point and segment is accounted for."""

import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from connectors.formats import dxf
from connectors.formats.records import RECORD
from connectors.formats.table import decode
from exchange import validation
from exchange.boundaries import InForce
from exchange.placing import load_city
from exchange.previewing import preview
from exchange.settings import load_settings
from mappings.apply import Mapped, map_records, take
from mappings.load import load_feeds
from samples.street_survey import confusion, make_city
from security.message import file_content, in_memory

FOLDER = Path(make_city.__file__).parent
SurveyResult = dict[str, Mapped]
DRAWING = load_feeds([FOLDER / "feeds"])[confusion.MAP]
ALIKE = ("source_key", "class_code", "class_basis", "network", "x", "y", "height_m", "label")


@pytest.fixture(scope="module")
def survey(shared_data: Callable[[str], Path]) -> SurveyResult:
    octets = (shared_data("pipe_survey") / "pipe_survey_results.xls").read_bytes()
    feeds = load_feeds([FOLDER / "feeds"])
    return {
        feed.id: map_records(pl.concat([take(b.frame, feed) for b in decode([in_memory(octets)], feed.options)]), feed)
        for feed in feeds.values()
        if feed.format == "table"
    }


def test_nine_sheets_hold_the_rows_points_and_segments_that_were_checked(survey: SurveyResult) -> None:
    tallies = pl.concat([result.tallies for result in survey.values()])
    assert len(survey) == 9
    assert dict(tallies.group_by("name").agg(pl.col("count").sum()).iter_rows()) == {"points": 909, "segments": 873}
    assert sum(result.candidates.height + result.findings.height for result in survey.values()) == 1746


def test_each_point_is_a_candidate_or_no_component_by_a_named_rule(survey: SurveyResult) -> None:
    findings = pl.concat([result.findings for result in survey.values()])
    assert findings["severity"].unique().to_list() == ["ignored"]
    by_rule = dict(findings.group_by("code").len().iter_rows())
    points = sum(count for code, count in by_rule.items() if code != "ignored.repeated_point")
    assert sum(result.candidates.height for result in survey.values()) + points == 909
    assert by_rule["ignored.repeated_point"] == 1746 - 909
    by_appurtenance = findings.filter(pl.col("value").is_not_null()).group_by("value").len()
    assert dict(by_appurtenance.iter_rows()) == {"预留口": 13, "出地": 4, "无": 1, "电信发射塔": 1}


def test_appurtenances_become_the_classes_that_they_are(survey: SurveyResult) -> None:
    candidates = pl.concat([result.candidates for result in survey.values()])
    counted = dict(candidates.group_by("appurtenance").len().iter_rows())
    checked = {"地灯": 124, "检修井": 122, "检查井": 74, "雨篦": 40, "接线箱": 27, "路灯": 21, "消火栓": 8, "摄像头": 7}
    assert {name: counted[name] for name in checked} == checked
    covers = candidates.filter(pl.col("appurtenance") == "检修井")["class_code"].unique().sort().to_list()
    assert covers == ["0101", "0103", "0105", "0106", "0111", "0112"]  # by the network of the sheet


def test_the_blank_owner_column_is_filled_by_the_feed_and_says_so(survey: SurveyResult) -> None:
    for result in survey.values():
        assert result.candidates["owner_basis"].unique().to_list() == ["default"]


def test_every_candidate_lies_in_the_made_up_district(survey: SurveyResult) -> None:
    candidates = pl.concat([result.candidates for result in survey.values()])
    assert candidates["x"].is_between(make_city.WEST_M, make_city.EAST_M).all()
    assert candidates["y"].is_between(make_city.SOUTH_M, make_city.NORTH_M).all()


def test_the_city_files_are_what_the_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_city, "__file__", str(tmp_path / "make_city.py"))
    make_city.main()
    for name in ("districts.geojson", "grid.geojson", "settings.toml"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (FOLDER / name).read_text(encoding="utf-8")


def test_each_feed_s_bureau_is_described() -> None:
    bureaus = tomllib.loads((FOLDER / "bureaus.toml").read_text(encoding="utf-8"))
    assert {feed.bureau for feed in load_feeds([FOLDER / "feeds"]).values()} == set(bureaus)


def drawn(path: Path) -> pl.DataFrame:
    return pl.concat(batch.frame for batch in dxf.decode([file_content(path)], DRAWING.options))


@pytest.fixture(scope="module")
def drawings(shared_data: Callable[[str], Path]) -> list[pl.DataFrame]:
    return [drawn(shared_data("pipe_survey") / name) for name in confusion.DRAWINGS]


def components(drawing: pl.DataFrame) -> pl.DataFrame:
    return map_records(take(drawing, DRAWING), DRAWING).candidates


def test_each_form_of_the_drawing_gives_the_same_components(drawings: list[pl.DataFrame]) -> None:
    first, *others = [set(components(drawing).select(ALIKE).rows()) for drawing in drawings]
    assert len(first) == 469
    assert all(other == first for other in others)


def test_a_symbol_s_number_is_its_own_whatever_order_the_drawing_has(drawings: list[pl.DataFrame]) -> None:
    """The survey program drew each point and then its number: by that, which nothing here reads, all are right."""
    for drawing in drawings:
        true: dict[tuple[str, ...], str] = {}
        at: tuple[str, ...] | None = None
        for entity, layer, x, y, text in drawing.select("entity", "layer", "x", "y", "text").iter_rows():
            if entity == "POINT":
                at = (layer, x, y)
            elif entity == "TEXT" and layer.endswith("TEXT") and at is not None:
                true[at], at = text, None
        found = components(drawing).drop_nulls("label")
        places = dict(zip(drawing[RECORD], drawing.select("layer", "x", "y").rows(), strict=True))
        assert [true[places[record]] for record in found["record"]] == found["label"].to_list()
        assert found.height == 242
        shuffled = drawing.sample(fraction=1.0, shuffle=True, seed=500)
        assert set(components(shuffled).select(ALIKE).rows()) == set(components(drawing).select(ALIKE).rows())


@pytest.mark.parametrize("name", confusion.DRAWINGS)
def test_block_and_appurtenance_say_one_class_at_each_of_the_909_points(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    folder = shared_data("pipe_survey")
    found = confusion.table(file_content(folder / confusion.WORKBOOK), file_content(folder / name))
    assert found["points"].sum() == 909
    assert found.filter(pl.col("by_register").ne_missing(pl.col("by_map"))).rows() == []
    assert found.filter(pl.col("by_map") != confusion.NONE)["points"].sum() == 469
    assert found.filter(appurtenance="地灯").select("network", "by_register", "block", "points").rows() == [
        ("LD", "0119", "DD", 124)
    ]


@pytest.mark.parametrize("name", confusion.DRAWINGS)
def test_a_preview_of_the_drawing_balances_and_lists_nothing_unmapped(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    settings = load_settings(FOLDER / "settings.toml")
    city = load_city(FOLDER / settings.city.districts, FOLDER / settings.city.grid, settings.city.extent)
    told = preview(
        take(drawn(shared_data("pipe_survey") / name), DRAWING),
        DRAWING,
        InForce(
            {}, city, validation.lists(settings.city.edition, grid=city.grid.codes, districts=city.districts.codes)
        ),
        None,
        limit_m=settings.tolerances.transformation_m,
        shown=10,
        at=datetime(2026, 6, 30, tzinfo=UTC),
    )
    assert (told.total.records, told.total.kept, told.total.rejected, told.unmapped) == (4369, 469, {}, [])
    assert (told.told_by, told.crs) == ({"symbol": 469}, "EPSG:4547")
    assert len(told.layers) == 37
