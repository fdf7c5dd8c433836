"""坐标诊断 Each frame that a batch may be in is named, with what remains in centimetres; what cannot be told is not."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from msgspec import structs

from exchange.deflected import bd09_of, gcj02_of
from exchange.frames.answers import Diagnosis
from exchange.frames.similarity import Similarity
from exchange.frames.words import in_words
from mappings.load import read_feed
from tests.components.frames_of_one import (
    MIDDLE,
    PLANE,
    Numbers,
    Quarter,
    batch,
    known,
    moved,
    told,
    turned,
)
from tests.registers import a_register


@pytest.fixture(scope="module")
def quarter() -> Quarter:
    return Quarter()


def similarity(diagnosis: Diagnosis) -> Similarity:
    assert diagnosis.fitted is not None
    return diagnosis.fitted.similarity


def residual_cm(diagnosis: Diagnosis) -> float:
    return diagnosis.residual_m * 100


def all_paired(diagnosis: Diagnosis, quarter: Quarter) -> bool:
    return diagnosis.matched == diagnosis.looked == int(quarter.ours.sum())


def test_what_is_in_its_feed_s_system_is_said_to_be(quarter: Quarter) -> None:
    said = quarter.told(quarter.x, quarter.y)
    assert (said.verdict, said.system, said.clear) == ("as_said", PLANE, False)
    assert residual_cm(said) < 0.01
    assert all_paired(said, quarter)


def test_exchanged_axes_are_named(quarter: Quarter) -> None:
    said = quarter.told(quarter.y, quarter.x)
    assert (said.verdict, said.system, said.swapped, said.clear) == ("frame", PLANE, True, True)
    assert residual_cm(said) < 0.01
    assert all_paired(said, quarter)


@pytest.mark.parametrize(
    ("system", "west_m"),
    [("EPSG:4550", 289_840), ("EPSG:4528", None), ("EPSG:4529", None)],
    ids=["the other meridian", "zone 40 before eastings", "zone 41 before eastings"],
)
def test_a_wrong_zone_is_named_with_how_far_off_it_puts_things(
    quarter: Quarter, system: str, west_m: float | None
) -> None:
    said = quarter.told(*moved(PLANE, system, quarter.x, quarter.y))
    assert (said.verdict, said.system, said.swapped, said.clear) == ("frame", system, False, True)
    assert residual_cm(said) < 0.01
    assert west_m is None or abs(said.east_m + west_m) < 1


def test_a_zone_and_exchanged_axes_at_once_are_named(quarter: Quarter) -> None:
    east, north = moved(PLANE, "EPSG:4550", quarter.x, quarter.y)
    said = quarter.told(north, east)
    assert (said.verdict, said.system, said.swapped) == ("frame", "EPSG:4550", True)


@pytest.mark.parametrize(("system", "deflect", "off_m"), [("GCJ-02", gcj02_of, 493.5), ("BD-09", bd09_of, 1103.0)])
def test_deflected_degrees_given_as_cgcs2000_are_named_with_their_size(
    quarter: Quarter, system: str, deflect: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]], off_m: float
) -> None:
    degrees = moved(PLANE, "EPSG:4490", quarter.x, quarter.y)
    x, y = deflect(*degrees)
    said = quarter.told(x, y, "EPSG:4490")
    assert (said.verdict, said.system, said.through, said.clear) == ("frame", system, "", True)
    assert residual_cm(said) < 0.01
    assert np.hypot(said.east_m, said.north_m) == pytest.approx(off_m, abs=1)


def test_deflected_degrees_that_were_projected_are_named_with_their_plane(quarter: Quarter) -> None:
    deflected = gcj02_of(*moved(PLANE, "EPSG:4490", quarter.x, quarter.y))
    said = quarter.told(*moved("EPSG:4490", PLANE, *deflected))
    assert (said.verdict, said.system, said.through) == ("frame", "GCJ-02", PLANE)


@pytest.mark.parametrize("by", [-276.99 - 114.105j, 12_345.6 + 78.9j, -600_000 - 3_300_000j])
def test_an_unknown_shift_is_found_to_the_centimetre_and_told_as_no_more_than_a_shift(
    quarter: Quarter, by: complex
) -> None:
    said = quarter.told(quarter.x + by.real, quarter.y + by.imag)
    assert (said.verdict, said.plane, said.clear, similarity(said).is_shift) == ("local", PLANE, True, True)
    assert abs(similarity(said).shift + by) < 0.01
    assert residual_cm(said) < 0.01
    assert all_paired(said, quarter)


def test_a_turn_of_three_tenths_of_a_degree_with_a_shift_is_found(quarter: Quarter) -> None:
    said = quarter.told(*turned(quarter.x, quarter.y, 0.3, by=5000 - 200j))
    assert (said.verdict, said.clear) == ("local", True)
    assert similarity(said).rotation_deg == pytest.approx(-0.3, abs=1e-6)
    assert residual_cm(said) < 0.01
    assert all_paired(said, quarter)


def test_a_turned_frame_with_exchanged_axes_is_found(quarter: Quarter) -> None:
    east, north = turned(quarter.x, quarter.y, 37, by=500 - 200j)
    said = quarter.told(north, east)
    assert (said.verdict, said.swapped, round(similarity(said).rotation_deg, 6)) == ("local", True, -37)


@pytest.mark.parametrize("scale", [1.0004, 0.9996, 1.003])
def test_a_scale_is_found(quarter: Quarter, scale: float) -> None:
    said = quarter.told(*turned(quarter.x, quarter.y, 0, scale))
    assert said.verdict == "local"
    assert similarity(said).scale == pytest.approx(1 / scale, abs=1e-8)
    assert residual_cm(said) < 0.01


def test_a_batch_that_is_elsewhere_fits_no_frame_and_that_is_said(quarter: Quarter) -> None:
    other = Quarter(seed=2)
    said = told(batch(other.x + 40_000, other.y + 30_000, other.classes[other.ours]), quarter.known)
    assert (said.verdict, said.why, said.matched, said.clear) == ("elsewhere", "nothing_fits", 0, False)
    assert said.looked == int(other.ours.sum())


def test_new_things_within_the_city_have_no_wrong_frame(quarter: Quarter) -> None:
    other = Quarter(seed=2)
    said = told(batch(other.x, other.y, other.classes[other.ours]), quarter.known)
    assert (said.verdict, said.clear) == ("cannot_tell", False)


def test_half_a_metre_of_noise_changes_no_answer_and_stands_in_the_residual(quarter: Quarter) -> None:
    east, north = turned(quarter.x, quarter.y, 0.3, by=500 - 200j)
    noise = np.random.default_rng(7).normal(0, 0.5, (2, len(east)))
    said = quarter.told(east + noise[0], north + noise[1])
    assert (said.verdict, said.clear) == ("local", True)
    assert similarity(said).rotation_deg == pytest.approx(-0.3, abs=0.02)
    assert residual_cm(said) == pytest.approx(70, abs=8)  # half a metre in each axis


def test_half_of_a_batch_may_be_new(quarter: Quarter) -> None:
    chance = np.random.default_rng(8)
    old = chance.random(len(quarter.x)) < 0.5
    east, north = (axis + ~old * chance.uniform(-100, 100, len(axis)) for axis in (quarter.x, quarter.y))
    said = quarter.told(*turned(east, north, 0.3, by=500 - 200j))
    assert (said.verdict, said.clear) == ("local", True)
    assert abs(said.matched - old.sum()) <= 2
    assert residual_cm(said) < 1
    deflected = quarter.told(*gcj02_of(*moved(PLANE, "EPSG:4490", east, north)), "EPSG:4490")
    assert (deflected.system, deflected.clear) == ("GCJ-02", True)


class TestLamps:
    """A regular grid of lamps lies on itself however far it is shifted by its own step."""

    east, north = (30.0 * axis.ravel().astype(np.float64) for axis in np.meshgrid(np.arange(30), np.arange(30)))
    x, y = east + MIDDLE[0], north + MIDDLE[1]
    lamps = np.full(900, "0118")

    @pytest.mark.parametrize("by", [60 + 30j, 3000.7 + 60j, 12 + 7j, -31_000 + 0.3j])
    def test_no_shift_of_a_regular_grid_is_claimed(self, by: complex) -> None:
        said = told(batch(self.x + by.real, self.y + by.imag, self.lamps), known(self.x, self.y, self.lamps))
        assert said.verdict == "cannot_tell"
        assert not said.clear

    def test_nor_of_a_part_of_it(self) -> None:
        part = (self.east < 400) & (self.north < 400)
        said = told(batch(self.x[part] + 307, self.y[part], self.lamps[part]), known(self.x, self.y, self.lamps))
        assert (said.verdict, said.why, said.second) == ("cannot_tell", "symmetric", said.matched)

    def test_nor_is_it_called_deflected(self) -> None:
        part = (self.east < 400) & (self.north < 400)
        x, y = moved("EPSG:4490", PLANE, *gcj02_of(*moved(PLANE, "EPSG:4490", self.x[part], self.y[part])))
        assert not told(batch(x, y, self.lamps[part]), known(self.x, self.y, self.lamps)).clear

    def test_where_its_feed_says_it_is_believed(self) -> None:
        said = told(batch(self.x, self.y, self.lamps), known(self.x, self.y, self.lamps))
        assert said.verdict == "as_said"

    def test_numbers_tell_what_places_do_not(self) -> None:
        keys = [f"LD{at}" for at in range(900)]
        things = known(self.x, self.y, self.lamps, [[key] for key in keys])
        said = told(batch(self.x + 60, self.y - 30, self.lamps, keys), things)
        assert (said.verdict, said.by, said.matched, said.clear) == ("local", "numbers", 900, True)
        assert abs(similarity(said).shift - (-60 + 30j)) < 0.01


def test_things_on_one_line_could_lie_either_way_round() -> None:
    along = np.cumsum(np.random.default_rng(3).uniform(10, 40, 200))
    x, y, lamps = MIDDLE[0] + along, np.full(200, MIDDLE[1]), np.full(200, "0118")
    said = told(batch(x + 5000, y, lamps), known(x, y, lamps))
    assert (said.verdict, said.why) == ("cannot_tell", "symmetric")


def test_numbers_that_are_the_same_by_chance_say_nothing(quarter: Quarter) -> None:
    keys = [str(at) for at in range(int(quarter.ours.sum()))]
    mixed = np.random.default_rng(4).permutation(keys)
    marks: list[list[str]] = [[] for _ in quarter.east]
    for at, key in zip(np.flatnonzero(quarter.ours), mixed, strict=True):
        marks[at] = [str(key)]
    things = known(quarter.east, quarter.north, quarter.classes, marks)
    said = told(batch(*turned(quarter.x, quarter.y, 0.3, by=700j), quarter.classes[quarter.ours], keys), things)
    assert (said.verdict, said.by) == ("local", "places")
    assert similarity(said).rotation_deg == pytest.approx(-0.3, abs=1e-6)


def test_too_few_say_nothing(quarter: Quarter) -> None:
    few = quarter.y[:5], quarter.x[:5], quarter.classes[quarter.ours][:5]
    assert told(batch(*few), quarter.known).why == "too_few"


def test_where_nothing_is_known_magnitudes_alone_speak_and_hold_nothing(quarter: Quarter) -> None:
    nothing = quarter.known.head(0)
    swapped = quarter.told(quarter.y, quarter.x, known=nothing)
    assert (swapped.verdict, swapped.system, swapped.swapped, swapped.by) == ("frame", PLANE, True, "size")
    zone = quarter.told(*moved(PLANE, "EPSG:4529", quarter.x, quarter.y), known=nothing)
    assert (zone.verdict, zone.system, zone.clear) == ("frame", "EPSG:4529", False)
    degrees = quarter.told(*moved(PLANE, "EPSG:4490", quarter.x, quarter.y), known=nothing)
    assert (degrees.verdict, degrees.system) == ("frame", "EPSG:4490")
    assert quarter.told(quarter.x, quarter.y, known=nothing).why == "nothing_known"


def test_a_class_that_is_a_set_is_compared_with_each_of_its_classes(quarter: Quarter) -> None:
    sets = np.where(np.isin(quarter.classes[quarter.ours], ["0101", "0102"]), "0101|0102", "0118")
    of_known = np.where(quarter.classes == "0113", "0118", quarter.classes)
    things = known(quarter.east, quarter.north, of_known)
    said = told(batch(quarter.x + 4000, quarter.y, sets), things)
    assert (said.verdict, said.matched) == ("local", int(quarter.ours.sum()))


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 1e300, -1e300])
def test_coordinates_that_are_no_place_change_nothing(quarter: Quarter, spoilt: float) -> None:
    x = quarter.x.copy()
    x[::7] = spoilt
    assert quarter.told(quarter.y, x).system == PLANE


@hypothesis_settings(max_examples=25)
@given(
    degrees=some.floats(-180, 180),
    scale=some.floats(0.996, 1.004),
    east_m=some.floats(-500_000, 500_000),
    north_m=some.floats(-500_000, 500_000),
    swapped=some.booleans(),
    seed=some.integers(0, 1000),
)
def test_any_turn_shift_and_small_scale_without_noise_is_found_to_a_centimetre(
    degrees: float, scale: float, east_m: float, north_m: float, swapped: bool, seed: int
) -> None:
    quarter = Quarter(seed)
    x, y = turned(quarter.x, quarter.y, degrees, scale, complex(east_m, north_m))
    said = quarter.told(*((y, x) if swapped else (x, y)))
    if said.verdict in ("as_said", "frame"):  # so near to a system that it is that one
        assert residual_cm(said) <= 10
        return
    there = similarity(said).of(
        np.array([complex(a, b) for a, b in zip(*((y, x) if swapped else (x, y)), strict=True)])
    )
    assert np.abs(there - (quarter.x + 1j * quarter.y)).max() < 0.01
    assert said.verdict == "local"


def test_a_case_is_told_the_same_way_twice(quarter: Quarter) -> None:
    stated = turned(quarter.x, quarter.y, 12, by=1000j)
    first, second = (quarter.told(*stated) for _ in range(2))
    assert similarity(first) == similarity(second)
    assert pl.Series([first.matched, first.second]).equals(pl.Series([second.matched, second.second]))


def test_a_feed_in_a_system_without_a_number_is_believed_where_it_was_placed_right(quarter: Quarter) -> None:
    stated = batch(quarter.x - 500, quarter.y + 300, quarter.classes[quarter.ours])
    longitude, latitude = moved(PLANE, "EPSG:4490", quarter.x, quarter.y)
    placed = stated.with_columns(longitude_deg=pl.Series(longitude), latitude_deg=pl.Series(latitude))
    said = told(placed, quarter.known, "local:old-town")
    assert (said.verdict, said.system) == ("as_said", "local:old-town")
    deflected = gcj02_of(longitude, latitude)
    wrong = stated.with_columns(longitude_deg=pl.Series(deflected[0]), latitude_deg=pl.Series(deflected[1]))
    again = told(wrong, quarter.known, "local:old-town")
    assert (again.verdict, again.clear) == ("local", True)


def test_degrees_that_are_shifted_are_found_and_no_parameters_would_put_them_right(quarter: Quarter) -> None:
    degrees = moved(PLANE, "EPSG:4490", quarter.x + 60, quarter.y - 45)
    said = quarter.told(*degrees, "EPSG:4490")
    assert (said.verdict, said.of_degrees, said.clear) == ("local", True, True)
    assert np.hypot(said.east_m, said.north_m) == pytest.approx(75, abs=0.1)


def test_where_things_stand_close_together_a_batch_of_others_is_not_laid_onto_them() -> None:
    chance = np.random.default_rng(9)
    east, north = (middle + chance.uniform(-300, 300, 12_000) for middle in MIDDLE)  # one to each 30 square metres
    x, y = (middle + chance.uniform(-150, 150, 400) for middle in MIDDLE)
    things = known(east, north, np.full(12_000, "0118"))
    for by in (0j, 5000 + 300j):
        assert not told(batch(x + by.real, y + by.imag, np.full(400, "0118")), things).clear


def test_how_far_a_secret_system_lies_from_a_numbered_one_is_told_rounded(quarter: Quarter) -> None:
    feed = read_feed(a_register("covers", "Covers", "井盖").encode(), "covers")
    stated = batch(quarter.x, quarter.y, quarter.classes[quarter.ours])
    longitude, latitude = moved(PLANE, "EPSG:4490", quarter.x + 1276.987, quarter.y - 114.105)
    placed = stated.with_columns(longitude_deg=pl.Series(longitude), latitude_deg=pl.Series(latitude))
    secret = structs.replace(feed, crs="local:old-town")
    said = told(placed, quarter.known, secret.crs)
    exact_m = np.hypot(said.east_m, said.north_m)
    assert (said.verdict, said.system) == ("frame", PLANE)
    assert exact_m == pytest.approx(1282, abs=1)
    assert "1,300 m east" in in_words(said, secret).en
    assert in_words(said, secret).fix[0] == 'crs = "EPSG:4549"'
    assert f"{exact_m:,.0f} m east" in in_words(said, structs.replace(feed, crs="EPSG:4550")).en
