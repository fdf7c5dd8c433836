"""What a grant withholds is as if it were not there: no byte of any answer tells of it."""

import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from exchange.http.answers import put_changes, put_component, put_near, put_ownership
from exchange.map_area import largest_km2
from exchange.ownership import component, components, disputes, nearest, ownership
from exchange.publication import changes_after
from exchange.rights import ATTRIBUTES, EVERYTHING, View, in_area, in_ring, ring_text, without_masked
from exchange.store import asking
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from mappings.schema import CANDIDATES
from security.errors import Refusal
from security.message import Area
from tests.components.builders import CENSUS, CITY, DAY, EAST, LIMIT_M, MONDAY, WATER, WEST, a_delivery, a_row, deliver

MON, TUE = date(2026, 3, 2), date(2026, 3, 3)
CLASSES = ("0101", "0102", "0103")
GRIDS = CITY.grid.codes
SLOTS = 40  # places ten metres apart, across the border of districts and of grids

Rows = list[dict[str, Any]]


def at(slot: int) -> dict[str, float]:
    """A place of its own for each slot: two rows across 121.55°E, one on either side of 29.87°N."""
    return {"x": 121.5488 + slot // 2 * 1.1e-4, "y": 29.8699 + slot % 2 * 2e-4}


RING = st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(1, 20), st.integers(1, 3)).map(
    lambda box: tuple(
        (121.5487 + x * 1.1e-4, 29.8698 + y * 1e-4)
        for x, y in (
            (box[0], box[1]), (box[0] + box[2], box[1]), (box[0] + box[2], box[1] + box[3]), (box[0], box[1] + box[3]),
        )
    )
)  # fmt: skip
AREAS = st.builds(
    Area,
    districts=st.sets(st.sampled_from([WEST, EAST, "3302", "99"]), max_size=1).map(tuple),
    cells=st.sets(st.sampled_from(GRIDS), max_size=2).map(tuple),
    polygon=st.one_of(st.just(()), RING),
)
VIEWS = st.builds(
    View,
    classes=st.frozensets(st.sampled_from(CLASSES), max_size=2),
    area=AREAS,
    attributes=st.one_of(st.none(), st.frozensets(st.sampled_from(ATTRIBUTES), min_size=1)),
)


