"""A push is held to its grant: class, area, attributes, and what it may end; readings and joins too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange import ownership
from exchange.bus import Limits
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER
from exchange.processing import process
from security.batch import unverified
from security.errors import sentences
from security.message import Area
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.acts.test_readings import FILE as READINGS_FILE
from tests.acts.test_readings import TELEMETRY
from tests.whole.real_bus import grid_at

WEST, EAST = "330203", "330205"
CELL = grid_at(121.5471, 29.868)
ASSETS, WHOLE, SECOND = "made-up-assets", "made-up-whole", "made-up-second"
FIELDS = """
id = "{id}"
title = "Assets"
title_zh = "资产"
bureau = "made-up"
format = "table"
content = "{content}"
crs = "EPSG:4490"
accuracy = 0.5
gone_limit_percent = 100

[defaults]
maintainer_name = "养护所"

[fields]
source_key = {{ from = "编号" }}
class_code = {{ from = "类别" }}
longitude_deg = {{ from = "经度", parse = "degrees" }}
latitude_deg = {{ from = "纬度", parse = "degrees" }}
name = {{ from = "名称" }}
owner_name = {{ from = "权属" }}
removed = {{ from = "注销", parse = "yes_no" }}
"""
HEAD = "编号,类别,经度,纬度,名称,权属,注销"


def feed(id: str, content: str = "changes") -> str:
    text = FIELDS.format(id=id, content=content)
    return text.replace("removed =", "# removed =") if content == "snapshot" else text


def row(key: str, longitude: float = 121.547, code: str = "0101", removed: str = "否") -> str:
    return f"{key},{code},{longitude + int(key[1:]) * 1e-4:.6f},29.868,盖,甲公司,{removed}"


def file(*rows: str) -> bytes:
    return "\n".join([HEAD, *rows, ""]).encode()


WESTERN, EASTERN = row("A1"), row("B1", 121.553)


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    more = {ASSETS: feed(ASSETS), WHOLE: feed(WHOLE, "snapshot"), SECOND: feed(SECOND), TELEMETRY: READINGS_FILE}
    with both_acts(tmp_path, **more) as acts:
        yield acts


def pushed(acts: Acts, message_id: str, content: bytes, feed: str = ASSETS) -> dict[str, Any]:
    """The report of a push, once act two has run."""
    acts.push(message_id, content, feed)
    process(feed, acts.bus)
    octets = acts.bus.journal.report("made-up", message_id)
    assert octets is not None
    report: dict[str, Any] = unverified(octets)["report"]
    return report


def codes(report: dict[str, Any]) -> set[tuple[str, str, int]]:
    return {(one["code"], one["field"], one["count"]) for one in report["findings"] if one["code"].startswith("grant.")}


@pytest.mark.parametrize(
    "area",
    [
        Area(districts=(WEST,)),
        Area(cells=(CELL,)),
        Area(polygon=((121.546, 29.867), (121.549, 29.867), (121.549, 29.869), (121.546, 29.869))),
    ],
    ids=["district", "cell", "polygon"],
)
def test_what_lies_outside_the_area_is_rejected_and_the_rest_taken(acts: Acts, area: Area) -> None:
    acts.trial.grant("made-up", "push", ASSETS, area=area)
    report = pushed(acts, "m-1", file(WESTERN, EASTERN))
    assert (report["new"], report["rejected"]) == (1, 1)
    assert codes(report) == {("grant.outside_area", "x", 1)}


def test_attributes_outside_the_list_are_dropped_and_said_whoever_filled_them_in(acts: Acts) -> None:
    acts.trial.grant("made-up", "push", ASSETS, attributes=("name",))
    report = pushed(acts, "m-1", file(WESTERN))
    assert (report["new"], report["rejected"]) == (1, 0)
    assert codes(report) == {
        ("grant.attribute_not_covered", "owner_name", 1), ("grant.attribute_not_covered", "maintainer_name", 1),
    }  # fmt: skip
    (claim,) = ownership.ownership(acts.bus.store, "1").claims
    assert (claim.name, claim.owner, claim.maintainer) == ("盖", None, None)


def test_what_stands_outside_a_grant_is_neither_changed_nor_ended_under_it(acts: Acts) -> None:
    wide = acts.trial.grant("made-up", "push", ASSETS)
    assert pushed(acts, "m-1", file(WESTERN, EASTERN))["new"] == 2
    with_narrow(acts, ASSETS, wide)
    report = pushed(acts, "m-2", file("B1,0101,121.547500,29.868,搬了,甲公司,否", row("A1", removed="是")))
    assert (report["changed"], report["ended"], report["rejected"]) == (0, 1, 1)
    assert codes(report) == {("grant.key_outside", "source_key", 1)}
    report = pushed(acts, "m-3", file("B1,,,,,,是"))
    assert codes(report) == {("grant.key_outside", "source_key", 1)}
    assert len(ownership.ownership(acts.bus.store, "2").claims) == 1


def test_a_snapshot_under_a_narrow_grant_ends_nothing_that_lies_outside_it(acts: Acts) -> None:
    wide = acts.trial.grant("made-up", "push", WHOLE)
    assert pushed(acts, "m-1", file(WESTERN, row("A2"), EASTERN), WHOLE)["new"] == 3
    with_narrow(acts, WHOLE, wide)
    report = pushed(acts, "m-2", file(WESTERN), WHOLE)
    assert (report["unchanged"], report["gone"], report["rejected"]) == (1, 1, 0)
    assert [len(ownership.ownership(acts.bus.store, key).claims) for key in ("1", "2", "3")] == [1, 0, 1]


def with_narrow(acts: Acts, target: str, wide: str) -> None:
    """The west alone, from now on."""
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(wide, APPROVER)
    acts.trial.grant("made-up", "push", target, area=Area(districts=(WEST,)))


def readings(*keys: str) -> bytes:
    at = "2026-11-20T08:00:00+08:00"
    said = [{"device": key, "metric": "水位", "value": 1.5, "unit": "m", "at": at} for key in keys]
    return json.dumps({"readings": said}).encode()


@pytest.mark.parametrize(
    "limits, code",
    [
        ({"area": Area(districts=(EAST,))}, ("grant.outside_area", "source_key", 2)),
        ({"attributes": ("name",)}, ("grant.attribute_not_covered", "quantity", 2)),
        ({"area": Area(districts=(WEST,)), "attributes": ("readings",)}, None),
    ],
)
def test_readings_are_held_to_where_their_component_stands(
    acts: Acts, limits: dict[str, Any], code: tuple[str, str, int] | None
) -> None:
    acts.trial.grant("made-up", "push", FEED)
    pushed(acts, "m-1", covers("A", 2), FEED)
    acts.trial.grant("made-up", "push", TELEMETRY, **limits)
    report = pushed(acts, "m-2", readings("A-0", "A-1"), TELEMETRY)
    assert report["new"] == (0 if code else 2)
    assert codes(report) == ({code} if code else set())


def test_a_join_over_a_larger_map_than_is_allowed_is_refused_without_a_grant_that_names_it(acts: Acts) -> None:
    small = acts.with_(limits=Limits(map_area_km2=0.03))
    line = file(*(row(f"A{n}", 121.5455) for n in range(0, 40, 10)))  # four cells of 0.011 km² side by side
    acts.trial.grant("made-up", "push", ASSETS)
    assert pushed(small, "m-1", line)["new"] == 4
    narrow = acts.trial.grant("made-up", "push", SECOND)
    report = pushed(small, "m-2", line, SECOND)
    assert report["code"] == "join.area_too_large"
    assert "needs: push made-up-second, map area 1 km²" in report["detail"]
    assert report["sentence"]["zh"] == sentences()["join.area_too_large"].zh
    assert all(len(ownership.ownership(acts.bus.store, key).claims) == 1 for key in "1234")
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(narrow, APPROVER)
    acts.trial.grant("made-up", "push", SECOND, map_area_km2=1)
    assert pushed(small, "m-3", line, SECOND)["new"] == 4
    assert all(len(ownership.ownership(acts.bus.store, key).claims) == 2 for key in "1234")
