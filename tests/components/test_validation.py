"""Every rule: a good record passes it, the same record with one thing spoiled does not."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from exchange.placing import place
from exchange.rights import View
from exchange.store.frames import BatchDelivery
from exchange.validation import RULES, check
from mappings.findings import sentence_of
from mappings.schema import FINDINGS, KEY
from security.message import Area
from tests.components.builders import CITY, LIMIT_M, LISTS, MONDAY, a_delivery, a_row, candidates

GOOD: dict[str, Any] = {
    "grid_code": "330203001001001",
    "division_code": "330203",
    "component_code": "3302030101000001",
    "initial_date": date(2012, 5, 1),
    "change_date": date(2020, 5, 1),
    "name": "上水井盖",
    "data_source": "普查",
    "note": "靠近路口",
    "place": "样城路",
}
FEED_CLASSES = ("0101", "0102")
WESTERN = View(
    frozenset(("0101", "0118")),
    Area(polygon=((121.54, 29.86), (121.549, 29.86), (121.549, 29.88), (121.54, 29.88))),
)

SPOILED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("key.missing", "source_key", "error", {"source_key": None}),
    ("class.missing", "class_code", "error", {"class_code": None}),
    ("class.unknown", "class_code", "error", {"class_code": "9999"}),
    ("class.not_in_feed", "class_code", "error", {"class_code": "0118"}),
    ("class.not_granted", "class_code", "error", {"class_code": "0102"}),
    ("grant.key_outside", "source_key", "error", {"source_key": "ELSEWHERE"}),
    ("grant.outside_area", "x", "error", {"x": 121.5495}),
    ("position.missing", "x", "error", {"x": None}),
    ("position.missing", "x", "error", {"y": None}),
    ("division.unknown", "division_code", "error", {"division_code": "330299"}),
    ("division.abolished", "division_code", "error", {"division_code": "330204"}),
    ("position.outside_division", "division_code", "error", {"division_code": "330205"}),
    ("grid.code_length", "grid_code", "error", {"grid_code": "33020300100101"}),
    ("grid.unknown", "grid_code", "error", {"grid_code": "330203001001999"}),
    ("grid.disagrees", "grid_code", "warning", {"grid_code": "330203001001002"}),
    ("component_code.malformed", "component_code", "error", {"component_code": "33020301010000011"}),
    ("component_code.class_disagrees", "component_code", "warning", {"component_code": "3302030102000001"}),
    ("component_code.division_disagrees", "component_code", "warning", {"component_code": "3302050101000001"}),
    ("state.unknown", "state", "error", {"state": "还行"}),
    ("date.future", "initial_date", "error", {"initial_date": date(2199, 1, 1), "change_date": None}),
    ("date.future", "change_date", "error", {"change_date": date(2026, 3, 3)}),
    ("date.order", "change_date", "error", {"change_date": date(2012, 4, 30)}),
    ("authority.missing", "authority_name", "warning", {"authority_name": None, "authority_basis": None}),
    ("text.too_long", "note", "error", {"note": "长" * 101}),
    ("text.too_long", "owner_name", "error", {"owner_name": "长" * 61}),
    ("text.control_characters", "place", "error", {"place": "样城路\n"}),
    ("text.control_characters", "source_key", "error", {"source_key": "K\x1f1"}),
    ("text.garbled", "place", "error", {"place": "样城路\ufffd号"}),
    ("text.garbled", "place", "error", {"place": "锟斤拷锟斤拷"}),
    ("text.garbled", "place", "error", {"place": "\ue863溪"}),
    ("text.garbled", "place", "error", {"place": "管线".encode("gbk").decode("latin-1") + "12"}),
    ("text.garbled", "place", "error", {"place": "???? 12"}),
    ("text.garbled", "source_key", "error", {"source_key": "K\ue0001"}),
]


def found(*rows: dict[str, Any], delivery: BatchDelivery | None = None) -> pl.DataFrame:
    placing = place(candidates(rows), crs="EPSG:4490", accuracy_m=0.5, city=CITY, limit_m=LIMIT_M)
    delivery = delivery or a_delivery("m", view=WESTERN)
    beyond = pl.DataFrame(
        {"delivery": [0], "source_key": ["ELSEWHERE"]}, {"delivery": pl.UInt32, "source_key": pl.String}
    )
    return check(
        placing.placed, placing.findings, deliveries=[delivery], classes=FEED_CLASSES, lists=LISTS, beyond=beyond
    )


def test_a_good_record_breaks_no_rule() -> None:
    assert found(a_row("K", **GOOD)).is_empty()


def test_a_record_that_says_only_what_it_must_breaks_no_rule() -> None:
    bare = {"source_key": "K", "class_code": "0101", "x": 121.541, "y": 29.865, "authority_code": "A", "delivery": 0}
    assert found(bare).is_empty()


@pytest.mark.parametrize("code, field, severity, spoil", SPOILED)
def test_one_thing_spoiled_is_one_finding(code: str, field: str, severity: str, spoil: dict[str, Any]) -> None:
    findings = found(a_row("K", **{**GOOD, **spoil}))
    if code.startswith("class."):  # the code inside the component code disagrees as well
        findings = findings.filter(pl.col("field") == "class_code")
    assert findings.select("code", "field", "severity").rows() == [(code, field, severity)]


def test_every_rule_is_spoiled_above_and_has_its_sentence() -> None:
    elsewhere = {"key.duplicate", "key.doubled", "position.no_grid"}
    assert {rule.code for rule in RULES} == {code for code, *_ in SPOILED} | elsewhere
    assert len({rule.code for rule in RULES}) >= 15
    for rule in RULES:
        assert sentence_of(rule.code).zh


def test_of_a_key_said_twice_the_first_record_stands_and_its_bureau_is_warned() -> None:
    findings = found(a_row("K"), a_row("L", 1), a_row("K", 2), a_row("K", 3))
    errors = findings.filter(severity="error").select("record", "code").rows()
    assert errors == [(2, "key.duplicate"), (3, "key.duplicate")]
    assert findings.filter(severity="warning").select("record", "code").rows() == [(0, "key.doubled")]


def test_the_same_key_in_two_deliveries_is_no_duplicate() -> None:
    rows = candidates([a_row("K"), a_row("K", delivery=1)])
    placing = place(rows, crs="EPSG:4490", accuracy_m=0.5, city=CITY, limit_m=LIMIT_M)
    both = [a_delivery("m"), a_delivery("n")]
    assert check(placing.placed, placing.findings, deliveries=both, classes=(), lists=LISTS).is_empty()


def test_each_delivery_is_held_to_its_own_grant() -> None:
    rows = candidates([a_row("K"), a_row("L", 1, delivery=1), a_row("M", 2, delivery=2)])
    placing = place(rows, crs="EPSG:4490", accuracy_m=0.5, city=CITY, limit_m=LIMIT_M)
    deliveries = [a_delivery("m", classes=("0101",)), a_delivery("n", classes=("0102",)), a_delivery("o")]
    findings = check(placing.placed, placing.findings, deliveries=deliveries, classes=(), lists=LISTS)
    assert findings.select("delivery", "code").rows() == [(1, "class.not_granted")]


def test_a_hole_in_the_grid_is_a_warning() -> None:
    placing = place(candidates([a_row("K")]), crs="EPSG:4490", accuracy_m=0.5, city=CITY, limit_m=LIMIT_M)
    holed = placing.placed.with_columns(grid_of_position=pl.lit(None, pl.String))
    findings = check(holed, placing.findings, deliveries=[a_delivery("m")], classes=(), lists=LISTS)
    assert findings.select("code", "severity").rows() == [("position.no_grid", "warning")]


def test_a_record_that_says_gone_need_say_no_more_than_its_key() -> None:
    gone = {"source_key": "K", "removed": True, "delivery": 0}
    assert found(gone).is_empty()
    assert found({**gone, "source_key": None})["code"].to_list() == ["key.missing"]


def test_today_is_the_day_of_plus_eight_on_which_the_delivery_came() -> None:
    evening = datetime(2026, 3, 2, 16, 30, tzinfo=UTC)  # half past midnight of the third, in the city
    row = a_row("K", initial_date=date(2026, 3, 3))
    assert found(row, delivery=a_delivery("m", received_at=evening)).is_empty()
    before = a_delivery("m", received_at=evening - timedelta(hours=1))
    assert found(row, delivery=before)["code"].to_list() == ["date.future"]


def test_what_is_said_of_a_field_already_is_not_said_again() -> None:
    placing = place(candidates([a_row("K", class_code=None)]), crs="EPSG:4490", accuracy_m=0.5, city=CITY, limit_m=1)
    mapped = pl.DataFrame([(0, 0, "value.lookup_unknown", "class_code", "error", "智慧灯杆")], FINDINGS, orient="row")
    assert check(placing.placed, mapped, deliveries=[a_delivery("m", MONDAY)], classes=(), lists=LISTS).is_empty()


def test_findings_name_the_record_and_what_it_said() -> None:
    findings = found(a_row("A"), a_row("B", 1, note="长" * 200))
    assert findings.select(*KEY, "value").rows() == [(0, 1, "长" * 80)]


def test_the_word_lists_of_the_edition_are_read() -> None:
    assert {"完好", "破损", "丢失", "废弃"} <= LISTS.states
    assert len(LISTS.classes) == 85
    assert LISTS.code_digits == 16
