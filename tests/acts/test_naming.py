"""A city's node with one delegated division: whose word an identifier is, and on what a district's record rests.

The district of these tests is made of the bus itself: its log, its anchors.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from exchange.cascade import COLUMNS
from exchange.cli.trial import ORIGIN
from exchange.ownership import OwnershipAnswer, components, ownership
from exchange.processing import process
from exchange.provenance import Provenance, Source, text_of
from exchange.rights import EVERYTHING
from exchange.store.asking import Chosen
from exchange.store.territory import WHOLE
from security.batch import unverified
from security.errors import Misconfigured
from tests.acts.bench_of_one import FEED, Acts, both_acts

SAMPLE = Path(__file__).parents[2] / "samples/cascade/feeds/haishu-components.toml"
UP = "haishu-components"
WEST, EAST = 121.548, 121.552  # of the line between 330203, which is delegated, and 330205
ALSO = {
    "territory": {"delegated": [{"divisions": ["330203"], "bureau": "haishu-centre", "anchors": "state/anchors.json"}]}
}
NAMED = {"identifier.taken", "identifier.changed", "identifier.not_yours", "identifier.class_unknown"}
SOURCE = Source("water", "water-register", "w1", 0, 0, "00" * 32)


@pytest.fixture
def city(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path, {"also": ALSO}, **{UP: SAMPLE.read_text(encoding="utf-8")}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.enrol("haishu-centre", "Haishu centre", "海曙区中心", "district centre")
        acts.trial.grant("haishu-centre", "push", UP)
        acts.trial.grant("made-up", "carry", "haishu-centre")  # these tests have one connection
        yield acts


def a_record(key: str, identifier: str = "", east: float = WEST, place: int = 0, **said: str) -> dict[str, str]:
    """A component as its district says it; places lie eleven metres apart."""
    provenance = text_of(Provenance(ORIGIN, 1, (SOURCE,)))
    where = {"经度": str(east), "纬度": f"{29.868 + place * 1e-4:.6f}"}
    named = {"内部编号": key, "部件标识码": identifier, "小类代码": "0101", "状态": "完好", "来源": provenance}
    return {**dict.fromkeys(COLUMNS, ""), **named, **where, **said}


def head(acts: Acts) -> None:
    """The district hands in the newest head of its log."""
    district, journal = acts.bus.districts["haishu-centre"], acts.bus.journal
    known, text = district.followed().size, journal.checkpoint()
    size = journal.head(text).size
    nodes = journal.consistency(known, size) if known else ()
    body = {"checkpoint": text, "known": known, "nodes": [node.hex() for node in nodes]}
    assert district.take(json.dumps(body).encode(), journal) == size


def up(acts: Acts, name: str, *records: dict[str, str], with_head: bool = True) -> dict[str, list[Any]]:
    """The district delivers; gives the report's findings by code."""
    if with_head:
        head(acts)
    arrived(acts, name, *records)
    return worked(acts, UP, "haishu-centre", name)


