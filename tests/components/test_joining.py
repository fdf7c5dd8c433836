"""Joining: one to one, within both accuracies, the same answer whatever the order."""

from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.joining import join
from exchange.store.frames import NEAR, VERSIONS
from exchange.store.places import REACH_M, distance_m, metres_per_degree
from exchange.store.sqlite import Store
from mappings.schema import conform
from tests.components.builders import CENSUS, MONDAY, a_delivery, a_row, deliver, outcomes

EAST_M, NORTH_M = (float(scale[0]) for scale in metres_per_degree(np.array([29.87])))


def at(east_m: float, north_m: float) -> dict[str, float]:
    """A place so many metres from 121.55°E 29.87°N."""
    return {"longitude_deg": 121.55 + east_m / EAST_M, "latitude_deg": 29.87 + north_m / NORTH_M}


def versions(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {"delivery": 0, "class_code": "0101", "accuracy_m": 0.5, "valid_from_us": 0}
    return conform(pl.DataFrame([{**base, "record": n, **row} for n, row in enumerate(rows)]), VERSIONS)


def near(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {"class_code": "0101", "accuracy_m": 0.5}
    return conform(pl.DataFrame([{**base, **row} for row in rows]), NEAR)


def links(claims: pl.DataFrame, components: pl.DataFrame) -> dict[str, int | None]:
    return dict(join(claims, components).select("source_key", "component").rows())


def test_within_both_accuracies_together_is_the_same_thing_and_beyond_is_another() -> None:
    claims = versions({"source_key": "A", **at(0, 0)}, {"source_key": "B", **at(20, 0)})
    components = near({"component": 1, **at(0.99, 0)}, {"component": 2, **at(21.01, 0)})
    assert links(claims, components) == {"A": 1, "B": None}


def test_another_class_is_another_thing() -> None:
    claims = versions({"source_key": "A", **at(0, 0)})
    assert links(claims, near({"component": 1, "class_code": "0102", **at(0, 0)})) == {"A": None}


def test_the_shortest_pair_is_made_first_and_ties_go_to_the_smaller_component() -> None:
    claims = versions({"source_key": "A", **at(0, 0)}, {"source_key": "B", **at(0.3, 0)})
    assert links(claims, near({"component": 1, **at(0.4, 0)})) == {"A": None, "B": 1}
    tie = near({"component": 9, **at(0, 0)}, {"component": 4, **at(0, 0)})
    assert links(versions({"source_key": "A", **at(0, 0)}), tie) == {"A": 4}


def test_a_claim_goes_on_speaking_of_its_component_wherever_it_moves() -> None:
    claims = versions({"source_key": "A", "component": 7, **at(0, 0)})
    found = join(claims, near({"component": 1, **at(0, 0)}))
    assert found.rows() == [("A", 7, None)]


def test_a_pair_on_both_sides_of_a_cell_s_corner_is_found() -> None:
    corner = {"longitude_deg": 121.55 - 1e-7, "latitude_deg": 29.87 - 1e-7}
    claims = versions({"source_key": "A", **corner})
    over = {"longitude_deg": 121.55 + 1e-7, "latitude_deg": 29.87 + 1e-7}
    assert links(claims, near({"component": 1, **over})) == {"A": 1}


def test_nothing_is_joined_beyond_the_reach_however_poor_the_accuracy() -> None:
    claims = versions({"source_key": "A", "accuracy_m": 500.0, **at(0, 0)})
    assert links(claims, near({"component": 1, **at(REACH_M + 1, 0)})) == {"A": None}
    assert links(claims, near({"component": 1, **at(REACH_M - 1, 0)})) == {"A": 1}


def test_nothing_joins_nothing() -> None:
    assert join(versions().clear(), near()).is_empty()


PLACES = st.lists(st.tuples(st.floats(0, 120), st.floats(0, 120), st.sampled_from(["0101", "0102"])), max_size=25)


def _made(
    claimed: list[tuple[float, float, str]], standing: list[tuple[float, float, str]]
) -> tuple[pl.DataFrame, ...]:
    claims = [
        {"source_key": f"K{n}", "class_code": c, "accuracy_m": 20.0, **at(x, y)} for n, (x, y, c) in enumerate(claimed)
    ]
    components = [
        {"component": n, "class_code": c, "accuracy_m": 10.0, **at(x, y)} for n, (x, y, c) in enumerate(standing)
    ]
    return (
        conform(
            pl.DataFrame([{"delivery": 0, "record": n, "valid_from_us": 0, **row} for n, row in enumerate(claims)]),
            VERSIONS,
        ),
        conform(pl.DataFrame(components), NEAR),
    )


@settings(max_examples=60, deadline=None)
@given(PLACES, PLACES, st.randoms(use_true_random=False))
def test_joining_is_one_to_one_whatever_the_order_and_as_a_plain_loop_would(claimed, standing, chance) -> None:  # type: ignore[no-untyped-def]  # given by hypothesis
    claims, components = _made(claimed, standing)
    found = join(claims, components)
    assert found["source_key"].to_list() == sorted(claims["source_key"])
    made = found.filter(pl.col("component").is_not_null())
    assert made["component"].n_unique() == made.height
    assert dict(made.select("source_key", "component").rows()) == _greedy(claims, components)
    order = list(range(claims.height))
    chance.shuffle(order)
    assert join(claims[order], components.reverse()).equals(found)


def _greedy(claims: pl.DataFrame, components: pl.DataFrame) -> dict[str, int]:
    """Every pair, shortest first, each end once."""
    if claims.is_empty() or components.is_empty():
        return {}
    both = claims.join(components, how="cross", suffix="_c").filter(pl.col("class_code") == pl.col("class_code_c"))
    names = ("longitude_deg", "latitude_deg", "longitude_deg_c", "latitude_deg_c")
    far = distance_m(*(both[name].to_numpy() for name in names))
    pairs = sorted(zip(far.tolist(), both["component_c"], both["source_key"], strict=True))
    taken: dict[str, int] = {}
    for metres, component, key in pairs:
        if metres <= 30.0 and key not in taken and component not in taken.values():
            taken[key] = component
    return taken


def test_two_feeds_join_and_two_claims_of_one_feed_never_do(store: Store) -> None:
    deliver(store, [a_row("W1"), a_row("W2")], a_delivery("1"))  # the same place twice: two things, says the bureau
    assert store.ledger().components == 2
    joined = deliver(store, [a_row("C1"), a_row("C2"), a_row("C3")], a_delivery("2", sender="u"), feed=CENSUS)
    assert joined.outcomes["component"].to_list() == [1, 2, 3]
    again = deliver(store, [a_row("C4")], a_delivery("3", sender="u"), feed=CENSUS)
    assert again.outcomes["component"].to_list() == [4]  # each component there has a claim of this feed already


def test_joining_twice_changes_nothing(store: Store) -> None:
    deliver(store, [a_row(f"W{n}", n) for n in range(9)], a_delivery("1"))
    rows = [a_row(f"C{n}", n, x=121.541 + n * 1e-4 + 3e-6) for n in range(9)]
    first = deliver(store, rows, a_delivery("2", sender="u"), feed=CENSUS)
    before = store.ledger()
    second = deliver(store, rows, a_delivery("3", MONDAY, sender="u"), feed=CENSUS)
    assert outcomes(second) == ["unchanged"] * 9
    assert second.outcomes["component"].equals(first.outcomes["component"])
    assert (store.ledger().components, store.ledger().claims) == (before.components, before.claims) == (9, 18)
