"""What a sheet's new version draws is told by place: whatever its handles are, and whatever order it has."""

from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import sheets
from exchange.placing import place
from exchange.store import sheets as stored_sheets
from exchange.store.frames import ON_SHEETS, microseconds
from exchange.store.store import Store
from mappings.apply import UNREAD
from mappings.load import read_feed
from mappings.schema import CANDIDATES, conform
from mappings.sheets import Drawn
from tests.acts.maps import FEED_OF_MAP, MAP, WEST, X, Y
from tests.components import builders
from tests.components.builders import CITY

EAST_OF_IT = "3307.00-649.75"
FEED = read_feed(FEED_OF_MAP.encode(), MAP)
DRAWN = Drawn((WEST,), pl.DataFrame({"east_m": [int(X)], "north_m": [int(Y)], "deep": [True]}))
NOTHING = pl.DataFrame(schema=UNREAD)
DAY = timedelta(days=1)
STEP_M = 12.0  # between things, more than twice as far as one may move


class Standing:
    """A store that holds what was laid before, all of it claimed."""

    def __init__(self, laid: pl.DataFrame) -> None:
        self._laid = laid

    def on_sheets(self, *_: object) -> pl.DataFrame:
        return conform(self._laid.with_columns(live=pl.lit(True)), ON_SHEETS)


def laid(rows: list[dict[str, Any]], store: object = None) -> sheets.Laid:
    frame = conform(pl.DataFrame([{"delivery": 0, "record": n, **row} for n, row in enumerate(rows)]), CANDIDATES)
    placed = place(frame, crs=FEED.crs, accuracy_m=FEED.accuracy_m, city=CITY, limit_m=1.0).placed
    return sheets.lay(DRAWN, placed, NOTHING, FEED, CITY, cast("Store | None", store))


def a_thing(
    number: int, handle: int, class_code: str = "0101", east: float = 0.0, north: float = 0.0
) -> dict[str, Any]:
    at = X + 6 + number % 19 * STEP_M + east, Y + 6 + number // 19 * STEP_M + north
    return {"source_key": f"{handle:X}", "class_code": class_code, "x": at[0], "y": at[1]}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_thing_keeps_its_key_whatever_its_handle_and_however_it_moved(data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 150), min_size=1, max_size=40, unique=True))
    classes = {number: data.draw(st.sampled_from(("0101", "0118", "0102|0103"))) for number in numbers}
    before = laid([a_thing(number, 256 + at, classes[number]) for at, number in enumerate(numbers)])
    keys = dict(zip(numbers, before.placed["source_key"], strict=True))
    kept = data.draw(st.lists(st.sampled_from(numbers), unique=True))
    moves = st.tuples(st.sampled_from((0.0, 0.004, 0.3, 3.0)), st.floats(0, 6.2))
    handles = data.draw(st.permutations(range(256, 256 + len(kept))))
    rows = []
    for number, handle in zip(kept, handles, strict=True):
        far_m, bearing = data.draw(moves)
        move = far_m * float(np.sin(bearing)), far_m * float(np.cos(bearing))
        rows.append(a_thing(number, handle, classes[number], *move))
    new = [number for number in range(151, 155) if data.draw(st.booleans())]
    rows += [a_thing(number, 400 + number) for number in new]
    after = laid(rows, Standing(before.placed)).placed["source_key"].to_list()
    assert after[: len(kept)] == [keys[number] for number in kept]
    assert not {*after[len(kept) :]} & {*keys.values()}
    assert len({*after}) == len(after)


def test_a_thing_of_another_class_in_its_place_is_another_thing() -> None:
    before = laid([a_thing(0, 1), a_thing(1, 2, "0102|0103")])
    after = laid([a_thing(0, 1, "0118"), a_thing(1, 9, "0102")], Standing(before.placed))
    assert after.placed["source_key"].to_list() == [f"{WEST}/1~2", f"{WEST}/2"], "a set of classes may be decided"


def test_of_two_alike_where_either_may_be_it_the_handle_decides() -> None:
    before = laid([a_thing(0, 1), a_thing(0, 2, east=3.0)])
    after = laid([a_thing(0, 2, east=1.4), a_thing(0, 1, east=4.4)], Standing(before.placed))
    assert after.placed["source_key"].to_list() == [f"{WEST}/2", f"{WEST}/1"]


