"""A survey that somebody moved to an origin of their own, against the drawing of the same street: both as they came."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from connectors.formats.catalogue import formats
from exchange.frames.answers import Diagnosis
from exchange.frames.diagnosis import diagnose
from exchange.frames.similarity import Mask, Numbers
from exchange.store.standing import STANDING
from mappings.apply import map_records, take
from mappings.load import read_feed
from mappings.schema import conform
from samples.street_survey import make_city
from security.message import in_memory
from tests.components.frames_of_one import moved

SHIFT = 276.99 + 114.105j  # what its sheet 偏移描述 says: 276.99 to the east, 114.105 to the north
DRAWING = (Path(make_city.__file__).parent / "feeds" / "planning-map-500.toml").read_text(encoding="utf-8")
MOVED = """
id       = "moved"
title    = "The survey, moved"
title_zh = "平移后的探测成果"
bureau   = "street-planning"
format   = "table"
content  = "snapshot"
crs      = "EPSG:4547"
accuracy = 0.05

[options]
sheet = [
    "给水检修井", "给水消火栓", "污水检查井", "污水化粪池", "雨水检修井", "雨水检查井",
    "雨水雨篦", "路灯地灯", "路灯检修井", "路灯路灯", "路灯配电箱", "电力检修井",
    "电力接线箱", "电力控制柜", "电力配电箱", "交通信号检修井", "交通信号控制柜", "交通信号信号灯",
    "燃气检修井", "电力通讯手孔井", "电信接线箱", "电信人孔井", "电信摄像头", "电信手孔井",
]

[fields]
source_key = { from = "管线点预编号" }
class_code = { from = "类型", lookup = "kind" }
northing_m = { from = "x", parse = "metres" }
easting_m  = { from = "y", parse = "metres" }

[lookups.kind]
"检修井" = "0101|0103|0105|0106|0111|0112"
"检查井" = "0102|0103"
"雨篦"   = "0104"
"地灯"   = "0119"
"路灯"   = "0118"
"消火栓" = "0113"
"摄像头" = "0136"
"信号灯" = "0210"
"接线箱" = "0115|0116"
"控制柜" = "0116|0214"
"配电箱" = "0116"
"人孔井" = "0107"
"手孔井" = "0107"
"化粪池" = "0302"
"""


def candidates(text: str, file: Path) -> pl.DataFrame:
    """CANDIDATES of a file by a feed's file."""
    feed = read_feed(text.encode(), text.split('"')[1])
    batches = formats()[feed.format].decode([in_memory(file.read_bytes())], feed.options)
    return map_records(pl.concat([take(batch.frame, feed) for batch in batches], how="diagonal"), feed).candidates


@pytest.fixture(scope="module")
def street(shared_data: Callable[[str], Path]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The moved survey, and what the drawing knows (STANDING): each symbol with the number written beside it."""
    folder = shared_data("pipe_survey")
    drawing = candidates(DRAWING, folder / "pipe_map_R2004_ansi936.dxf")
    longitude, latitude = moved("EPSG:4547", "EPSG:4490", drawing["x"].to_numpy(), drawing["y"].to_numpy())
    things = drawing.select("class_code", pl.concat_list("label").alias("marks")).with_columns(
        longitude_deg=pl.Series(longitude), latitude_deg=pl.Series(latitude)
    )
    return candidates(MOVED, folder / "pipe_survey_shifted.xlsx"), conform(things, STANDING)


def told(survey: pl.DataFrame, drawing: pl.DataFrame) -> Diagnosis:
    def inside(longitude: Numbers, latitude: Numbers) -> Mask:
        return (longitude > 113.915) & (longitude < 113.924) & (latitude > 22.541) & (latitude < 22.546)

    return diagnose(survey, drawing, crs="EPSG:4547", accuracy_m=0.05, middle_deg=113.9195, inside=inside)


def test_the_shift_of_the_survey_is_found_by_its_numbers(street: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    said = told(*street)
    assert (said.verdict, said.by, said.plane, said.clear) == ("local", "numbers", "EPSG:4547", True)
    assert said.fitted is not None
    assert said.fitted.similarity.is_shift
    assert abs(said.fitted.similarity.shift - SHIFT) < 0.005
    assert said.residual_m * 100 < 0.7  # the tables are rounded to a centimetre
    assert (said.matched, said.looked) == (242, 242)  # as many as have a number that is theirs beyond doubt


def test_the_shift_of_the_survey_is_found_by_how_things_stand_alone(
    street: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    survey, drawing = street
    said = told(survey, drawing.with_columns(marks=pl.lit([], pl.List(pl.String))))
    assert (said.verdict, said.by, said.matched) == ("local", "places", 469)
    assert said.fitted is not None
    assert said.fitted.similarity.is_shift
    assert abs(said.fitted.similarity.shift - SHIFT) < 0.005
    assert said.residual_m * 100 < 0.5


def test_the_survey_turned_by_three_tenths_of_a_degree_is_found(street: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    survey, drawing = street
    places = (survey["x"].to_numpy() + 1j * survey["y"].to_numpy()) * np.exp(1j * np.radians(0.3))
    said = told(survey.with_columns(x=pl.Series(places.real), y=pl.Series(places.imag)), drawing)
    assert said.verdict == "local"
    assert said.fitted is not None
    assert said.fitted.similarity.rotation_deg == pytest.approx(-0.3, abs=0.001)
    assert said.residual_m * 100 < 0.7
