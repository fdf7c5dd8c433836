"""Whose is it, now and on past days; two who claim it, nobody, and a role that is not known."""

from datetime import date
from pathlib import Path

import pytest

from exchange.ownership import component, nearest, ownership
from exchange.store.embedded import Embedded
from exchange.store.roles import Unit, verdict, weigh
from exchange.store.store import Store
from security.errors import Refusal
from tests.components.builders import CENSUS, DAY, MONDAY, a_delivery, a_row, deliver

MON, TUE, WED, THU = (date(2026, 3, day) for day in (2, 3, 4, 5))
GONE = {"removed": True, "delivery": 0}
WATER_CODE = Unit("91330200W", "样城水务", "stated")


@pytest.mark.parametrize(
    "said, status, units",
    [
        ([], "unknown", ()),
        ([None, None], "unknown", ()),
        ([None, WATER_CODE], "stated", (WATER_CODE,)),
        ([WATER_CODE, Unit("91330200W", "样城水务有限公司", "stated")], "stated", None),  # one code, two spellings
        ([WATER_CODE, Unit(None, "样城水务", "stated")], "stated", None),  # the same name, one without code
        ([WATER_CODE, Unit("91330200X", "样城水务", "stated")], "disputed", None),
        ([WATER_CODE, Unit(None, "别家", "stated")], "disputed", None),
        ([WATER_CODE, Unit(None, "别家", "default")], "stated", (WATER_CODE,)),  # stated beats default
        ([Unit(None, "甲", "default")], "defaulted", (Unit(None, "甲", "default"),)),
        ([Unit(None, "甲", "default"), Unit(None, "乙", "default")], "disputed", None),
    ],
)
def test_a_role_is_weighed(said: list[Unit | None], status: str, units: tuple[Unit, ...] | None) -> None:
    for order in (said, said[::-1]):
        answer = weigh("owner", order)
        assert answer.status == status
        assert units is None or answer.units == units


def test_the_verdict_says_a_dispute_before_a_gap() -> None:
    disputed = weigh("owner", [WATER_CODE, Unit(None, "别家", "stated")])
    unknown, known = weigh("authority", []), weigh("maintainer", [WATER_CODE])
    assert verdict([disputed, unknown, known]) == "two bureaus claim this"
    assert verdict([unknown, known]) == "role unknown"
    assert verdict([known]) == "one owner"
    assert verdict([unknown, unknown]) == "nobody claims this"


def test_ownership_on_past_days_over_changes_ends_and_a_return(store: Store) -> None:
    deliver(store, [a_row("K", owner_name="甲")], a_delivery("1", MONDAY))
    deliver(store, [a_row("K", owner_name="乙")], a_delivery("2", MONDAY + DAY))
    deliver(store, [{"source_key": "K", **GONE}], a_delivery("3", MONDAY + 2 * DAY))
    deliver(store, [a_row("K", owner_name="丙")], a_delivery("4", MONDAY + 3 * DAY))
    owners = {on: [unit.name for unit in ownership(store, "1", on).roles[1].units] for on in (MON, TUE, WED, THU, None)}
    assert owners == {MON: ["甲"], TUE: ["乙"], WED: [], THU: ["丙"], None: ["丙"]}
    assert ownership(store, "1", WED).verdict == "nobody claims this"
    assert ownership(store, "1", date(2026, 3, 1)).verdict == "nobody claims this"
    assert ownership(store, "1", MON).component.key == 1


def test_a_day_ends_at_midnight_of_plus_eight(store: Store) -> None:
    evening = MONDAY.replace(hour=16)  # midnight of Tuesday in the city
    deliver(store, [a_row("K", owner_name="甲")], a_delivery("1", MONDAY))
    deliver(store, [a_row("K", owner_name="乙")], a_delivery("2", evening))
    assert ownership(store, "1", MON).roles[1].units[0].name == "甲"
    assert ownership(store, "1", TUE).roles[1].units[0].name == "乙"