def test_what_was_saved_by_a_program_that_rounds_is_what_it_was() -> None:
    before = laid([a_thing(n, n, east=0.1234567 * n) for n in range(1, 12)])
    rounded = [a_thing(n, 100 - n, east=round(0.1234567 * n, 2)) for n in range(1, 12)]
    after = laid(rounded, Standing(before.placed))
    assert after.placed["source_key"].to_list() == before.placed["source_key"].to_list()


# What the store knows of sheets


def store_sheet(store: Store, number: str, day: datetime, *rows: dict[str, Any]) -> str:
    """A delivery of a sheet, its keys as they stand; gives its message id."""
    message_id = f"{number} {day:%d}"
    feed = builders.Feed(id=MAP, content="snapshot")
    batch = builders.a_batch(store, feed, rows, [builders.a_delivery(message_id, day)])
    store.commit(msgspec.structs.replace(batch, sheets=(number,)))
    return message_id


def test_the_store_gives_what_is_keyed_by_these_sheets_and_no_other(store: Store) -> None:
    keys = [f"{WEST}/A", f"{WEST}/A~2", f"{EAST_OF_IT}/A", f"{WEST}0/A", "3307.00-649.5", f"{WEST}", f"{WEST}0"]
    store_sheet(store, WEST, builders.MONDAY, *(builders.a_row(key, n) for n, key in enumerate(keys)))
    assert sorted(store.on_sheets(MAP, [WEST])["source_key"]) == keys[:2]
    assert sorted(store.on_sheets(MAP, [EAST_OF_IT, WEST])["source_key"]) == keys[:3]
    assert store.on_sheets("another-map", [WEST]).is_empty()
    assert store.on_sheets(MAP, []).is_empty()


def test_each_sheet_is_known_as_of_its_own_newest_day(store: Store) -> None:
    assert store.seen_on_sheets(MAP, [], [WEST]).as_of_us is None
    store_sheet(store, WEST, builders.MONDAY + 2 * DAY, builders.a_row(f"{WEST}/A"))
    store_sheet(store, EAST_OF_IT, builders.MONDAY + 3 * DAY, builders.a_row(f"{WEST}/A"))
    store_sheet(store, EAST_OF_IT, builders.MONDAY + 1 * DAY, builders.a_row(f"{WEST}/A"))

    def known(*numbers: str) -> int | None:
        return store.seen_on_sheets(MAP, [], numbers).as_of_us

    assert known(WEST) == microseconds(builders.MONDAY + 2 * DAY)
    assert known(EAST_OF_IT) == microseconds(builders.MONDAY + 3 * DAY)
    assert known(WEST, EAST_OF_IT) == microseconds(builders.MONDAY + 3 * DAY)
    assert known("3300.00-600.00") is None


def test_what_a_delivery_found_and_left_is_told_however_much_came_after_it(store: Store) -> None:
    keys = [f"{WEST}/{letter}" for letter in "ABCD"]
    first = [builders.a_row(key, n) for n, key in enumerate(keys)]
    second = [first[0], builders.a_row(keys[1], 1, state="破损"), first[2], builders.a_row(f"{WEST}/E", 9)]
    store_sheet(store, WEST, builders.MONDAY, *first)
    message_id = store_sheet(store, WEST, builders.MONDAY + DAY, *second)

    def told() -> list[tuple[str, str]]:
        again = pl.Series([keys[0], keys[2]])
        was = store.was_on_sheets(MAP, [WEST], "water", message_id, again)
        return sorted(was.select("source_key", "which").rows())

    wanted = [
        (keys[0], "unchanged"),
        (keys[1], "before"),
        (keys[1], "said"),
        (keys[2], "unchanged"),
        (keys[3], "before"),
        (f"{WEST}/E", "said"),
    ]
    assert told() == wanted
    store_sheet(
        store, WEST, builders.MONDAY + 2 * DAY, *(builders.a_row(key, n, state="新") for n, key in enumerate(keys))
    )
    store_sheet(store, WEST, builders.MONDAY + 3 * DAY, first[0])
    assert told() == wanted


@pytest.mark.of_a_file
def test_a_sheet_is_one_stretch_of_the_index_of_keys(store: Store) -> None:
    """Of ten thousand sheets each would read all others' claims otherwise."""
    for query in (stored_sheets._ON_SHEET, stored_sheets._NOW, stored_sheets._BEFORE):
        plan = store.connection().execute(f"EXPLAIN QUERY PLAN {query}", (MAP, "a/", "a0")).fetchall()
        assert any("claims_key (feed_id=? AND source_key>? AND source_key<?)" in step[-1] for step in plan)
        assert not any(step[-1].startswith("SCAN") for step in plan)
