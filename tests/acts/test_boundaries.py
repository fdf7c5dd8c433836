"""Which boundaries are in force: by two persons, in a bus that runs, and what is placed by them from then on."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exchange.app import levels
from exchange.boundaries import Boundaries
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, PROPOSER, SYSTEM
from exchange.decision_documents import BoundaryBody
from exchange.due import feeds_to_do
from exchange.ownership import component
from exchange.processing import process
from exchange.publication import changes_after
from exchange.reference import open_listed
from samples import quarter
from security.errors import AuditBroken, Refusal
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.acts.test_layers import DISTRICTS, FILES, GRID, Planning

MOVED = 2  # the border that takes the made-up covers to the east
LAYER = {GRID: "unit-grid", DISTRICTS: "district"}


class City(Planning):
    """A city whose covers K-0 to K-2 stand in the west, until a border is moved."""

    def __init__(self, acts: Acts) -> None:
        super().__init__(acts)
        acts.trial.grant("made-up", "push", FEED)
        acts.push("register", covers("K", 3))
        process(FEED, acts.bus)

    def deliver(self, name: str, border: int) -> None:
        for feed, said in ((DISTRICTS, quarter.districts(border)), (GRID, quarter.grids(border))):
            report = self.told(f"{feed}-{name}", said["features"], feed)
            assert "version" in report, report

    def decide(self, feed: str, version: int) -> str:
        """Two persons; gives the decision."""
        with registry(self.acts.trial.settings) as opened:
            one = self.acts.bus.boundaries.decidable(LAYER[feed], version)
            body = BoundaryBody(one.layer, one.version, one.bureau, one.digest)
            id = opened.propose_boundary(body, SYSTEM)
            opened.approve(id, APPROVER)
        return id

    def moved(self) -> None:
        """The border, delivered, decided on and in force."""
        self.deliver("moved", MOVED)
        for feed in (DISTRICTS, GRID):
            self.decide(feed, 1)
        process(FEED, self.acts.bus)

    def where(self) -> set[tuple[str | None, str | None]]:
        found = (component(self.acts.bus.store, str(number)) for number in (1, 2, 3))
        return {(one.division_code, one.grid_code) for one in found}

    def entries(self) -> list[dict[str, Any]]:
        found = self.acts.bus.journal.search(type="reference")
        return [dict(one.detail or {}) for one in found if one.leaf.outcome == "in_force"]


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    wide = {id: text.replace("gone_limit_percent = 20", "gone_limit_percent = 100") for id, text in FILES.items()}
    with both_acts(tmp_path, **wide) as acts:
        yield City(acts)


IN_THE_WEST = {(quarter.WEST, quarter.grid_code(2, 3))}
IN_THE_EAST = {(quarter.EAST, quarter.grid_code(2, 3, MOVED))}


def test_a_version_that_was_only_delivered_places_nothing(city: City) -> None:
    assert city.where() == IN_THE_WEST
    city.deliver("moved", MOVED)
    process(FEED, city.acts.bus)
    assert (city.where(), city.entries()) == (IN_THE_WEST, [])


def test_two_persons_put_it_in_force_and_the_bus_goes_on_with_it_as_it_runs(city: City) -> None:
    identifiers = [component(city.acts.bus.store, str(number)).identifier for number in (1, 2, 3)]
    last = changes_after(city.acts.bus.store, 0, 100).next
    city.deliver("moved", MOVED)
    city.decide(DISTRICTS, 1)
    city.decide(GRID, 1)
    assert feeds_to_do(city.acts.bus) == [DISTRICTS, GRID]
    process(GRID, city.acts.bus)
    assert feeds_to_do(city.acts.bus) == []
    assert city.where() == IN_THE_EAST
    assert [component(city.acts.bus.store, str(number)).identifier for number in (1, 2, 3)] == identifiers
    told = changes_after(city.acts.bus.store, last, 100).changes
    assert [(one.key, one.kind, one.component) for one in told] == [
        (number, "changed", identifier) for number, identifier in enumerate(identifiers, 1)
    ]
    city.acts.push("more", covers("L", 1))
    process(FEED, city.acts.bus)
    assert component(city.acts.bus.store, "4").division_code == quarter.EAST


def test_the_audit_says_once_what_is_in_force_and_how_much_it_moved(city: City) -> None:
    city.moved()
    process(FEED, city.acts.bus)
    assert sorted((one["layer"], one["version"], one["moved"]) for one in city.entries()) == [
        ("district", 1, 3),
        ("unit-grid", 1, 3),
    ]


def test_a_worker_that_dies_after_the_store_has_it_leaves_the_entry_to_the_next(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    city.deliver("moved", MOVED)
    city.decide(DISTRICTS, 1)

    def dies(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Boundaries, "_unnoted", dies)
        with pytest.raises(OSError, match="killed"):
            process(FEED, city.acts.bus)
    assert city.entries() == []
    process(FEED, city.acts.bus)
    assert [one["moved"] for one in city.entries()] == [3]


@pytest.mark.parametrize(("by", "code"), [(PROPOSER, "role.not_held"), (SYSTEM, "")])
def test_a_system_administrator_proposes_it_and_nobody_else(city: City, by: Any, code: str) -> None:
    city.deliver("moved", MOVED)
    body = BoundaryBody("district", 1, "made-up", "00" * 32)
    with registry(city.acts.trial.settings) as opened:
        if not code:
            opened.propose_boundary(body, by)
            return
        with pytest.raises(Refusal, match=code):
            opened.propose_boundary(body, by)


def test_a_decision_over_another_digest_puts_nothing_in_force(city: City) -> None:
    city.deliver("moved", MOVED)
    with registry(city.acts.trial.settings) as opened:
        opened.approve(opened.propose_boundary(BoundaryBody("district", 1, "made-up", "00" * 32), SYSTEM), APPROVER)
    process(FEED, city.acts.bus)
    assert city.where() == IN_THE_WEST


def test_only_districts_and_the_unit_grid_are_placed_by(city: City) -> None:
    with pytest.raises(Refusal, match=r"layer\.no_boundary"):
        city.acts.bus.boundaries.decidable("roads", 1)
    with pytest.raises(Refusal, match=r"layer\.unknown"):
        city.acts.bus.boundaries.decidable("district", 1)


def test_a_version_that_is_recalled_gives_way_to_the_one_before(city: City) -> None:
    city.moved()
    for feed in (DISTRICTS, GRID):
        city.acts.recall(city.acts.recalling(f"{feed}-moved"))
        process(feed, city.acts.bus)
    process(FEED, city.acts.bus)
    assert city.where() == IN_THE_WEST
    assert [one["version"] for one in city.entries() if one["layer"] == "district"] == [0, 1]
    with pytest.raises(Refusal, match=r"layer\.withdrawn"):
        city.acts.bus.boundaries.decidable("district", 1)


def test_an_earlier_version_is_put_in_force_again_by_another_decision(city: City) -> None:
    city.deliver("as-it-was", quarter.BORDER)
    city.deliver("moved", MOVED)
    for version, where in ((2, IN_THE_EAST), (1, IN_THE_WEST)):
        for feed in (DISTRICTS, GRID):
            city.decide(feed, version)
        process(FEED, city.acts.bus)
        assert city.where() == where


def test_what_somebody_wrote_into_the_store_is_not_placed_by(city: City) -> None:
    city.deliver("moved", MOVED)
    with closing(sqlite3.connect(city.acts.bus.folder / "store.sqlite")) as store, store:
        store.execute(
            "UPDATE layer_features SET wkb = (SELECT wkb FROM layer_features WHERE source_key = ?)", ("330205",)
        )
    city.decide(DISTRICTS, 1)
    with pytest.raises(AuditBroken):
        process(FEED, city.acts.bus)
    assert city.where() == IN_THE_WEST


def test_a_look_before_the_decision_says_how_much_would_move(city: City) -> None:
    city.deliver("moved", MOVED)
    boundaries = city.acts.bus.boundaries
    moves = boundaries.moves(boundaries.decidable("district", 1))
    assert (moves.elsewhere, moves.nowhere, city.where()) == (3, 0, IN_THE_WEST)


def test_district_nodes_are_handed_what_is_in_force(city: City) -> None:
    bus = city.acts.bus
    handed = levels.HandedDown(city.acts.trial.settings, bus.answer_key, bus.boundaries)
    first = open_listed(handed().signed, bus.anchors)
    city.moved()
    second = open_listed(handed().signed, bus.anchors)
    assert (first.version, second.version, handed().version) == (1, 2, 2)
    grids = next(octets for octets in handed().parts.values() if octets.count(b'"code"') > 2)
    codes = {one["properties"]["code"] for one in json.loads(grids)["features"]}
    assert codes == {one["properties"]["code"] for one in quarter.grids(MOVED)["features"]}
