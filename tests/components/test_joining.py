"""Joining: one to one, within both accuracies, the same answer whatever the order."""

from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.joining import TIE_M, join
from exchange.ownership import component
from exchange.store.frames import NEAR, VERSIONS
from exchange.store.places import REACH_M, distance_m, metres_per_degree
from exchange.store.store import Store
from mappings.schema import conform
from tests.components.builders import CENSUS, DAY, MONDAY, WATER, Feed, a_delivery, a_row, deliver, outcomes

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
    return dict(join(claims, components).links.select("source_key", "component").rows())


def ties(claims: pl.DataFrame, components: pl.DataFrame) -> list[tuple[str, int]]:
    return join(claims, components).ties.select("source_key", "component").rows()


def test_within_both_accuracies_together_is_the_same_thing_and_beyond_is_another() -> None:
    claims = versions({"source_key": "A", **at(0, 0)}, {"source_key": "B", **at(20, 0)})
    components = near({"component": 1, **at(0.99, 0)}, {"component": 2, **at(21.01, 0)})
    assert links(claims, components) == {"A": 1, "B": None}


def test_another_class_is_another_thing() -> None:
    claims = versions({"source_key": "A", **at(0, 0)})
    assert links(claims, near({"component": 1, "class_code": "0102", **at(0, 0)})) == {"A": None}


def test_the_shortest_pair_is_made_first() -> None:
    claims = versions({"source_key": "A", **at(0, 0)}, {"source_key": "B", **at(0.3, 0)})
    assert links(claims, near({"component": 1, **at(0.4, 0)})) == {"A": None, "B": 1}


def test_two_components_alike_stay_open_and_are_listed() -> None:
    claims = versions({"source_key": "A", **at(0, 0)})
    alike = near({"component": 9, **at(0.2, 0)}, {"component": 4, **at(0, 0.2)}, {"component": 5, **at(0.5, 0)})
    assert links(claims, alike) == {"A": None}
    assert ties(claims, alike) == [("A", 4), ("A", 9)]


def test_two_claims_alike_stay_open_and_found_components_of_their_own() -> None:
    claims = versions({"source_key": "A", **at(0.2, 0)}, {"source_key": "B", **at(-0.2, 0)})
    assert links(claims, near({"component": 1, **at(0, 0)})) == {"A": None, "B": None}
    assert ties(claims, near({"component": 1, **at(0, 0)})) == [("A", 1), ("B", 1)]


def test_a_tie_is_none_once_a_better_pair_has_taken_the_other_choice() -> None:
    claims = versions({"source_key": "A", **at(0.2, 0)}, {"source_key": "B", **at(0.4, 0)})
    components = near({"component": 1, **at(0, 0)}, {"component": 2, **at(0.4, 0)})
    assert links(claims, components) == {"A": 1, "B": 2}
    assert ties(claims, components) == []


def test_a_number_written_beside_it_tells_two_apart_that_position_does_not() -> None:
    claims = versions({"source_key": "H1", "label": "LD7", **at(0, 0)})
    alike = near({"component": 1, "marks": ["LD6"], **at(0, 0)}, {"component": 2, "marks": ["LD7"], **at(0.05, 0)})
    assert links(claims, alike) == {"H1": 2}
    assert links(versions({"source_key": "LD6", **at(0.04, 0)}), alike) == {"LD6": 1}


def test_a_number_joins_nothing_that_is_farther_off_than_both_accuracies() -> None:
    claims = versions({"source_key": "H1", "label": "LD7", **at(0, 0)})
    assert links(claims, near({"component": 2, "marks": ["LD7"], **at(1.1, 0)})) == {"H1": None}


def test_things_of_two_networks_are_two_things_and_an_unsaid_network_may_be_any() -> None:
    claims = versions({"source_key": "A", "network": "L", **at(0, 0)})
    assert links(claims, near({"component": 1, "network": "D", **at(0, 0)})) == {"A": None}
    assert links(claims, near({"component": 1, "network": "L", **at(0, 0)})) == {"A": 1}
    assert links(claims, near({"component": 1, "network": None, **at(0, 0)})) == {"A": 1}


