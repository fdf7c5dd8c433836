"""A new epoch over real sockets: the bus stopped, the epoch opened, served again, and a bureau that follows it."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from connectors.partner.folder import PartnerFolder
from exchange import audit
from exchange.app import opening, trusted
from exchange.cli import main as command_line
from exchange.cli.keys import follow
from exchange.cli.trial import APPROVER, SYSTEM
from exchange.receipts import verify_receipt
from security.errors import Refusal
from security.message import in_memory
from tests.registers import LAMPS
from tests.whole.real_bus import a_trial, csv, rows

FEED = "made-up-lamps"


def test_a_bureau_that_followed_gets_its_old_receipt_again_and_pushes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]
) -> None:
    trial = a_trial(tmp_path, LAMPS)
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", FEED)
    settings, folder = trial.settings, PartnerFolder(trial.partners / "made-up")

    def run(*words: str) -> dict[str, str]:
        assert command_line.main([*words, "--by", SYSTEM.name, "--settings", settings.source, "--json"]) == 0, words
        said: dict[str, str] = json.loads(capsys.readouterr().out)
        return said

    content = [in_memory(csv(rows(key))) for key in ("A", "B")]
    with trial:
        partner = trial.partner("made-up")
        old = partner.push(FEED, content[0], "text/csv", "m-1")
        report = partner.report("m-1", wait_s=60).received
        decision = run("epoch", "propose", "--ground", "日志私钥失窃")["decision"]
        words = ["decision", "approve", decision, "--by", APPROVER.name, "--settings", settings.source, "--json"]
        assert command_line.main(words) == 0
        capsys.readouterr()
    run("epoch", "open", decision)
    with trial:
        with pytest.raises(Refusal):
            trial.partner("made-up").push(FEED, content[1], "text/csv", "m-2")
        assert follow(trial.partner("made-up").changes_of_keys(), folder) == 1
        anchors, partner = folder.anchors, trial.partner("made-up")
        again = partner.push(FEED, content[0], "text/csv", "m-1")
        assert report is not None
        assert partner.receipt("m-1").octets == again.octets == old.octets
        found = partner.report("m-1").received
        assert found is not None
        assert found.octets == report.octets
        new = partner.push(FEED, content[1], "text/csv", "m-2")
        later = partner.report("m-2", wait_s=60).received
        assert later is not None
        for received in (new, later):
            assert verify_receipt(received.octets, anchors).checkpoint.origin == f"{anchors.origin}/2"
        head = partner.checkpoint()
        assert head.origin == f"{anchors.origin}/2"
    verdict = audit.verify(trial.state, trusted.anchors_of(settings), [head])
    assert verdict.ok, verdict.problems
    with closing(opening.open_journal(settings)) as journal:
        assert len([one for one in journal.every("delivery") if one.leaf.outcome == "accepted"]) == 2
    tell(f"EPOCH over sockets: {anchors.former_epochs[0].size} entries before it, {verdict.entries} in all")
