"""Readings, both acts: kept once, proven, shown with the component, and no claim is touched by them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exchange import ownership, processing
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER
from exchange.processing import process
from exchange.publication import changes_after
from exchange.receipts import outcome_root
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

TELEMETRY = "made-up-telemetry"
FILE = """
id = "made-up-telemetry"
title = "Readings of made-up covers"
title_zh = "某单位井盖监测"
bureau = "made-up"
format = "telemetry_json"
content = "readings"
of = "made-up-covers"

[fields]
source_key  = { from = "device" }
quantity    = { from = "metric", lookup = "quantity" }
value       = { from = "value", parse = "number" }
state       = { from = "status" }
unit        = { from = "unit" }
observed_at = { from = "at", parse = "instant" }

[lookups.quantity]
"水位" = "level_m"
"开合" = "cover"

[[ignore]]
rule = "heartbeat"
title = "Heartbeat"
title_zh = "心跳"
from = "metric"
values = ["心跳"]
"""
KEYS = ["A-0", "A-1", "A-2"]


class Gateway:
    """A gateway of `made-up`, whose covers A-0 to A-2 stand in the register."""

    def __init__(self, acts: Acts) -> None:
        self.acts = acts
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.grant("made-up", "push", TELEMETRY)
        acts.push("register", covers("A", 3))
        process(FEED, acts.bus)
        self.now = acts.bus.clock()

    def at(self, **ago: float) -> str:
        """A moment before now, as the gateway writes it."""
        return (self.now - timedelta(**ago)).isoformat()

    def send(self, message_id: str, *readings: dict[str, Any] | str) -> None:
        """Act one for a delivery of readings."""
        texts = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in readings]
        self.acts.push(message_id, f'{{"readings":[{",".join(texts)}]}}'.encode(), TELEMETRY)

    def told(self, message_id: str, *readings: dict[str, Any] | str) -> dict[str, Any]:
        """Both acts; what the report says."""
        self.send(message_id, *readings)
        process(TELEMETRY, self.acts.bus)
        return self.acts.report(message_id)

    def shown(self, component: int = 1) -> list[tuple[Any, ...]]:
        found = ownership.component(self.acts.bus.store, str(component))
        return [
            (one.quantity, one.value, one.state, one.value_unit, one.message_id, one.record) for one in found.readings
        ]

    def kept(self) -> int:
        with closing(sqlite3.connect(self.acts.bus.folder / "store.sqlite")) as store:
            return int(store.execute("SELECT count(*) FROM readings").fetchone()[0])


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with both_acts(tmp_path, **{TELEMETRY: FILE}) as acts:
        yield Gateway(acts)


def level(device: str, value: Any, at: str, **more: Any) -> dict[str, Any]:
    return {"device": device, "metric": "水位", "value": value, "unit": "m", "at": at, **more}


def codes(report: dict[str, Any]) -> dict[str, list[int]]:
    return {finding["code"]: finding["first_records"] for finding in report["findings"]}


def counts(report: dict[str, Any]) -> dict[str, int]:
    names = ("records", "new", "unchanged", "rejected", "ignored", "changed", "ended", "gone")
    return {name: report[name] for name in names if report[name]}


def test_readings_are_shown_with_their_component_and_where_the_proof_lies(gateway: Gateway) -> None:
    cover = {"device": "A-0", "metric": "开合", "status": "open", "at": gateway.at(minutes=2)}
    report = gateway.told(
        "t-1", level("A-0", 3.20, gateway.at(minutes=1)), cover, level("A-1", 0, gateway.at(minutes=1))
    )
    assert counts(report) == {"records": 3, "new": 3}
    assert report["findings"] == []
    assert gateway.shown(1) == [("cover", None, "open", None, "t-1", 1), ("level_m", 3.2, None, "m", "t-1", 0)]
    assert gateway.shown(2) == [("level_m", 0.0, None, "m", "t-1", 2)]
    assert gateway.shown(3) == []
    reading = ownership.component(gateway.acts.bus.store, "1").readings[1]
    inbox = gateway.acts.bus.journal.inbox("made-up", "t-1")
    assert inbox is not None
    assert (reading.entry, reading.evidence_class) == (inbox.entry_index, "signed")
    assert (reading.bureau, reading.feed, reading.sender) == ("made-up", TELEMETRY, "made-up")
    assert reading.observed_at == gateway.now - timedelta(minutes=1)


def test_a_reading_is_no_claim(gateway: Gateway) -> None:
    store = gateway.acts.bus.store
    before = (ownership.ownership(store, "1"), changes_after(store, 0, 10), store.ledger().claims)
    gateway.told("t-1", level("A-0", 3.2, gateway.at(minutes=1)))
    assert (ownership.ownership(store, "1"), changes_after(store, 0, 10), store.ledger().claims) == before


def test_each_fault_is_found_by_name_the_others_go_on_and_the_sum_balances(gateway: Gateway) -> None:
    good = level("A-0", 1, gateway.at(minutes=1))
    report = gateway.told(
        "t-1",
        good,
        level("", 1, gateway.at(minutes=1)),
        level("B-0", 1, gateway.at(minutes=1)),
        {**good, "metric": None},
        {**good, "metric": "流量"},
        {"device": "A-1", "metric": "水位", "at": gateway.at(minutes=1)},
        level("A-1", 1, ""),
        level("A-1", 1, "2026-11-25 08:00:00"),
        level("A-1", 1, gateway.at(days=-1)),
        f'{{"device":"A-1","metric":"水位","value":NaN,"at":"{gateway.at(minutes=1)}"}}',
        f'{{"device":"A-1","metric":"水位","value":1e999,"at":"{gateway.at(minutes=1)}"}}',
        level("A-1", 1, gateway.at(minutes=1), unit="m" * 33),
        level("A-1", 1, gateway.at(minutes=1), status="o\tpen"),
        {"device": "GW", "metric": "心跳"},
        good,
        {**good, "value": 2},
        level("A-2", 7, gateway.at(minutes=1)),
        level("A-1", 1, gateway.at(minutes=2), status="锟斤拷"),
    )
    assert {code: at for code, at in codes(report).items() if code != "value.not_readable"} == {
        "key.missing": [1],
        "reading.component_unknown": [2],
        "reading.quantity_missing": [3],
        "value.lookup_unknown": [4],
        "reading.value_missing": [5],
        "reading.time_missing": [6],
        "reading.from_the_future": [8],
        "text.too_long": [11],
        "text.control_characters": [12],
        "text.garbled": [17],
        "ignored.heartbeat": [13],
        "reading.duplicate": [14],
        "reading.contradicts": [15],
    }
    unreadable = {
        (finding["field"], tuple(finding["first_records"]))
        for finding in report["findings"]
        if finding["code"] == "value.not_readable"
    }
    assert unreadable == {("observed_at", (7,)), ("value", (9, 10))}
    assert counts(report) == {"records": 18, "new": 2, "rejected": 14, "ignored": 2}
    for finding in report["findings"]:
        assert all(finding["sentence"][name] for name in ("zh", "en", "next_zh", "next_en"))
    assert (gateway.shown(1), gateway.shown(2)) == ([("level_m", 1.0, None, "m", "t-1", 0)], [])


def test_each_outcome_is_under_the_root_that_the_report_signs(gateway: Gateway) -> None:
    report = gateway.told("t-1", level("A-0", 1, gateway.at(minutes=1)), level("B-0", 1, gateway.at(minutes=1)))
    root, _ = outcome_root(["A-0", "B-0"], ["new", "rejected"], bytes.fromhex(report["outcome_secret"]))
    assert root.hex() == report["outcome_root"]
    outcomes = gateway.acts.bus.store.outcomes("made-up", "t-1")
    assert outcomes is not None
    assert outcomes.select("source_key", "outcome", "component", "code").rows() == [
        ("A-0", "new", 1, None), ("B-0", "rejected", None, "reading.component_unknown"),
    ]  # fmt: skip


def test_the_same_again_is_unchanged_and_another_value_for_the_moment_is_rejected(gateway: Gateway) -> None:
    first = level("A-0", 1, gateway.at(minutes=1))
    gateway.told("t-1", first)
    again = gateway.told("t-2", first, level("A-0", "1.0", gateway.at(minutes=1)), {**first, "value": 2})
    assert counts(again) == {"records": 3, "unchanged": 1, "ignored": 1, "rejected": 1}
    assert codes(again) == {"reading.duplicate": [1], "reading.contradicts": [2]}
    assert (gateway.kept(), gateway.shown()) == (1, [("level_m", 1.0, None, "m", "t-1", 0)])


def test_a_reading_that_comes_late_is_kept_and_is_not_the_latest(gateway: Gateway) -> None:
    gateway.told("t-1", level("A-0", 2, gateway.at(minutes=1)))
    late = gateway.told("t-2", level("A-0", 9, gateway.at(days=400)), level("A-0", 3, gateway.at(minutes=2)))
    assert counts(late) == {"records": 2, "new": 2}
    assert (gateway.kept(), gateway.shown()) == (3, [("level_m", 2.0, None, "m", "t-1", 0)])
    gateway.told("t-3", level("A-0", 4, gateway.at(seconds=1)))
    assert gateway.shown() == [("level_m", 4.0, None, "m", "t-3", 0)]


def test_a_clock_five_minutes_ahead_is_right_and_one_more_second_is_not(gateway: Gateway) -> None:
    stands = gateway.acts.with_(clock=lambda: gateway.now)
    for name, ahead in (("t-1", 300), ("t-2", 301)):
        at = (gateway.now + timedelta(seconds=ahead)).isoformat()
        stands.push(name, json.dumps([level("A-0", 1, at)]).encode(), TELEMETRY)
        process(TELEMETRY, gateway.acts.bus)
    assert counts(gateway.acts.report("t-1")) == {"records": 1, "new": 1}
    assert codes(gateway.acts.report("t-2")) == {"reading.from_the_future": [0]}


def test_deliveries_that_wait_together_are_judged_in_their_order(gateway: Gateway) -> None:
    for number in range(4):
        gateway.send(
            f"t-{number}",
            level("A-0", number // 2, gateway.at(minutes=5)),
            level("A-1", number, gateway.at(hours=number)),
        )
    process(TELEMETRY, gateway.acts.bus)
    told = [counts(gateway.acts.report(f"t-{number}")) for number in range(4)]
    assert told == [
        {"records": 2, "new": 2},
        {"records": 2, "new": 1, "unchanged": 1},
        {"records": 2, "new": 1, "rejected": 1},
        {"records": 2, "new": 1, "rejected": 1},
    ]
    assert gateway.shown(2) == [("level_m", 0.0, None, "m", "t-0", 1)]


def test_one_delivery_that_is_no_json_is_refused_alone(gateway: Gateway) -> None:
    gateway.send("t-1", level("A-0", 1, gateway.at(minutes=1)))
    gateway.acts.push("t-2", b'[{"v":1,"v":2}]', TELEMETRY)
    gateway.send("t-3", level("A-1", 1, gateway.at(minutes=1)))
    process(TELEMETRY, gateway.acts.bus)
    assert gateway.acts.report("t-2")["code"] == "decode.not_readable"
    assert [counts(gateway.acts.report(name)) for name in ("t-1", "t-3")] == [{"records": 1, "new": 1}] * 2


def test_a_delivery_without_readings_is_reported_with_none(gateway: Gateway) -> None:
    assert counts(gateway.told("t-1")) == {}
    assert gateway.told("t-2", {"device": "GW", "metric": "心跳"})["ignored"] == 1


def test_a_delivery_stored_before_a_crash_is_reported_and_kept_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    gateway.send("t-1", level("A-0", 1, gateway.at(minutes=1)))
    with monkeypatch.context() as broken:
        broken.setattr(processing, "_report", crash)
        with pytest.raises(KeyboardInterrupt):
            process(TELEMETRY, gateway.acts.bus)
    assert gateway.acts.bus.journal.report("made-up", "t-1") is None
    assert gateway.kept() == 1
    process(TELEMETRY, gateway.acts.bus)
    assert (counts(gateway.acts.report("t-1")), gateway.kept()) == ({"records": 1, "new": 1}, 1)


def test_a_grant_for_some_classes_covers_readings_of_these_only(gateway: Gateway) -> None:
    (wide,) = (one for one in gateway.acts.bus.registry.grants("made-up") if one.target == TELEMETRY)
    with registry(gateway.acts.trial.settings) as opened:
        opened.revoke_grant(wide.id, APPROVER)
    gateway.acts.trial.grant("made-up", "push", TELEMETRY, ["CJ/T 214-2007:0102"])
    report = gateway.told("t-1", level("A-0", 1, gateway.at(minutes=1)))
    assert codes(report) == {"class.not_granted": [0]}


def test_a_thing_that_has_left_the_register_may_still_report(gateway: Gateway) -> None:
    with closing(sqlite3.connect(gateway.acts.bus.folder / "store.sqlite")) as store, store:
        store.execute("UPDATE claims SET valid_to_us = 1 WHERE source_key = 'A-0'")
    assert counts(gateway.told("t-1", level("A-0", 1, gateway.at(minutes=1)))) == {"records": 1, "new": 1}


def test_another_bureaus_register_is_not_looked_into(gateway: Gateway) -> None:
    with closing(sqlite3.connect(gateway.acts.bus.folder / "store.sqlite")) as store, store:
        store.execute("UPDATE feeds SET code = 'somebody-elses' WHERE code = ?", (FEED,))
    assert codes(gateway.told("t-1", level("A-0", 1, gateway.at(minutes=1)))) == {"reading.component_unknown": [0]}


def test_moments_of_any_zone_are_one_moment(gateway: Gateway) -> None:
    moment = datetime(2026, 11, 20, 0, 0, tzinfo=UTC)
    gateway.told("t-1", level("A-0", 1, "2026-11-20T08:00:00+08:00"))
    again = gateway.told("t-2", level("A-0", 1, "2026-11-20T00:00:00.000Z"))
    assert counts(again) == {"records": 1, "unchanged": 1}
    assert ownership.component(gateway.acts.bus.store, "1").readings[0].observed_at == moment


def test_recalled_readings_are_shown_no_more_and_may_be_reported_anew(gateway: Gateway) -> None:
    acts = gateway.acts
    gateway.told("t-1", level("A-0", 1.0, gateway.at(minutes=10)))
    gateway.told("t-2", level("A-0", 9.9, gateway.at(minutes=5)))
    last = max(change.change_number for change in changes_after(acts.bus.store, 0, 100).changes)
    acts.recall(acts.recalling("t-2"))
    process(TELEMETRY, acts.bus)
    assert [(value, message_id) for _, value, _, _, message_id, _ in gateway.shown()] == [(1.0, "t-1")]
    assert [(one.key, one.kind) for one in changes_after(acts.bus.store, last, 100).changes] == [(1, "recalled")]
    assert counts(gateway.told("t-3", level("A-0", 2.0, gateway.at(minutes=5))))["new"] == 1
    assert [(value, message_id) for _, value, _, _, message_id, _ in gateway.shown()] == [(2.0, "t-3")]
