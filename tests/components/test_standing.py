"""What stands in the store and where: things of some classes with what they are called, and the keys of one feed."""

import polars as pl

from exchange.store.standing import MOST, standing
from exchange.store.store import Store
from tests.components.builders import CENSUS, DAY, MONDAY, WATER, a_delivery, a_row, deliver


def test_things_of_the_classes_stand_once_with_all_that_they_are_called(store: Store) -> None:
    deliver(store, [a_row("W1", 0, label="PC1"), a_row("W2", 5), a_row("W3", 9, class_code="0113")], a_delivery("m-1"))
    deliver(store, [a_row("C1", 0)], a_delivery("m-2", MONDAY + DAY, "urban"), feed=CENSUS)
    found = store.standing(pl.Series(["0101", None])).sort("longitude_deg")
    assert [sorted(marks) for marks in found["marks"]] == [["C1", "PC1", "W1"], ["W2"]]
    assert found["class_code"].to_list() == ["0101", "0101"]
    assert found["longitude_deg"].round(6).to_list() == [121.541, 121.5415]


def test_a_class_that_is_a_set_has_the_things_of_each(store: Store) -> None:
    rows = [a_row("W1", 0), a_row("W2", 5, class_code="0102|0103"), a_row("W3", 9, class_code="0113")]
    deliver(store, rows, a_delivery("m-1"))
    assert store.standing(pl.Series(["0101|0103"])).height == 2


def test_what_no_claim_stands_for_any_more_does_not_stand(store: Store) -> None:
    deliver(store, [a_row("W1", 0), a_row("W2", 5)], a_delivery("m-1"))
    deliver(store, [a_row("W1", 0, removed=True)], a_delivery("m-2", MONDAY + DAY))
    assert store.standing(pl.Series(["0101"]))["marks"].to_list() == [["W2"]]
    assert store.stood(WATER.id, pl.Series(["W1", "W2", "W9"]))["source_key"].to_list() == ["W2"]


def test_keys_stand_where_their_own_feed_says(store: Store) -> None:
    deliver(store, [a_row("K", 0)], a_delivery("m-1"))
    deliver(store, [a_row("K", 7)], a_delivery("m-2", MONDAY + DAY, "urban"), feed=CENSUS)
    (place,) = store.stood(CENSUS.id, pl.Series(["K"])).iter_rows()
    assert (place[0], round(place[1], 6)) == ("K", 121.5417)
    assert store.stood("no-such-feed", pl.Series(["K"])).is_empty()


def test_no_more_claims_are_read_than_asked(store: Store) -> None:
    deliver(store, [a_row(f"W{n}", n) for n in range(5)], a_delivery("m-1"))
    assert standing(store.connection(), pl.Series(["0101"]), 3).height == 3
    assert standing(store.connection(), pl.Series(["0101"]), MOST).height == 5
