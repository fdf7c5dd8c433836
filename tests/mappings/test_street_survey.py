"""A real street's nine sheets, read in place: every row, point and segment is accounted for."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from connectors.formats.table import decode
from mappings.apply import Mapped, map_records, take
from mappings.load import load_feeds
from samples.street_survey import make_city
from security.message import in_memory

FOLDER = Path(make_city.__file__).parent
SurveyResult = dict[str, Mapped]


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
