"""A city's node and two district nodes as processes, over real sockets: one district is cut off, and comes back."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bench.cascade import FEED, Node, Run, Simulation, register, run
from exchange.app import opening
from exchange.cli import main as command_line
from exchange.ownership import OwnershipAnswer, nearest
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from security.message import in_memory

RECORDS = 20


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    with Simulation(tmp_path_factory.mktemp("cascade"), 2) as started:
        yield started


@pytest.fixture(scope="module")
def came_to(simulation: Simulation) -> Run:
    return run(simulation, RECORDS, time.monotonic(), kill=False)


def at_city(simulation: Simulation, node: Node, number: int) -> list[OwnershipAnswer]:
    """What the city knows at the place of a district's record."""
    _, _, east, north, *_ = node.row(number)
    with closing(Store(Embedded(simulation.city.state))) as store:
        return [one.answer for one in nearest(store, east, north, 3.0)]


def test_a_cut_district_works_on_and_catches_up_and_nothing_is_doubled_or_renumbered(
    simulation: Simulation, came_to: Run, tell: Callable[[str], None]
) -> None:
    assert came_to.behind == RECORDS  # its own node knew them while the city did not
    assert (came_to.doubled, came_to.renumbered) == (0, 0)
    assert [one.components for one in came_to.districts] == [2 * RECORDS] * 2
    assert came_to.city_components == 4 * RECORDS
    for node in simulation.nodes:
        at_home = [one[0] for one in simulation.known_of(node)]
        assert at_home == [one[0] for one in simulation.known_at_city(node)]  # bit for bit
        assert all(identifier.startswith(node.division) for identifier in at_home)
    caught_up = f"the one that was cut off caught up in {came_to.caught_up_s} s"
    tell(f"cascade: 2 districts, {came_to.city_components} components, none doubled, none renumbered; {caught_up}")


def test_every_component_at_the_city_leads_to_the_receipt_that_its_bureau_holds(came_to: Run) -> None:
    # The heads that the city took, the entries under them, the receipts' digests and proofs: `Simulation.proven`.
    assert [one.receipts for one in came_to.districts] == [3, 3]


def test_reference_data_comes_down_signed_and_stands_in_the_districts_own_log(
    simulation: Simulation, came_to: Run
) -> None:
    assert came_to.reference == 1
    for node in simulation.nodes:
        with closing(opening.open_journal(node.trial.settings)) as journal:
            (entry,) = journal.search(type="reference")
        assert entry.detail is not None
        assert (entry.detail["origin"], entry.detail["version"]) == ("city.yongtong.example", 1)


def test_an_operator_asks_how_far_the_city_knows_the_node_while_it_serves(
    simulation: Simulation, came_to: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--settings", simulation.nodes[0].trial.settings.source, "--json"]
    assert command_line.main(["cascade", "status", *here]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["city_has"], said["reference"]) == (said["last"], came_to.reference)
    assert command_line.main(["cascade", "down", *here]) == 0
    assert json.loads(capsys.readouterr().out) == {"adopted": None}
    assert command_line.main(["cascade", "up", *here]) == 0
    assert json.loads(capsys.readouterr().out) == {"records": 0, "sent": []}


def test_what_another_bureau_claims_at_the_city_waits_for_the_district_to_name_it(
    simulation: Simulation, came_to: Run
) -> None:
    node, known, not_yet = simulation.nodes[0], 5, 2 * RECORDS + 1
    partner = simulation.city.partner("made-up")
    rows = [(f"W{number}", *node.row(number)[1:]) for number in (known, not_yet)]
    partner.push(FEED, in_memory(register(rows, "样城水务局")), "text/csv", "water-1")
    assert partner.report("water-1", wait_s=120).status == "processed"
    (joined,) = at_city(simulation, node, known)
    assert joined.component.identifier in {one[0] for one in simulation.known_of(node)}
    assert {claim.bureau for claim in joined.claims} == {"made-up", node.centre}
    (pending,) = at_city(simulation, node, not_yet)
    assert pending.component.identifier is None

    node.push([node.row(not_yet)])
    until_s = time.monotonic() + 120
    while (named := at_city(simulation, node, not_yet)[0].component).identifier is None and time.monotonic() < until_s:
        time.sleep(0.2)
    assert named.key == pending.component.key
    assert named.identifier == max(one[0] for one in simulation.known_of(node) if one[1] == named.class_code)
