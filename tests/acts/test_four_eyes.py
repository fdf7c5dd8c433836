"""Original bytes: opened or erased by an audit officer and a security officer together, once, with an entry."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exchange import audit
from exchange.app import trusted
from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER, SYSTEM
from exchange.decision_documents import Officer
from exchange.processing import process
from exchange.reading import EvidenceBroken, reopened
from exchange.receipts import verify_receipt
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers

SEALED = "sealed-covers"
CONTENT = covers("SECRET-COVER")


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    sensitive = REGISTER.replace(FEED, SEALED).replace("[defaults]", 'sensitive = ["note"]\n\n[defaults]')
    with both_acts(tmp_path, **{SEALED: sensitive}) as acts:
        for feed in (FEED, SEALED):
            acts.trial.grant("made-up", "push", feed)
        yield acts


class Desk:
    """The command line, as a person in office uses it."""

    def __init__(self, acts: Acts, capsys: pytest.CaptureFixture[str]) -> None:
        self._acts, self._capsys = acts, capsys

    def run(self, *words: str, by: Officer) -> tuple[int, dict[str, Any]]:
        here = ["--by", by.name, "--settings", self._acts.trial.settings.source, "--json"]
        code = command_line.main([*words, *here])
        return code, json.loads(self._capsys.readouterr().out)

    def decided(self, group: str, message_id: str) -> str:
        """A decision over a delivery, asked for and approved."""
        code, asked = self.run(group, "ask", message_id, "--ground", "纠纷取证", by=AUDITOR)
        assert code == 0
        assert self.run("decision", "approve", asked["decision"], by=APPROVER)[0] == 0
        return str(asked["decision"])

    def refused(self, *words: str, by: Officer) -> str:
        code, said = self.run(*words, by=by)
        assert code == 1
        return str(said["refused"]["code"])


@pytest.fixture
def desk(acts: Acts, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(acts, capsys)


def lies_somewhere(folder: Path, octets: bytes) -> bool:
    return any(octets in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("feed", [FEED, SEALED])
def test_what_two_persons_open_is_what_was_sent_and_is_opened_once(acts: Acts, desk: Desk, feed: str) -> None:
    acts.push("m-1", CONTENT, feed)
    file = acts.trial.folder / "opened.csv"
    decision = desk.decided("evidence", "m-1")
    assert desk.refused("evidence", "open", decision, str(file), by=SYSTEM) == "role.not_held"
    assert desk.run("evidence", "open", decision, str(file), by=AUDITOR)[0] == 0
    assert file.read_bytes() == CONTENT
    assert file.stat().st_mode & 0o077 == 0
    assert desk.refused("evidence", "open", decision, str(file), by=AUDITOR) == "decision.not_in_force"
    with registry(acts.trial.settings) as opened:
        (entry,) = opened.journal.search(type="decision", outcome="carried_out")
        assert opened.troubles() == []
    assert entry.leaf.actor.startswith("person-")


@pytest.mark.parametrize("group, words", [("evidence", ["open"]), ("spill", ["purge"])])
def test_one_person_alone_neither_opens_nor_erases(acts: Acts, desk: Desk, group: str, words: list[str]) -> None:
    acts.push("m-1", CONTENT)
    file = [str(acts.trial.folder / "opened.csv")] if group == "evidence" else []
    for by in (PROPOSER, SYSTEM):
        assert desk.refused(group, "ask", "m-1", "--ground", "g", by=by) == "role.not_held"
    _, asked = desk.run(group, "ask", "m-1", "--ground", "g", by=AUDITOR)
    assert desk.refused(group, *words, asked["decision"], *file, by=AUDITOR) == "decision.not_in_force"
    assert desk.refused("decision", "approve", asked["decision"], by=AUDITOR) == "role.not_held"
    assert desk.refused("decision", "approve", asked["decision"], by=SYSTEM) == "role.not_held"
    assert not (acts.trial.folder / "opened.csv").exists()
    (row,) = [acts.bus.journal.inbox("made-up", "m-1")]
    assert row is not None
    assert reopened(row, acts.bus).content.read() == CONTENT


@pytest.mark.parametrize("size", ["in a segment", "in a file of its own"])
@pytest.mark.parametrize("feed", [FEED, SEALED])
def test_what_two_persons_erase_is_gone_and_its_proofs_stay(acts: Acts, desk: Desk, feed: str, size: str) -> None:
    content = CONTENT if size == "in a segment" else covers("SECRET-COVER", 2_000)
    accepted = acts.push("m-1", content, feed)
    other = acts.push("m-2", covers("OTHER"), feed)
    process(feed, acts.bus)
    before = acts.bus.journal.report("made-up", "m-1")
    decision = desk.decided("spill", "m-1")
    assert desk.run("spill", "purge", decision, by=AUDITOR)[0] == 0
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    with pytest.raises(EvidenceBroken):
        reopened(row, acts.bus)
    assert row.receipt == accepted.inbox.receipt
    assert acts.bus.journal.report("made-up", "m-1") is None, "its findings quote what was sent"
    assert before is not None
    assert verify_receipt(before, trusted.anchors_of(acts.trial.settings)).kind == "report", (
        "what the bureau kept holds"
    )
    assert reopened(other.inbox, acts.bus).content.read() == covers("OTHER"), "its neighbour in the segment is whole"
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []
    assert desk.refused("spill", "purge", decision, by=AUDITOR) == "decision.not_in_force"


def test_a_delivery_erased_before_act_two_is_refused_and_not_waited_for(acts: Acts, desk: Desk) -> None:
    acts.push("m-1", CONTENT)
    assert desk.run("spill", "purge", desk.decided("spill", "m-1"), by=AUDITOR)[0] == 0
    process(FEED, acts.bus)
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    assert row.status == "refused"


def test_the_octets_of_an_erased_delivery_lie_in_no_file(acts: Acts, desk: Desk) -> None:
    received = acts.push("m-1", CONTENT)
    raw = acts.bus.evidence.read(received.inbox.evidence).read()
    assert lies_somewhere(acts.bus.folder, raw[-200:])
    desk.run("spill", "purge", desk.decided("spill", "m-1"), by=AUDITOR)
    assert not lies_somewhere(acts.bus.folder, raw[-200:])


def test_a_location_that_somebody_exchanged_has_nothing_of_anothers_erased(acts: Acts, desk: Desk) -> None:
    """Where bytes lie is said in a table; which bytes they are, the entry of the delivery says."""
    kept, meant = (acts.push(f"m-{n}", covers(f"COVER{n}")) for n in range(2))
    decision = desk.decided("spill", "m-1")
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection:
        query = "UPDATE inbox SET evidence = ? WHERE id = ?"
        connection.execute(query, (kept.inbox.evidence, meant.inbox.id))
        connection.commit()
    code, said = desk.run("spill", "purge", decision, by=AUDITOR)
    assert code == 1
    assert "audit_broken" in said
    assert reopened(kept.inbox, acts.bus).content.read() == covers("COVER0")


def test_an_entry_is_proven_to_anybody_and_its_detail_shown_to_an_audit_officer(
    acts: Acts, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(acts.push("m-1", CONTENT).inbox.entry_index)
    here = ["--settings", acts.trial.settings.source, "--json"]
    assert command_line.main(["audit", "prove", index, *here]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["salt"], shown["detail"]) == (None, None)
    assert shown["proof"]
    _, whole = desk.run("audit", "prove", index, by=AUDITOR)
    assert "m-1" in whole["detail"]
    assert acts.bus.journal.search(type="read", outcome="searched")