@pytest.mark.parametrize("on", [date.min, date(9999, 12, 30), date.max])
def test_the_ends_of_the_calendar_are_days_like_any_other(store: Store, on: date) -> None:
    deliver(store, [a_row("K", owner_name="甲")], a_delivery("1", MONDAY))
    assert ownership(store, "1", on).verdict == ("nobody claims this" if on == date.min else "one owner")
    assert nearest(store, 121.55, 29.87, 10.0, None, on) is not None


def test_a_claim_is_told_with_its_proof(store: Store) -> None:
    delivery = a_delivery("m-17", MONDAY, received_at=MONDAY + DAY, entry=4711)
    deliver(store, [a_row("L", 5), a_row("K", owner_basis="default", name="上水井盖")], delivery)
    answer = ownership(store, "3302030101000001")
    claim = answer.claims[0]
    assert (claim.bureau, claim.feed, claim.source_key, claim.sender) == ("water", "water-register", "K", "water")
    assert (claim.message_id, claim.record, claim.entry, claim.evidence_class) == ("m-17", 1, 4711, "signed")
    assert (claim.valid_from, claim.valid_to) == (MONDAY, None)
    assert claim.recorded_at > MONDAY + DAY
    assert claim.owner == Unit(None, "样城自来水公司", "default")
    assert claim.join_distance_m is None
    assert [(role.role, role.status) for role in answer.roles] == [
        ("authority", "stated"),
        ("owner", "defaulted"),
        ("maintainer", "stated"),
    ]
    assert answer.component.name == "上水井盖"
    assert component(store, "1") == answer.component


def test_a_past_claim_says_until_when_it_held(store: Store) -> None:
    deliver(store, [a_row("K")], a_delivery("1", MONDAY))
    deliver(store, [a_row("K", state="破损")], a_delivery("2", MONDAY + 2 * DAY))
    claim = ownership(store, "1", TUE).claims[0]
    assert (claim.message_id, claim.valid_from, claim.valid_to) == ("1", MONDAY, MONDAY + 2 * DAY)


def test_two_bureaus_that_state_two_owners_are_a_dispute_and_only_on_those_days(store: Store) -> None:
    deliver(store, [a_row("W")], a_delivery("1", MONDAY))
    deliver(
        store, [a_row("C", x=121.541002, owner_name="别家")], a_delivery("1", MONDAY + DAY, sender="u"), feed=CENSUS
    )
    deliver(store, [a_row("C", x=121.541002)], a_delivery("2", MONDAY + 2 * DAY, sender="u"), feed=CENSUS)
    verdicts = [ownership(store, "1", on).verdict for on in (MON, TUE, WED, None)]
    assert verdicts == ["one owner", "two bureaus claim this", "one owner", "one owner"]
    disputed = ownership(store, "1", TUE)
    assert disputed.roles[1].status == "disputed"
    assert {unit.name for unit in disputed.roles[1].units} == {"样城自来水公司", "别家"}
    assert [claim.feed for claim in disputed.claims] == ["water-register", "urban-census"]
    joined = disputed.claims[1].join_distance_m
    assert joined is not None
    assert 0.1 < joined < 0.3


def test_attributes_come_from_the_longest_known_and_words_from_the_last_recorded(store: Store) -> None:
    deliver(store, [a_row("W", state="完好", name="老名")], a_delivery("1", MONDAY))
    deliver(store, [a_row("C", x=121.541002, state="破损")], a_delivery("1", MONDAY + DAY, sender="u"), feed=CENSUS)
    found = component(store, "1")
    assert (found.longitude_deg, found.state, found.name) == (121.541, "破损", "老名")


