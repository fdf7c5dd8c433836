"""图幅编号 A sheet's number says where it lies, also with its leading digits left out; nothing else is a number."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.load import read_feed
from mappings.sheets import GROUND_M, Sheet, corners, extent, fitting, meant, number, on_lattice, sheet_of, sheets_of
from security.errors import Misconfigured
from tests.acts.maps import FEED_OF_MAP, MAP

SIZES = st.sampled_from(sorted(GROUND_M))
NINGBO = (540_000.0, 3_190_000.0, 680_000.0, 3_380_000.0)  # a city of 140 km by 190 km, metres
TOWN = (640_000.0, 3_300_000.0, 660_000.0, 3_315_000.0)


@st.composite
def places(draw: st.DrawFn) -> tuple[float, float]:
    west, south, east, north = TOWN
    return draw(st.floats(west, east)), draw(st.floats(south, north))


def sheet_at(x: float, y: float, size: str) -> Sheet:
    (found,) = sheets_of(pl.DataFrame({"x": [x], "y": [y]}).select(*corners(pl.col("x"), pl.col("y"), size)))
    return found


@given(places(), SIZES)
def test_a_place_lies_on_the_sheet_whose_number_it_has(place: tuple[float, float], size: str) -> None:
    sheet = sheet_at(*place, size)
    west, south, east, north = extent(sheet, size)
    assert west <= place[0] < east
    assert south <= place[1] < north
    assert sheet_of(sheet.number) == sheet
    assert on_lattice(sheet.number, size)
    assert meant(sheet.number, size, TOWN) == [sheet]
    written = pl.DataFrame({"x": [place[0]], "y": [place[1]]}).select(*corners(pl.col("x"), pl.col("y"), size))
    assert written.select(number()).item() == sheet.number


@given(places(), SIZES, st.integers(0, 2), st.integers(0, 1))
def test_leading_digits_may_be_left_out_and_the_city_says_them(
    place: tuple[float, float], size: str, north_left_out: int, east_left_out: int
) -> None:
    sheet = sheet_at(*place, size)
    north, east = sheet.number.split("-")
    text = f"{north[north_left_out:]}-{east[east_left_out:]}"
    assert meant(text, size, TOWN) == [sheet]


@given(places(), SIZES)
def test_in_a_large_city_two_digits_mean_several_sheets_and_the_right_one_is_among_them(
    place: tuple[float, float], size: str
) -> None:
    sheet = sheet_at(*place, size)
    north, east = sheet.number.split("-")
    found = meant(f"{north[2:]}-{east[1:]}", size, NINGBO)
    assert sheet in found
    assert len(found) > 1
    assert {one.number[2:7] for one in found} == {north[2:]}


@pytest.mark.parametrize(
    ("text", "size", "wanted"),
    [
        ("3307.00-649.50", "50x50", ["3307.00-649.50"]),
        ("10.40-49.75", "50x40", ["3310.40-649.75"]),  # the course note's form
        ("10.40-49.75", "50x50", []),
        ("10.50-49.75", "50x40", []),
        ("649.50-3307.00", "50x50", []),
        ("3407.00-649.50", "50x50", []),
        ("0.00-0.00", "50x50", ["3300.00-640.00", "3300.00-650.00", "3300.00-660.00", "3310.00-640.00",
                                "3310.00-650.00", "3310.00-660.00"]),
    ],
)  # fmt: skip
def test_a_number_means_the_sheets_of_the_city_that_are_written_so(text: str, size: str, wanted: list[str]) -> None:
    assert [sheet.number for sheet in meant(text, size, TOWN)] == wanted


def test_what_runs_over_an_edge_by_less_than_the_margin_is_still_of_the_sheet() -> None:
    def numbers(*x: float) -> list[str]:
        frame = pl.DataFrame({"x": [649_500 + one for one in x], "y": [3_307_010.0] * len(x)})
        return [sheet.number for sheet in fitting(frame, "50x50", 5.0)]

    assert numbers(10, 254) == ["3307.00-649.50"]
    assert numbers(10, 256) == []
    assert numbers(248, 252) == ["3307.00-649.50", "3307.00-649.75"]
    assert numbers(249) == ["3307.00-649.50"]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('extent = "sheet"', 'extent = "feed"', "sheet"),
        ('"snapshot"', '"changes"', "extent"),
        ('"50x50"', '"60x60"', "size"),
        ('"50x50"', '"50x50"\nmargin_m = 130', "sheet.margin_m"),
        ('"50x50"', '"50x50"\nmoved_m = 0', "sheet.moved_m"),
        ('"50x50"', '"50x50"\npattern = "[0-9"', "sheet.pattern"),
        ('"50x50"', '"50x50"\npattern = "[0-9.-]+"', "sheet.pattern"),
        ('among  = "layer"', "", "sheet.among"),
        ('easting_m  = { from = "x"', 'easting_m  = { from = ["x", "y"]', "sheet"),
    ],
)
def test_a_mistake_in_what_a_feed_says_of_its_sheets_stops_the_start(old: str, new: str, key: str) -> None:
    assert old in FEED_OF_MAP
    read_feed(FEED_OF_MAP.encode(), MAP)
    with pytest.raises(Misconfigured, match=key):
        read_feed(FEED_OF_MAP.replace(old, new).encode(), MAP)
