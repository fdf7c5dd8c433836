"""Layers in the store: each version whole; components placed anew when a boundary moves, and past days as they were."""

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
import shapely

from exchange import layer_answers, layer_rules
from exchange.layer_rules import MOST_CORNERS, About
from exchange.layers import feature_digests, version_digest
from exchange.ownership import component, nearest, ownership
from exchange.placing import City, Numbers, codes_at
from exchange.publication import changes_after
from exchange.rights import View
from exchange.store.frames import ENDED, KEPT, LINKS, TIES, VERSIONS, Batch, Compared, NewVersion, Stored, microseconds
from exchange.store.placing_anew import Place
from exchange.store.store import Store
from mappings.schema import FEATURES, FINDINGS, OUTCOMES, conform
from security.errors import Refusal
from security.message import Area
from tests.components.builders import (
    CITY,
    DAY,
    EAST,
    MONDAY,
    WEST,
    a_delivery,
    a_row,
    areas,
    deliver,
    everything,
    outcomes,
)

# The boundary between the districts goes 550 m to the west, and takes what stands there along.
MOVED = City(
    districts=areas({WEST: (121.54, 29.86, 121.5445, 29.88), EAST: (121.5445, 29.86, 121.56, 29.88)}),
    grid=areas(
        {
            "330203001001003": (121.54, 29.86, 121.5445, 29.88),
            "330205001001003": (121.5445, 29.86, 121.55, 29.88),
            "330205001001001": (121.55, 29.86, 121.56, 29.87),
        }
    ),
    extent_deg=CITY.extent_deg,
)
FRIDAY = MONDAY + 4 * DAY
EXTENT = CITY.extent_deg


def by(city: City) -> Place:
    def place(longitude: Numbers, latitude: Numbers) -> tuple[pl.Series, pl.Series]:
        return codes_at(city, longitude, latitude)

    return place


def kept(**boxes: tuple[float, float, float, float]) -> pl.DataFrame:
    """KEPT: boxes by code."""
    rows = [
        {"record": n, "source_key": code, "wkb": shapely.to_wkb(shapely.box(*box)), "news": 1}
        | dict(zip(("west_deg", "south_deg", "east_deg", "north_deg"), box, strict=True))
        for n, (code, box) in enumerate(boxes.items())
    ]
    frame = conform(pl.DataFrame(rows), KEPT)
    return frame.with_columns(feature_digests(frame))


def delivered(store: Store, message_id: str, features: pl.DataFrame, at: datetime = MONDAY, gone: int = 0) -> Stored:
    """A version of the layer `grounds`, stored."""
    said = features.select(delivery=pl.lit(0), record="record", source_key="source_key", outcome=pl.lit("new"))
    nothing = pl.DataFrame(schema=VERSIONS), pl.DataFrame(schema=ENDED), pl.DataFrame(schema=FINDINGS)
    found = Compared(conform(said, OUTCOMES), *nothing, gone_percent=0.0, held=False, whole=False)
    new = NewVersion("grounds", version_digest(features), microseconds(at), gone, features)
    none = pl.DataFrame(schema=LINKS), pl.DataFrame(schema=TIES)
    one = a_delivery(message_id, at, sender="planning")
    return store.commit(Batch("grounds", "planning", at + DAY, (one,), ("00" * 32,), found, *none, layer=new))


FIRST = {"a": (121.541, 29.861, 121.542, 29.862), "b": (121.543, 29.861, 121.544, 29.862)}


def test_versions_are_numbered_and_each_is_whole(store: Store) -> None:
    assert outcomes(delivered(store, "1", kept(**FIRST))) == ["new", "new"]
    second = delivered(store, "2", kept(a=FIRST["a"]), FRIDAY, gone=1)
    assert (second.deliveries[0].counts.new, second.deliveries[0].counts.gone) == (1, 1)
    one, two = store.layer_versions("grounds")
    assert [(one.version, one.features, one.gone), (two.version, two.features, two.gone)] == [(1, 2, 0), (2, 1, 1)]
    assert (one.valid_from, two.valid_from, two.bureau, two.message_id) == (MONDAY, FRIDAY, "planning", "2")
    assert store.features(one.id).equals(kept(**FIRST).sort("source_key"))
    newest, digests = store.newest_version("grounds")
    assert (newest, digests["source_key"].to_list()) == (two, ["a"])
    assert store.version_of("planning", "1") == one
    assert store.layer_versions("others") == []


def test_the_same_delivery_again_makes_no_further_version(store: Store) -> None:
    delivered(store, "1", kept(**FIRST))
    before = everything(store)
    assert delivered(store, "1", kept(**FIRST)).repeated
    assert everything(store) == before


