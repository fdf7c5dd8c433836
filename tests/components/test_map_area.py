"""How large a map some places make: contiguous cells, on the ground, as a plain search finds them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.map_area import REMEMBERED_S, Measured, largest_km2, refuse_larger
from exchange.store.places import ROW
from security.errors import Refusal
from tests.security.test_authorise import a_grant

AT = 29_870 * ROW + 121_550
ONE_KM2 = 0.1109 * 0.0966  # a cell of Ningbo


def test_cells_that_touch_are_one_map_at_a_corner_too() -> None:
    assert largest_km2([]) == 0
    assert largest_km2([AT]) == pytest.approx(ONE_KM2, rel=0.01)
    assert largest_km2([AT, AT + 1, AT + ROW, AT + ROW - 1, AT + 7]) == pytest.approx(4 * ONE_KM2, rel=0.01)
    assert largest_km2([AT, AT + ROW + 1]) == pytest.approx(2 * ONE_KM2, rel=0.01)
    assert largest_km2([AT, AT + 2, AT + 2 * ROW]) == pytest.approx(ONE_KM2, rel=0.01)


def plain(cells: set[tuple[int, int]]) -> int:
    """The number of cells of the largest piece, by walking."""
    left, most = set(cells), 0
    while left:
        stack, size = [left.pop()], 0
        while stack:
            row, column = stack.pop()
            size += 1
            near = {(row + y, column + x) for x in (-1, 0, 1) for y in (-1, 0, 1)} & left
            left -= near
            stack += near
        most = max(most, size)
    return most


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 14), st.integers(0, 14)), min_size=1, max_size=90))
def test_the_largest_piece_is_what_a_plain_search_finds(cells: set[tuple[int, int]]) -> None:
    km2 = largest_km2([AT + row * ROW + column for row, column in cells])
    assert km2 == pytest.approx(plain(cells) * ONE_KM2, rel=0.01)


def test_a_long_thin_map_is_measured_too() -> None:
    snake = [AT + row * ROW + column for row in range(0, 400, 2) for column in range(300)]
    snake += [AT + row * ROW + (299 if row % 4 == 1 else 0) for row in range(1, 400, 2)]
    assert largest_km2(snake) == pytest.approx(len(set(snake)) * ONE_KM2, rel=0.02)


def test_a_grant_that_names_the_area_allows_it_and_a_refusal_says_what_would() -> None:
    refuse_larger(25.0, 25.0, [a_grant()], "export.area_too_large")
    refuse_larger(30.0, 25.0, [a_grant(map_area_km2=30)], "export.area_too_large")
    with pytest.raises(Refusal) as refused:
        refuse_larger(30.2, 25.0, [a_grant(map_area_km2=30)], "export.area_too_large")
    assert refused.value.detail == (
        "30.2 km² > 30 km²; needs: push water-assets, map area 31 km²; held: g1 until 2026-12-31"
    )
    with pytest.raises(Refusal, match=r"join\.area_too_large"):
        refuse_larger(30.0, 25.0, [a_grant(map_area_km2=30), a_grant()], "join.area_too_large")


def test_what_was_measured_is_measured_again_after_a_minute() -> None:
    measured, seen = Measured(), iter([1.0, 2.0])
    assert [measured.km2("g", lambda: next(seen), now) for now in (0.0, REMEMBERED_S - 1, REMEMBERED_S)] == [1, 1, 2]
