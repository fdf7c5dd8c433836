"""GCJ-02 and BD-09 as others compute them, and back to the place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.deflected import bd09_of, gcj02_of, wgs_of_bd09, wgs_of_gcj02
from exchange.store.places import distance_m

LONGITUDE, LATITUDE = st.floats(72.1, 137.7), st.floats(0.9, 55.7)


def one(*pairs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    longitude, latitude = np.array(pairs).T
    return longitude, latitude


# The cases that the public formula's ports are tested by (github.com/googollee/eviltransform), WGS 84 then GCJ-02.
@pytest.mark.parametrize(
    "wgs, gcj",
    [
        ((121.5272106, 31.1774276), (121.531541859215, 31.17530398364597)),
        ((113.912316, 22.543847), (113.9171764808363, 22.540796131694766)),
        ((116.377817, 39.911954), (116.38404722455657, 39.91334545536069)),
    ],
)
def test_gcj02_is_what_the_public_formula_gives_elsewhere(wgs: tuple[float, float], gcj: tuple[float, float]) -> None:
    assert distance_m(*gcj02_of(*one(wgs)), *one(gcj))[0] < 1e-6
    assert distance_m(*wgs_of_gcj02(*one(gcj)), *one(wgs))[0] < 1e-6


def test_bd09_is_what_baidu_s_own_service_answers() -> None:
    # cnblogs.com/alunzuishuai/p/16344879.html, GCJ-02 to BD-09 by api.map.baidu.com
    place = wgs_of_gcj02(*one((120.85385769314236, 28.021381022135415)))
    assert distance_m(*bd09_of(*place), *one((120.86029339600422, 28.027651931662543)))[0] < 1e-4


def test_in_ningbo_the_deflection_is_of_some_hundred_metres() -> None:
    here = one((121.549, 29.874))
    assert 400 < distance_m(*gcj02_of(*here), *here)[0] < 600
    assert 900 < distance_m(*bd09_of(*here), *here)[0] < 1300


@given(st.lists(st.tuples(LONGITUDE, LATITUDE), min_size=1, max_size=50))
def test_every_place_in_china_comes_back_within_a_millimetre(places: list[tuple[float, float]]) -> None:
    here = one(*places)
    for there, back in ((gcj02_of, wgs_of_gcj02), (bd09_of, wgs_of_bd09)):
        assert distance_m(*back(*there(*here)), *here).max() < 1e-3


def test_outside_of_the_formula_s_box_nothing_is_deflected_and_what_is_no_number_stays_none() -> None:
    far = one((2.35, 48.85), (-74.0, 40.7), (151.2, -33.9))
    assert np.array_equal(gcj02_of(*far), far)
    nothing = one((np.nan, 30.0), (121.5, np.nan), (np.inf, 30.0))
    for way in (gcj02_of, wgs_of_gcj02, bd09_of, wgs_of_bd09):
        longitude, latitude = way(*nothing)
        assert not (np.isfinite(longitude) & np.isfinite(latitude)).any()