def test_a_place_is_asked_for_by_the_boxes_that_hold_it(store: Store) -> None:
    delivered(store, "1", kept(**FIRST))
    (version,) = store.layer_versions()
    assert store.features_around(version.id, 121.5415, 29.8615)["source_key"].to_list() == ["a"]
    assert store.features_around(version.id, 121.5425, 29.8615).is_empty()


def test_an_erased_version_says_nothing_and_the_one_before_stands(store: Store) -> None:
    delivered(store, "1", kept(**FIRST))
    delivered(store, "2", kept(secret=FIRST["a"]), FRIDAY)
    store.erase("planning", "2", FRIDAY, "2026-03-06")
    newest, _ = store.newest_version("grounds")
    assert (newest.version if newest else 0) == 1
    assert "secret" not in repr(everything(store)["layer_features"])
    assert shapely.to_wkb(shapely.box(*FIRST["a"])).hex() not in repr(everything(store)["layer_features"][-1])


def a_street(store: Store) -> None:
    """Components 1 to 6, one every 110 m from 121.541°E on; the boundary will pass between the fourth and the fifth."""
    deliver(store, [a_row(f"K{n}", n * 10) for n in range(6)], a_delivery("1"))


def codes(store: Store, on: date | None = None) -> list[tuple[str | None, str | None]]:
    found = (ownership(store, str(n), on).component for n in range(1, 7))
    return [(one.division_code, one.grid_code) for one in found]


def test_what_lies_beyond_the_new_boundary_is_counted_there_and_its_identifier_stays(store: Store) -> None:
    a_street(store)
    identifiers = [component(store, str(n)).identifier for n in range(1, 7)]
    assert store.put_in_force(by(MOVED), {"district": 7}, FRIDAY) == 6
    assert [division for division, _ in codes(store)] == [WEST] * 4 + [EAST] * 2
    assert {grid for _, grid in codes(store)} == {"330203001001003", "330205001001003"}
    assert [component(store, str(n)).identifier for n in range(1, 7)] == identifiers
    assert store.placed_by()["district"].version == 7


def test_only_what_is_elsewhere_has_a_change_and_each_has_one(store: Store) -> None:
    a_street(store)
    last = changes_after(store, 0, 100).next
    districts = City(MOVED.districts, CITY.grid, CITY.extent_deg)
    assert store.put_in_force(by(districts), {"district": 7}, FRIDAY) == 2
    told = changes_after(store, last, 100).changes
    assert [(one.key, one.kind, one.change_number) for one in told] == [
        (5, "changed", last + 1),
        (6, "changed", last + 2),
    ]
    assert store.put_in_force(by(districts), {"district": 7}, FRIDAY) == 0
    assert changes_after(store, last + 2, 100).changes == ()


def test_a_past_day_gives_that_day_s_grid(store: Store) -> None:
    a_street(store)
    before = codes(store)
    store.put_in_force(by(MOVED), {"district": 7}, FRIDAY)
    moved = codes(store)
    store.put_in_force(by(CITY), {"district": None}, FRIDAY + 3 * DAY)
    days = [(MONDAY + n * DAY).date() for n in range(9)]
    assert [codes(store, day) for day in days] == [before] * 4 + [moved] * 3 + [before] * 2
    assert codes(store) == before


def test_a_past_day_is_seen_by_who_may_see_that_day_s_district(store: Store) -> None:
    a_street(store)
    store.put_in_force(by(MOVED), {"district": 7}, FRIDAY)
    east = View(area=Area(districts=(EAST,)))
    assert ownership(store, "6", None, east).component.division_code == EAST
    with pytest.raises(Refusal, match=r"component\.unknown"):
        ownership(store, "6", MONDAY.date(), east)
    assert [one.answer.component.key for one in nearest(store, 121.546, 29.865, 60.0, view=east)] == [6]


def test_what_the_bureau_says_next_is_compared_as_if_no_boundary_had_moved(store: Store) -> None:
    a_street(store)
    store.put_in_force(by(MOVED), {"district": 7}, FRIDAY)
    rows = [a_row("K4", 40), a_row("K5", 50, state="破损")]  # said of a day before the boundary moved
    assert outcomes(deliver(store, rows, a_delivery("2", MONDAY + DAY))) == ["unchanged", "changed"]


def test_what_changed_after_the_move_keeps_the_days_before_it(store: Store) -> None:
    a_street(store)
    before = codes(store)
    store.put_in_force(by(MOVED), {"district": 7}, FRIDAY)
    deliver(store, [a_row("K5", 0, state="破损")], a_delivery("2", FRIDAY + 3 * DAY))
    assert codes(store, MONDAY.date()) == before
    assert codes(store, (FRIDAY + DAY).date())[5] == (EAST, "330205001001003")