def test_a_crowd_at_one_place_stays_open_each_beside_one_component() -> None:
    claims = versions(*({"source_key": f"K{n:05}", **at(0, 0)} for n in range(3000)), {"source_key": "L", **at(40, 0)})
    components = near(*({"component": n, **at(0.1, 0)} for n in range(3000)), {"component": 9999, **at(40, 0)})
    found = join(claims, components)
    made = found.links.drop_nulls("component")
    assert made.select("source_key", "component").rows() == [("L", 9999)]
    assert found.ties.select("source_key", "component").rows() == [(f"K{n:05}", 0) for n in range(3000)]


def test_a_set_of_classes_may_be_any_of_them() -> None:
    claims = versions({"source_key": "A", "class_code": "0102|0103", **at(0, 0)})
    assert links(claims, near({"component": 1, "class_code": "0103", **at(0, 0)})) == {"A": 1}
    assert links(claims, near({"component": 1, "class_code": "0103|0111", **at(0, 0)})) == {"A": 1}
    assert links(claims, near({"component": 1, "class_code": "0101", **at(0, 0)})) == {"A": None}


def test_a_claim_goes_on_speaking_of_its_component_wherever_it_moves() -> None:
    claims = versions({"source_key": "A", "component": 7, **at(0, 0)})
    found = join(claims, near({"component": 1, **at(0, 0)}))
    assert found.links.rows() == [("A", 7, None)]


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
    assert join(versions().clear(), near()).links.is_empty()


# Whole metres, so that many distances are alike.
PLACES = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, 120), st.sampled_from(["0101", "0102", "0101|0102"])), max_size=25
)


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


@settings(max_examples=60)
@given(PLACES, PLACES, st.randoms(use_true_random=False))
def test_joining_is_one_to_one_whatever_the_order_and_as_a_plain_loop_would(claimed, standing, chance) -> None:  # type: ignore[no-untyped-def]  # given by hypothesis
    claims, components = _made(claimed, standing)
    found = join(claims, components)
    assert found.links["source_key"].to_list() == sorted(claims["source_key"])
    made = found.links.filter(pl.col("component").is_not_null())
    assert made["component"].n_unique() == made.height
    joined, open_ = _plainly(claims, components)
    assert dict(made.select("source_key", "component").rows()) == joined
    assert set(found.ties.select("source_key", "component").rows()) == open_
    order = list(range(claims.height))
    chance.shuffle(order)
    again = join(claims[order], components.reverse())
    assert again.links.equals(found.links)
    assert again.ties.equals(found.ties)


def _plainly(claims: pl.DataFrame, components: pl.DataFrame) -> tuple[dict[str, int], set[tuple[str, int]]]:
    """Every pair, shortest first, each end once; what is alike within a centimetre waits until nothing else is left."""
    if claims.is_empty() or components.is_empty():
        return {}, set()
    both = claims.join(components, how="cross", suffix="_c")
    names = ("longitude_deg", "latitude_deg", "longitude_deg_c", "latitude_deg_c")
    far = distance_m(*(both[name].to_numpy() for name in names)).tolist()
    rows = zip(far, both["component_c"], both["source_key"], both["class_code"], both["class_code_c"], strict=True)
    left = sorted((m, c, k) for m, c, k, one, other in rows if m <= 30.0 and {*one.split("|")} & {*other.split("|")})
    joined: dict[str, int] = {}
    open_: set[tuple[str, int]] = set()
    while left:
        choices: dict[str | int, list[tuple[float, int, str]]] = {}
        for pair in left:
            choices.setdefault(pair[1], []).append(pair)
            choices.setdefault(pair[2], []).append(pair)
        alike = {end: [p for p in pairs if p[0] < pairs[0][0] + TIE_M] for end, pairs in choices.items()}
        first = [p for p in left if choices[p[1]][0] == p == choices[p[2]][0]]
        clear = [p for p in first if len(alike[p[1]]) == len(alike[p[2]]) == 1]
        for _, number, key in clear:
            joined[key] = number
        gone: set[str | int] = {end for _, number, key in clear for end in (number, key)}
        if not clear:
            tied = {p for pair in first for end in pair[1:] if len(alike[end]) > 1 for p in alike[end]}
            open_ |= {(key, number) for _, number, key in tied}
            gone = {key for _, _, key in tied}
        left = [p for p in left if not {p[1], p[2]} & gone]
    return joined, open_