@st.composite
def streets(draw: st.DrawFn) -> Rows:
    """Records of two feeds in slots of their own; where both speak of one, they may name two owners."""
    rows: Rows = []
    for slot in draw(st.sets(st.integers(0, SLOTS - 1), min_size=2, max_size=10)):
        code = draw(st.sampled_from((*CLASSES, "0102|0103")))
        for feed in draw(st.sampled_from(("w", "c", "wc"))):
            owner = draw(st.sampled_from(("甲", "乙", None)))
            said = {"owner_name": owner, "owner_basis": None if owner is None else "stated"}
            rows.append(a_row(f"{feed}{slot:02}", class_code=code, feed=feed, **at(slot), **said))
    return rows


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file without a row in it."""
    folder = tmp_path_factory.mktemp("empty")
    Store(Embedded(folder)).close()
    return folder / "store.sqlite"


def put(store: Store, rows: Rows, name: str) -> None:
    """Deliver rows, those of each feed by themselves."""
    for letter, feed in (("w", WATER), ("c", CENSUS)):
        theirs = [{n: value for n, value in row.items() if n != "feed"} for row in rows if row["feed"] == letter]
        if theirs:
            deliver(store, theirs, a_delivery(f"{name}-{letter}", sender=feed.bureau), feed=feed)


def split(rows: Rows, view: View) -> tuple[Rows, Rows]:
    """What the view covers, and what it withholds, by where our own polygons put it."""
    placed = pl.DataFrame([{"delivery": 0, "longitude_deg": row["x"], "latitude_deg": row["y"]} for row in rows])
    longitude, latitude = placed["longitude_deg"].to_numpy(), placed["latitude_deg"].to_numpy()
    division, grid = (areas.at(longitude, latitude) for areas in (CITY.districts, CITY.grid))
    inside = in_area(placed.with_columns(division_of_position=division, grid_of_position=grid), [view])
    seen = [
        within and (not view.classes or set(row["class_code"].split("|")) <= view.classes)
        for row, within in zip(rows, inside, strict=True)
    ]
    return [r for r, s in zip(rows, seen, strict=True) if s], [r for r, s in zip(rows, seen, strict=True) if not s]


def answers(store: Store, view: View, keys: int) -> Iterator[bytes]:
    """Every answer there is under a view, as REST and SOAP write it; of components that are there and that are not."""
    for key in range(1, keys + 1):
        for on in (None, MON):
            yield told(lambda key=key, on=on: ownership(store, str(key), on, view))
        yield told(lambda key=key: component(store, str(key), view))
    for code in CLASSES:
        for serial in range(1, 4):
            yield told(lambda code=code, serial=serial: ownership(store, f"{WEST}{code}{serial:06}", None, view))
    for slot in (0, 11, 23):
        place = at(slot)["x"], at(slot)["y"]
        for class_code, on, limit in ((None, None, 3), ("0102", None, 20), (None, MON, 3)):
            near = nearest(store, *place, 60.0, class_code, on, limit, view)
            yield b"".join(written(one) for one in near)
    for after in (0, 2):
        yield msgspec.json.encode(disputes(store, after, 2, view))
    for after, limit in ((0, 2), (0, 1000), (3, 2)):
        yield written(changes_after(store, after, limit, view))
        for class_code in (None, "0102"):
            yield written(components(store, after, limit, asking.Chosen(view, class_code)))
    cells = asking.cells(store.connection(), asking.Chosen(view))
    yield repr((sorted(cells), largest_km2(cells))).encode()


def told(ask: Any) -> bytes:
    try:
        return written(ask())
    except Refusal as refusal:
        return str(refusal).encode()


def written(answer: Any) -> bytes:
    """An answer in JSON and in XML."""
    root = etree.Element("answer")
    kinds = {
        "OwnershipAnswer": put_ownership, "Component": put_component, "NearAnswer": put_near, "Changes": put_changes,
    }  # fmt: skip
    for one in answer if isinstance(answer, tuple) else (answer,):
        kinds[type(one).__name__](root, one)
    return msgspec.json.encode(answer) + etree.tostring(root)


SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(rows=streets(), view=VIEWS)
def test_withheld_rows_change_no_byte_of_any_answer(empty: Path, rows: Rows, view: View) -> None:
    mine, withheld = split(rows, view)
    with TemporaryDirectory() as folder:
        shutil.copy(empty, folder)
        store = Store(Embedded(Path(folder)))
        put(store, mine, "mine")
        before = list(answers(store, view, len(rows) + 2))
        put(store, withheld, "withheld")
        assert list(answers(store, view, len(rows) + 2)) == before
        store.close()


NUMBERS = re.compile(
    rb'("key":|"change_number":|"component":|"identifier":|"next":|<ns0:(?:Key|ChangeNumber|Identifier|Next|Component)>)'
    rb'(?:"?[0-9]+"?)'
)


@SLOW
@given(rows=streets(), view=VIEWS)
def test_withheld_rows_that_came_first_shift_numbers_and_nothing_else(empty: Path, rows: Rows, view: View) -> None:
    mine, withheld = split(rows, view)
    lists = []
    for parts in ((mine,), (withheld, mine)):
        with TemporaryDirectory() as folder:
            shutil.copy(empty, folder)
            store = Store(Embedded(Path(folder)))
            for number, part in enumerate(parts, 2 - len(parts)):
                put(store, part, f"part-{number}")
            listed = [msgspec.json.encode(one) for one in components(store, 0, 99, asking.Chosen(view))]
            near = [written(one) for one in nearest(store, at(11)["x"], at(11)["y"], 300.0, limit=99, view=view)]
            open_ = [written(one) for one in disputes(store, 0, 99, view).owners]
            lists.append([sorted(NUMBERS.sub(rb"\1", one) for one in part) for part in (listed, near, open_)])
            store.close()
    assert lists[0] == lists[1]


@SLOW
@given(rows=streets(), view=VIEWS, other=st.sampled_from(("丙", None)))
def test_masked_values_change_no_byte_of_any_answer(empty: Path, rows: Rows, view: View, other: str | None) -> None:
    masked = [name for name in ("owner_name", "state", "note", "authority_name") if not view.shows(name)]
    seen = []
    for said in ({}, dict.fromkeys(masked, other if "state" not in masked else "破损")):
        with TemporaryDirectory() as folder:
            shutil.copy(empty, folder)
            store = Store(Embedded(Path(folder)))
            said |= {"owner_basis": "stated"} if "owner_name" in masked else {}
            put(store, [{**row, **said} for row in rows], "all")
            seen.append(list(answers(store, view, len(rows))))
            store.close()
    assert seen[0] == seen[1]


@SLOW
@given(rows=streets(), view=VIEWS)
def test_one_row_many_columns_and_the_store_are_of_one_mind(empty: Path, rows: Rows, view: View) -> None:
    with TemporaryDirectory() as folder:
        shutil.copy(empty, folder)
        store = Store(Embedded(Path(folder)))
        put(store, rows, "all")
        everything = components(store, 0, 99, asking.Chosen(EVERYTHING))
        alone = {
            one.key
            for one in everything
            if view.covers(one.class_code, one.division_code, one.grid_code, one.longitude_deg, one.latitude_deg)
        }
        as_rows = [{"x": c.longitude_deg, "y": c.latitude_deg, **msgspec.structs.asdict(c)} for c in everything]
        by_columns, _ = split(as_rows, view)
        listed = {one.key for one in components(store, 0, 99, asking.Chosen(view))}
        assert {row["key"] for row in by_columns} == alone == listed
        beyond = {key for feed in (WATER, CENSUS) for key in store.beyond(feed.id, view)["source_key"]}
        assert beyond == {row["source_key"] for row in split(rows, view)[1]}
        store.close()


def test_a_ring_that_crosses_itself_or_is_none_holds_nothing() -> None:
    bow = ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    for polygon in (bow, bow[:2], bow[:1]):
        assert not in_ring(ring_text(Area(polygon=polygon)), 0.9, 0.5)
    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    inside = [in_ring(ring_text(Area(polygon=square)), x, 0.5) for x in (0.5, 1.0, 1.0001)]
    assert inside == [True, True, False], "the edge is inside"
    assert not in_ring(ring_text(Area(polygon=square)), None, 0.5)


def test_on_a_past_day_the_area_is_judged_by_where_it_stood_then(store: Store) -> None:
    deliver(store, [a_row("K", x=121.5499)], a_delivery("1"))
    deliver(store, [a_row("K", x=121.5501)], a_delivery("2", MONDAY + DAY))
    seen = {
        (district, on): _is_told(store, on, View(area=Area(districts=(district,))))
        for district in (WEST, EAST)
        for on in (MON, TUE, None)
    }
    assert seen == {
        (WEST, MON): True, (WEST, TUE): False, (WEST, None): False,
        (EAST, MON): False, (EAST, TUE): True, (EAST, None): True,
    }  # fmt: skip


def _is_told(store: Store, on: date | None, view: View) -> bool:
    near = nearest(store, 121.55, 29.865, 30.0, on=on, view=view)
    try:
        answered = ownership(store, "1", on, view).component.key == 1
    except Refusal:
        answered = False
    assert answered == bool(near)
    return answered


def test_a_tie_shows_only_what_is_seen_of_both_its_sides(store: Store) -> None:
    sides = [a_row("W1", x=121.55 - 3e-8), a_row("W2", x=121.55 - 3e-8), a_row("W3", x=121.55 + 2e-8)]
    deliver(store, sides, a_delivery("1"))
    deliver(store, [a_row("C1", x=121.55 - 1e-8)], a_delivery("2", sender="u"), feed=CENSUS)
    (whole,) = store.ties()
    assert (whole.component, whole.others) == (4, (1, 2, 3))
    west, east = (View(area=Area(districts=(code,))) for code in (WEST, EAST))
    (seen,) = disputes(store, 0, 9, west).ties
    assert (seen.component, seen.others) == (4, (1, 2))
    assert disputes(store, 0, 9, east).ties == ()
    assert disputes(store, 4, 9).ties == ()


def test_a_masked_owner_is_told_by_no_role_verdict_claim_or_dispute(store: Store) -> None:
    deliver(store, [a_row("W", owner_code="91330200A", note="靠近路口")], a_delivery("1"))
    deliver(store, [a_row("C", owner_name="城管局")], a_delivery("2", sender="u"), feed=CENSUS)
    assert ownership(store, "1").verdict == "two bureaus claim this"
    view = View(attributes=frozenset(("authority_name", "maintainer_name", "note")))
    answer = ownership(store, "1", None, view)
    assert (answer.verdict, answer.roles[1].status, answer.roles[1].units) == ("role unknown", "unknown", ())
    assert [claim.owner for claim in answer.claims] == [None, None]
    assert answer.claims[0].attributes == {"note": "靠近路口"}
    assert (answer.claims[0].state, answer.component.state) == (None, None)
    assert disputes(store, 0, 9, view).owners == ()
    by_name = ownership(store, "1", None, View(attributes=frozenset(("owner_name",))))
    assert [(unit.code, unit.name) for unit in by_name.roles[1].units] == [
        (None, "样城自来水公司"), (None, "城管局"),
    ]  # fmt: skip


def test_what_a_grant_does_not_let_in_is_left_out_and_said() -> None:
    said = [a_row("K", note="靠近路口"), a_row("L", 1, delivery=1)]
    placed = pl.DataFrame([{"record": 0, **row} for row in said], {n: CANDIDATES[n] for n in ("record", *said[0])})
    for role in ("authority", "owner", "maintainer"):
        placed = placed.with_columns(pl.lit(None, pl.String).alias(f"{role}_code"))
    placed = placed.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in CANDIDATES.items() if name not in placed.columns
    )
    views = [View(attributes=frozenset(("owner_name", "state"))), EVERYTHING]
    kept, findings = without_masked(placed, views)
    first, second = kept.to_dicts()
    assert not any(first[name] for name in ("authority_name", "authority_basis", "maintainer_name", "note"))
    assert (first["owner_name"], first["owner_basis"], first["state"]) == ("样城自来水公司", "stated", "完好")
    assert second == placed.to_dicts()[1]
    assert findings.select("delivery", "record", "code", "field", "severity", "value").sort("field").rows() == [
        (0, 0, "grant.attribute_not_covered", "authority_name", "warning", "样城水务局"),
        (0, 0, "grant.attribute_not_covered", "maintainer_name", "warning", "样城自来水公司"),
        (0, 0, "grant.attribute_not_covered", "note", "warning", "靠近路口"),
    ]
    untouched, none = without_masked(placed, [EVERYTHING, EVERYTHING])
    assert untouched is placed
    assert none.is_empty()


def test_every_column_is_either_always_there_or_an_attribute() -> None:
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES))
    assert {"owner_name", "owner_code", "height_m", "place", "network", "readings"} <= set(ATTRIBUTES)
    assert not {"source_key", "class_code", "x", "y", "division_code", "grid_code"} & set(ATTRIBUTES)
    assert LIMIT_M