def test_a_component_that_nobody_claims_is_placed_by_where_it_was_left(store: Store) -> None:
    a_street(store)
    deliver(store, [{"source_key": "K5", "removed": True, "delivery": 0}], a_delivery("2", MONDAY + DAY))
    last = changes_after(store, 0, 100).next
    store.put_in_force(by(MOVED), {"district": 7}, FRIDAY)
    assert component(store, "6").division_code == EAST
    assert [one.kind for one in changes_after(store, last, 100).changes if one.key == 6] == ["orphaned"]


def test_a_look_at_what_would_move_changes_nothing(store: Store) -> None:
    a_street(store)
    before = everything(store)
    claims, left = store.elsewhere(by(MOVED))
    assert (claims.height, left.height) == (6, 0)
    assert everything(store) == before


def test_the_erased_words_of_a_claim_are_not_kept_as_where_it_was(store: Store) -> None:
    a_street(store)
    store.put_in_force(by(MOVED), {"district": 7}, FRIDAY)
    assert len(everything(store)["placed_before"]) == 6
    store.erase("water", "1", FRIDAY, "2026-03-06")
    assert everything(store)["placed_before"] == []


def test_a_map_larger_than_is_allowed_is_measured_by_the_boxes_that_touch(store: Store) -> None:
    delivered(
        store,
        "1",
        kept(a=(121.54, 29.86, 121.55, 29.87), b=(121.55, 29.86, 121.56, 29.87), c=(121.0, 29.0, 121.01, 29.01)),
    )
    (version,) = store.layer_versions()
    everywhere = layer_answers.shown(store, version, None, View(), CITY)
    assert abs(everywhere.largest_km2() - 2 * 0.966 * 1.108) < 0.02
    west = layer_answers.shown(store, version, None, View(area=Area(districts=(WEST,))), CITY)
    assert west.features["source_key"].to_list() == ["a"]
    assert abs(west.largest_km2() - 0.966 * 1.108) < 0.01


def test_the_version_of_a_day_is_the_one_that_held_at_its_end(store: Store) -> None:
    delivered(store, "1", kept(**FIRST))
    delivered(store, "2", kept(a=FIRST["a"]), FRIDAY)
    days = [(MONDAY + n * DAY).date() for n in range(6)]
    assert [layer_answers.version_of(store, "grounds", None, day).version for day in days] == [1] * 4 + [2] * 2
    with pytest.raises(Refusal, match=r"layer\.unknown"):
        layer_answers.version_of(store, "grounds", None, (MONDAY - DAY).date())


# Rules that need no store


def features(*shapes: shapely.Geometry, **said: Any) -> tuple[pl.DataFrame, Any]:
    rows = [{"delivery": 0, "record": n, "source_key": f"33020300100100{n}", **said} for n in range(len(shapes))]
    names = {name: kind for name, kind in FEATURES.items() if name in rows[0]}
    return conform(pl.DataFrame(rows, names), FEATURES), np.array(shapes, dtype=object)


def found(layer: str, shapes: list[shapely.Geometry], **said: Any) -> list[tuple[str, str | None]]:
    about = About(layer, EXTENT, date(2026, 3, 2), None, frozenset())
    told = layer_rules.check(*features(*shapes, **said), about)
    return [(code, field) for code, field in told.select("code", "field").rows()]


def test_a_feature_of_too_many_corners_is_told_before_its_shape_is_looked_at() -> None:
    angles = np.linspace(0, 2 * np.pi, MOST_CORNERS + 1)
    bomb = shapely.Polygon(np.column_stack([121.55 + 0.003 * np.cos(angles), 29.87 + 0.003 * np.sin(angles)]))
    assert found("unit-grid", [bomb]) == [("layer.too_many_corners", "geometry")]


IMAGE: dict[str, Any] = {
    "resolution_m": 0.05,
    "taken_on": date(2026, 3, 1),
    "digest": "0f" * 32,
    "address": "规划局影像库 A-12",
}


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        ({}, None),
        ({"resolution_m": None}, "imagery.incomplete"),
        ({"resolution_m": 0.0}, "imagery.incomplete"),
        ({"taken_on": None}, "imagery.incomplete"),
        ({"taken_on": date(2026, 3, 3)}, "date.future"),
        ({"digest": "0F" * 32}, "imagery.incomplete"),
        ({"digest": "0f" * 20}, "imagery.incomplete"),
        ({"address": None}, "imagery.incomplete"),
    ],
)
def test_an_image_says_resolution_day_digest_and_where_its_pixels_are(spoilt: dict[str, Any], code: str | None) -> None:
    told = found("imagery", [shapely.box(121.541, 29.861, 121.542, 29.862)], **{**IMAGE, **spoilt})
    assert told == ([(code, next(iter(spoilt)))] if code else [])
