"""Rights over time, by the command line: who could see a thing on a day, and whose calls a grant would change."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER
from exchange.decision_documents import Officer
from exchange.entry import CITY_TIME
from exchange.intake import admit_carrier, receive
from exchange.ownership import ownership
from exchange.processing import process
from security.errors import Refusal
from security.keys import der_of_pem
from security.message import Area
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.enrol("centre", "Centre", "监督中心")
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("M"))
        process(FEED, acts.bus)
        yield acts


class Desk:
    """The command line, and calls at the doors."""

    def __init__(self, acts: Acts, capsys: pytest.CaptureFixture[str]) -> None:
        self.acts, self._capsys = acts, capsys

    def run(self, *words: str, by: Officer) -> dict[str, Any]:
        here = ["--by", by.name, "--settings", self.acts.trial.settings.source, "--json"]
        assert command_line.main([*words, *here]) == 0
        found: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return found

    def could_see(self, on: str = "") -> list[dict[str, Any]]:
        words = ["audit", "search", "--who-could-see", "1", *(["--on", on] if on else [])]
        found: list[dict[str, Any]] = self.run(*words, by=AUDITOR)["could_see"]
        return found

    def simulated(self, grant: str) -> list[tuple[Any, ...]]:
        calls = self.run("grant", "simulate", grant, "--days", "7", by=PROPOSER)["calls"]
        names = ("bureau", "action", "target", "calls", "before", "after", "change")
        return [tuple(call[name] for name in names) for call in calls]

    def ask(self, bureau: str, view: str, **query: str | int) -> None:
        """An unsigned read at the REST door, allowed or refused."""
        folder = self.acts.trial.partners / bureau / "connection.pem"
        der = der_of_pem(folder.read_bytes())
        asyncio.run(admit_carrier(der, "127.0.0.1", view, query, self.acts.bus))

    def refused(self, bureau: str, view: str) -> None:
        with pytest.raises(Refusal):
            self.ask(bureau, view)

    def proposed(self, bureau: str, action: str, target: str) -> str:
        today = self.acts.bus.clock().astimezone(CITY_TIME).date()
        with registry(self.acts.trial.settings) as opened:
            return opened.propose_grant(
                bureau=bureau,
                action=action,  # type: ignore[arg-type]  # of the caller
                target=target,
                valid_from=today.isoformat(),
                valid_until=(today + timedelta(days=9)).isoformat(),
                purpose="p",
                basis="b",
                by=PROPOSER,
            )


@pytest.fixture
def desk(acts: Acts, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(acts, capsys)


def test_who_could_see_a_component_is_who_held_a_grant_that_covers_it(desk: Desk) -> None:
    trial = desk.acts.trial
    place = ownership(desk.acts.bus.store, "1").component
    assert place.division_code is not None
    wide = trial.grant("centre", "pull", "ownership")
    here = trial.grant("centre", "pull", "components", area=Area(districts=(place.division_code,)))
    trial.grant("made-up", "pull", "ownership", ["CJ/T 214-2007:0201"])
    trial.grant("made-up", "pull", "components", area=Area(districts=("999999",)))
    assert {(one["bureau"], one["grant"]) for one in desk.could_see()} == {("centre", wide), ("centre", here)}


def test_a_grant_revoked_on_a_day_let_see_on_that_day_and_not_on_the_next(desk: Desk) -> None:
    grant = desk.acts.trial.grant("centre", "pull", "ownership")
    with registry(desk.acts.trial.settings) as opened:
        opened.revoke_grant(grant, APPROVER)
    today = desk.acts.bus.clock().astimezone(CITY_TIME).date()
    assert [one["grant"] for one in desk.could_see(today.isoformat())] == [grant]
    assert desk.could_see((today + timedelta(days=1)).isoformat()) == []


def test_of_two_grants_the_one_that_governs_counts(desk: Desk) -> None:
    """A newer, narrower grant takes over: what it withholds was to be seen earlier that day, and not tomorrow."""
    trial = desk.acts.trial
    today = desk.acts.bus.clock().astimezone(CITY_TIME).date()
    wide = trial.grant("centre", "pull", "ownership")
    with registry(trial.settings) as opened:
        narrow = opened.propose_grant(
            bureau="centre", action="pull", target="ownership", classes=["CJ/T 214-2007:0201"],
            valid_from=today.isoformat(), valid_until=(today + timedelta(days=9)).isoformat(), purpose="p", basis="b",
            by=PROPOSER,
        )  # fmt: skip
        opened.approve(narrow, APPROVER)
    assert [one["grant"] for one in desk.could_see(today.isoformat())] == [wide]
    assert desk.could_see((today + timedelta(days=1)).isoformat()) == []


def test_whoever_asked_is_named_with_the_entries(desk: Desk) -> None:
    grant = desk.acts.trial.grant("centre", "pull", "ownership")
    desk.ask("centre", "ownership", component="1", purpose="案件处置")
    desk.ask("centre", "ownership", component="2")
    settle(desk, 2)
    (one,) = desk.could_see()
    assert (one["grant"], len(one["asked"])) == (grant, 1)


def test_the_search_itself_is_an_entry(desk: Desk) -> None:
    desk.could_see()
    (entry,) = desk.acts.bus.journal.search(type="read", outcome="searched")
    assert entry.detail is not None
    assert (entry.detail["view"], entry.detail["who_could_see"]) == ("audit", "1")


def test_without_an_office_a_search_shows_no_details(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--settings", desk.acts.trial.settings.source, "--json"]
    assert command_line.main(["audit", "search", *here]) == 0
    assert all(entry["detail"] is None for entry in json.loads(capsys.readouterr().out)["entries"])
    assert any(entry["detail"] for entry in desk.run("audit", "search", by=AUDITOR)["entries"])
    assert command_line.main(["audit", "search", "--who-could-see", "1", *here]) == 2


def test_simulating_an_end_names_those_whose_calls_would_be_refused(desk: Desk) -> None:
    grant = desk.acts.trial.grant("centre", "pull", "ownership")
    for _ in range(3):
        desk.ask("centre", "ownership", component="1")
    settle(desk, 3)
    assert desk.simulated(grant) == [
        ("centre", "pull", "ownership", 3, grant, "auth.no_grant", "would be refused"),
    ]
    assert len(desk.acts.bus.registry.grants("centre")) == 1, "nothing was changed"


def test_simulating_a_proposal_names_those_whose_refused_calls_would_be_allowed(desk: Desk) -> None:
    desk.refused("centre", "ownership")
    desk.refused("centre", "changes")
    proposed = desk.proposed("centre", "pull", "ownership")
    assert desk.simulated(proposed) == [
        ("centre", "pull", "ownership", 1, "auth.no_grant", proposed, "would be allowed"),
    ]


def test_simulating_a_second_grant_says_which_calls_it_would_govern(desk: Desk) -> None:
    first = desk.acts.bus.registry.grants("made-up")[0].id
    asyncio.run(receive(desk.acts.delivery("m-2", covers("N")), desk.acts.bus))
    proposed = desk.proposed("made-up", "push", FEED)
    assert desk.simulated(proposed) == [("made-up", "push", FEED, 2, first, proposed, "another grant")]


def settle(desk: Desk, reads: int) -> None:
    """Wait until the reads that were staged stand in the log."""
    ends_s = time.monotonic() + 20
    while len(desk.acts.bus.journal.search(type="read", outcome="answered")) < reads:
        assert time.monotonic() < ends_s
        time.sleep(0.05)