def test_two_feeds_join_and_two_claims_of_one_feed_never_do(store: Store) -> None:
    beside = {"x": 121.541 + 3e-6}  # 0.3 m off
    deliver(store, [a_row("W1"), a_row("W2", **beside)], a_delivery("1"))  # two things, says the bureau
    assert store.ledger().components == 2
    joined = deliver(store, [a_row("C1"), a_row("C2", **beside)], a_delivery("2", sender="u"), feed=CENSUS)
    assert joined.outcomes["component"].to_list() == [1, 2]
    again = deliver(store, [a_row("C4")], a_delivery("3", sender="u"), feed=CENSUS)
    assert again.outcomes["component"].to_list() == [3]  # each component there has a claim of this feed already


def test_a_tie_stays_open_in_the_store_until_its_claim_says_something_else(store: Store) -> None:
    deliver(store, [a_row("W1"), a_row("W2")], a_delivery("1"))
    deliver(store, [a_row("C1")], a_delivery("2", sender="u"), feed=CENSUS)
    ties = [(tie.source_key, tie.component, tie.others) for tie in store.ties()]
    assert ties == [("C1", 3, (1, 2))]
    deliver(store, [a_row("C1", name="换了")], a_delivery("3", MONDAY + DAY, sender="u"), feed=CENSUS)
    assert list(store.ties()) == []


def test_a_register_decides_what_a_map_leaves_open_and_only_then_is_an_identifier_issued(store: Store) -> None:
    MAP = Feed("planning-map-500", "planning")
    deliver(store, [a_row("m1", class_code="0102|0103")], a_delivery("1", sender="p"), feed=MAP)
    assert component(store, "1").identifier is None
    deliver(store, [a_row("W1", class_code="0103")], a_delivery("2", MONDAY + DAY), feed=WATER)
    decided = component(store, "1")
    assert (decided.class_code, decided.identifier) == ("0103", "3302030103000001")
    deliver(store, [a_row("W1", removed=True)], a_delivery("3", MONDAY + 2 * DAY), feed=WATER)
    assert (component(store, "1").class_code, component(store, "1").identifier) == ("0103", "3302030103000001")


def test_the_networks_and_numbers_of_claims_are_those_of_their_component(store: Store) -> None:
    said = {"network": "L", "label": "L7"}
    deliver(store, [a_row("m1", **said)], a_delivery("1", sender="p"), feed=Feed("planning-map-500", "planning"))
    near = store.near(
        "water-register", versions({"source_key": "L7", "longitude_deg": 121.541, "latitude_deg": 29.865})
    )
    assert near.select("component", "network", "marks").rows() == [(1, "L", ["L7", "m1"])]


def test_joining_twice_changes_nothing(store: Store) -> None:
    deliver(store, [a_row(f"W{n}", n) for n in range(9)], a_delivery("1"))
    rows = [a_row(f"C{n}", n, x=121.541 + n * 1e-4 + 3e-6) for n in range(9)]
    first = deliver(store, rows, a_delivery("2", sender="u"), feed=CENSUS)
    before = store.ledger()
    second = deliver(store, rows, a_delivery("3", MONDAY, sender="u"), feed=CENSUS)
    assert outcomes(second) == ["unchanged"] * 9
    assert second.outcomes["component"].equals(first.outcomes["component"])
    assert (store.ledger().components, store.ledger().claims) == (before.components, before.claims) == (9, 18)