def arrived(acts: Acts, name: str, *records: dict[str, str]) -> None:
    """Act one of a district's delivery."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(records)
    key = PartnerFolder(acts.trial.partners / "haishu-centre").signing
    acts.receive(acts.delivery(name, text.getvalue().encode(), UP, key, Sender="haishu-centre"))


def other(acts: Acts, name: str, *rows: str) -> None:
    """Another bureau delivers covers: `key,class,east,north`."""
    acts.push(name, "\n".join(["编号,类别,经度,纬度", *rows, ""]).encode())
    assert not worked(acts, FEED, "made-up", name).keys() - {"authority.missing", "position.no_grid"}


def worked(acts: Acts, feed: str, sender: str, name: str) -> dict[str, list[Any]]:
    process(feed, acts.bus)
    return found_in(acts, feed, sender, name)


def found_in(acts: Acts, feed: str, sender: str, name: str) -> dict[str, list[Any]]:
    """Findings of a report: the first records of each, by code."""
    octets = acts.bus.journal.report(sender, name)
    assert octets is not None
    report: Any = unverified(octets)["report"]
    return {one["code"]: one["first_records"] for one in report["findings"]}


def known(acts: Acts) -> list[OwnershipAnswer]:
    """Every component, in order of internal number."""
    found = components(acts.bus.store, 0, 1000, Chosen(EVERYTHING))
    return [ownership(acts.bus.store, str(one.key)) for one in found]


def identifiers(acts: Acts) -> list[str | None]:
    return [one.component.identifier for one in known(acts)]


def test_a_districts_identifier_is_taken_as_it_stands_and_its_serials_are_nobody_elses(city: Acts) -> None:
    said = "3302030101000777"
    assert not up(city, "up-1", a_record("7", said)).keys() & {"identifier.not_yours", "provenance.not_under_head"}
    other(city, "c-1", f"E1,0101,{EAST},29.868")
    assert identifiers(city) == [said, "3302050101000001"]
    answer = known(city)[0]
    (claim,) = answer.claims
    assert json.loads(claim.attributes["provenance"])["claims"][0]["bureau"] == "water"


def test_what_is_of_anothers_territory_is_named_and_rejected_and_the_others_go_on(city: Acts) -> None:
    found = up(
        city,
        "up-1",
        a_record("1", "3302050101000001"),  # another's code
        a_record("2", "3302030101000002", EAST),  # in another's place
        a_record("3", "3302030101000003", place=2),
    )
    assert found["identifier.not_yours"] == [0, 1]
    assert identifiers(city) == ["3302030101000003"]


def test_an_identifier_has_one_component_and_a_component_one_identifier(city: Acts) -> None:
    one = "3302030101000001"
    found = up(city, "up-1", a_record("1", one), a_record("2", one, place=2))
    assert found["identifier.taken"] == [1]
    found = up(city, "up-2", a_record("3", one, place=4), a_record("1", "3302030101000009"))
    assert (found["identifier.taken"], found["identifier.changed"]) == ([0], [1])
    assert identifiers(city) == [one]


def test_records_that_do_not_hold_are_rejected_by_name_and_the_others_go_on(city: Acts) -> None:
    beyond = msgspec.structs.replace(SOURCE, entry=9999)
    spoilt: list[dict[str, str]] = [
        {"部件标识码": "330203010100001"},
        {"部件标识码": "3302039999000001"},
        {"来源": ""},
        {"来源": "{"},
        {"来源": text_of(Provenance("other.example", 1, (SOURCE,)))},
        {"来源": text_of(Provenance(ORIGIN, 1, (beyond,)))},
    ]
    records = [
        {**a_record(str(number), f"330203010100000{number}", place=2 * number), **said}
        for number, said in enumerate([*spoilt, {}])
    ]
    found = up(city, "up-1", *records)
    assert (found["component_code.malformed"], found["identifier.class_unknown"]) == ([0], [1])
    assert found["provenance.not_under_head"] == [2, 3, 4, 5]
    assert identifiers(city) == ["3302030101000006"]


def test_without_a_head_of_the_districts_log_nothing_that_rests_on_it_counts(city: Acts) -> None:
    found = up(city, "up-1", a_record("1", "3302030101000001"), with_head=False)
    assert found["provenance.not_under_head"] == [0]
    assert identifiers(city) == []


def test_what_another_bureau_claims_waits_for_the_district_and_is_named_by_it(city: Acts) -> None:
    other(city, "c-1", f"W1,0101,{WEST},29.868", f"W2,0101,{WEST},29.872")
    assert identifiers(city) == [None, None]
    up(city, "up-1", a_record("1", "3302030101000005"))
    assert identifiers(city) == ["3302030101000005", None]
    assert [claim.bureau for claim in known(city)[0].claims] == ["made-up", "haishu-centre"]


def test_what_the_district_has_pending_is_pending_here_until_it_has_a_name(city: Acts) -> None:
    up(city, "up-1", a_record("1", 小类代码="0102|0103"))
    assert identifiers(city) == [None]
    up(city, "up-2", a_record("1", "3302030103000001", 小类代码="0103"))
    assert [(one.component.key, one.component.identifier) for one in known(city)] == [(1, "3302030103000001")]


def test_a_component_with_another_name_is_not_joined_however_close_it_lies(city: Acts) -> None:
    open_city = city.with_(territory=WHOLE)
    other(open_city, "c-1", f"W1,0101,{WEST},29.868")  # before the division was delegated
    assert identifiers(city) == ["3302030101000001"]
    found = up(city, "up-1", a_record("1", "3302030101000044"))
    assert "identifier.taken" not in found
    assert identifiers(city) == ["3302030101000001", "3302030101000044"]


def test_a_district_issues_in_its_own_territory_and_nowhere_else(tmp_path: Path) -> None:
    with both_acts(tmp_path, {"also": {"territory": {"divisions": ["330203"]}}}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        other(acts, "c-1", f"A1,0101,{WEST},29.868", f"B1,0101,{EAST},29.868")
        assert identifiers(acts) == ["3302030101000001", None]


def test_a_backlog_that_says_a_component_again_and_again_is_one_component_with_one_name(city: Acts) -> None:
    """What came while act two was behind goes through it together."""
    name = "3302030101000001"
    head(city)
    for number, state in enumerate(["完好", "破损", "完好"]):
        arrived(city, f"up-{number}", a_record("1", name, 状态=state))
    arrived(city, "up-3", a_record("1", "3302030101000002"), a_record("2", name, place=2))
    process(UP, city.bus)
    assert [found_in(city, UP, "haishu-centre", f"up-{number}").keys() & NAMED for number in range(3)] == [set()] * 3
    found = found_in(city, UP, "haishu-centre", "up-3")
    assert (found["identifier.changed"], found["identifier.taken"]) == ([0], [1])
    assert identifiers(city) == [name]


@pytest.mark.parametrize(
    "territory",
    [
        {"divisions": ["330203"], **ALSO["territory"]},
        {"delegated": ALSO["territory"]["delegated"] * 2},
        {"divisions": ["330299"]},
        {"delegated": [{"divisions": ["330203"], "bureau": "haishu-centre", "anchors": "nowhere.json"}]},
    ],
)
def test_a_division_has_one_writer_or_the_bus_does_not_start(tmp_path: Path, territory: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured), both_acts(tmp_path, {"also": {"territory": territory}}):
        pass
