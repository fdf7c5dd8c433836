"""三员分立 as mechanism: every command at which a person acts, against every office. The matrix is printed."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exchange.cli import main as command_line
from exchange.cli.people import OFFICES, new_officer
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER, SYSTEM
from exchange.decision_documents import Officer
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

# Enough of each command that only the office is in question.
ARGUMENTS = {
    "bureau enrol": ["newcomer", "--title", "t", "--title-zh", "某局", "--new-keys", "{folder}"],
    "bureau revoke": ["00" * 32],
    "grant propose": ["made-up", "pull", "ownership", "--purpose", "p", "--basis", "b"],
    "grant approve": ["g-none"],
    "grant revoke": ["g-none"],
    "grant simulate": ["g-none"],
    "feed release": [FEED],
    "feed frame": [FEED, "none.csv", "--out", "{folder}/none.toml"],
    "layers release": ["unit-grid", "--version", "1"],
    "person appoint": ["某人", "audit", "--public-key", "none.pem"],
    "person dismiss": ["person-none"],
    "decision approve": ["d-none"],
    "decision withdraw": ["d-none"],
    "evidence ask": ["m-1", "--ground", "g"],
    "evidence open": ["d-none", "{folder}/out"],
    "erasure ask": ["m-1", "--kind", "personal", "--ground", "g"],
    "erasure carry": ["d-none"],
    "erasure again": [],
    "spill ask": ["m-1", "--ground", "g"],
    "spill purge": ["d-none"],
    "key propose": ["log", "--ground", "g"],
    "key rotate": ["d-none"],
    "epoch propose": ["--ground", "g"],
    "epoch open": ["d-none"],
    "backup": ["{folder}.tar"],
    "held release": ["m-1"],
    "held refuse": ["m-1"],
    "feed stop": [FEED, "--ground", "g"],
    "feed start": [FEED, "--ground", "g"],
    "dead replay": ["m-1", "--ground", "g"],
    "dead stop": ["p-none", "--ground", "g"],
    "dead resume": ["p-none", "--ground", "g"],
    "audit search": ["--type", "read"],
    "audit prove": ["0"],
    "audit present": ["none.json"],
    "audit export message": ["m-none", "{folder}/bundle"],
    "audit export ownership": ["1", "{folder}/bundle", "--on", "2026-01-01"],
    "audit export day": ["2026-01-01", "{folder}/bundle"],
}
HOLDERS = {"system": SYSTEM, "security": PROPOSER, "audit": AUDITOR}
NOBODY = "无职人员"


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("offices")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("M"))
        new_officer(NOBODY, Path(acts.trial.settings.source).parent / "people")
        yield acts


def run(acts: Acts, command: str, by: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The code with which the command is refused; empty where it was done, or failed for another reason."""
    words = [*command.split(), *(word.format(folder=folder) for word in ARGUMENTS[command])]
    command_line.main([*words, "--by", by, "--settings", acts.trial.settings.source, "--json"])
    said = json.loads(capsys.readouterr().out)
    return str(said.get("refused", {}).get("code", ""))


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command of the program, by its words."""
    found: dict[str, argparse.ArgumentParser] = {}

    def walk(parser: argparse.ArgumentParser) -> None:
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not groups:
            found[parser.prog.removeprefix("yongtong ")] = parser
        for group in groups:
            for each in group.choices.values():
                walk(each)

    walk(command_line.parser_of())
    return found


def test_a_person_does_what_their_office_is_and_nothing_else(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]
) -> None:
    rows = []
    for command, offices in OFFICES.items():
        row = {}
        for role, officer in HOLDERS.items():
            code = run(acts, command, officer.name, tmp_path / role, capsys)
            row[role] = code != "role.not_held"
            assert row[role] == (role in offices), (command, role, code)
        assert run(acts, command, NOBODY, tmp_path / "nobody", capsys) == "person.unknown", command
        rows.append((command, row))
    for command, row in rows:
        tell(f"  {command:20}" + "".join(f"  {role} {'yes' if may else '-':3}" for role, may in row.items()))
    tell(f"MATRIX command x office: {len(rows) * 4} cells ({len(rows)} commands, three offices and nobody in office)")


def test_every_command_at_which_a_person_acts_belongs_to_an_office() -> None:
    asks = {name for name, parser in commands().items() if any(a.dest == "by" for a in parser._actions)}
    assert asks == set(OFFICES) == set(ARGUMENTS)


def test_no_office_reads_original_bytes_grants_and_administers() -> None:
    """What the three are kept apart for: nobody who runs the bus says who may see, or looks at what was sent."""
    of = {role: {command for command, offices in OFFICES.items() if role in offices} for role in HOLDERS}
    assert not of["system"] & (of["security"] | of["audit"])
    assert not any(command.startswith(("evidence", "spill", "audit")) for command in of["security"] | of["system"])
    assert not any(command.startswith(("grant", "person", "bureau")) for command in of["audit"] | of["system"])


def test_who_is_turned_away_stands_in_the_audit(acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(acts, "grant propose", SYSTEM.name, tmp_path, capsys) == "role.not_held"
    (entry,) = acts.bus.journal.search(type="refusal", outcome="role.not_held", limit=1)
    assert entry.detail is not None
    assert entry.detail["wanted"] == "grant propose"
    assert entry.leaf.actor.startswith("person-")


def test_names_of_persons_stand_in_no_entry(acts: Acts) -> None:
    officers: tuple[Officer, ...] = (PROPOSER, APPROVER, SYSTEM, AUDITOR)
    said = repr(acts.bus.journal.search(limit=100_000))
    assert not any(officer.name in said for officer in officers)