def test_a_missing_role_is_a_gap_and_an_orphan_is_kept(store: Store) -> None:
    deliver(store, [a_row("K", maintainer_name=None), a_row("L", 1)], a_delivery("1"))
    deliver(store, [{"source_key": "L", **GONE}], a_delivery("2", MONDAY + DAY))
    assert ownership(store, "1").verdict == "role unknown"
    orphan = ownership(store, "2")
    assert orphan.verdict == "nobody claims this"
    assert orphan.claims == ()
    assert orphan.component.identifier == "3302030101000002"


@pytest.mark.parametrize("asked", ["3302030101000009", "99", "0000000000000000"])
def test_a_component_that_is_not_there_is_refused_by_name(store: Store, asked: str) -> None:
    with pytest.raises(Refusal) as refused:
        ownership(store, asked)
    assert refused.value.code == "component.unknown"


def test_nearest_is_in_order_of_distance_and_holds_to_radius_class_and_limit(store: Store) -> None:
    rows = [a_row(f"K{n}", n, class_code=("0101", "0102")[n % 2]) for n in range(6)]
    deliver(store, rows, a_delivery("1"))
    near = nearest(store, 121.541, 29.865, 25.0)
    assert [one.answer.component.key for one in near] == [1, 2, 3]
    assert [round(one.distance_m, 1) for one in near] == [0.0, 9.7, 19.3]
    assert [one.answer.component.key for one in nearest(store, 121.541, 29.865, 45.0, "0102")] == [2, 4]
    assert len(nearest(store, 121.541, 29.865, 500.0, limit=2)) == 2
    assert nearest(store, 121.0, 29.0, 100.0) == ()


def test_nearest_finds_across_the_edges_of_cells(store: Store) -> None:
    deliver(store, [a_row("K", x=121.5420001, y=29.8660001)], a_delivery("1"))
    assert len(nearest(store, 121.5419999, 29.8659999, 1.0)) == 1


def test_nearest_on_a_past_day_finds_things_where_they_were(store: Store) -> None:
    deliver(store, [a_row("K")], a_delivery("1", MONDAY))
    deliver(store, [a_row("K", x=121.546), a_row("L", 1)], a_delivery("2", MONDAY + 2 * DAY))
    deliver(store, [{"source_key": "L", **GONE}], a_delivery("3", MONDAY + 3 * DAY))

    def there(on: date | None) -> list[int]:
        return [one.answer.component.key for one in nearest(store, 121.541, 29.865, 30.0, on=on)]

    assert there(date(2026, 3, 1)) == []
    assert there(TUE) == [1]
    assert there(WED) == [2]
    assert there(None) == [2]  # an orphan is found where it was left
    assert nearest(store, 121.541, 29.865, 30.0, on=THU)[0].answer.verdict == "nobody claims this"


@pytest.mark.parametrize("radius_m", [0.0, -1.0, 500.1, float("nan")])
def test_a_radius_beyond_the_limit_is_refused(store: Store, radius_m: float) -> None:
    with pytest.raises(Refusal) as refused:
        nearest(store, 121.541, 29.865, radius_m)
    assert refused.value.code == "component.radius_too_large"


@pytest.mark.parametrize("on", ["NULL", "1"])
@pytest.mark.of_a_file
def test_an_answer_is_looked_up_by_index_never_by_reading_a_table(store: Store, on: str) -> None:
    from exchange.store import asking

    for question in (asking.BY_KEY, asking.BY_IDENTIFIER):
        statement = question.now if on == "NULL" else question.then
        plan = store.connection().execute(f"EXPLAIN QUERY PLAN {statement}", ("1", None)).fetchall()
        scans = [row[3] for row in plan if row[3].startswith("SCAN") and row[3].split()[1] not in ("c", "k", "at")]
        assert [scan for scan in scans if "CONSTANT" not in scan] == []


def test_a_store_opened_again_answers_the_same(tmp_path: Path) -> None:
    first = Store(Embedded(tmp_path))
    deliver(first, [a_row("K")], a_delivery("1"))
    before = ownership(first, "1")
    first.close()
    again = Store(Embedded(tmp_path))
    assert ownership(again, "1") == before
    again.close()
