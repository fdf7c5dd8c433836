"""Backup, loss and restore of a whole bus over real sockets: what was lost is found, named and recovered; and no size
of the log is ever signed twice."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connectors.partner.folder import PartnerFolder
from connectors.partner.log import Log
from connectors.partner.witness import LogWitness
from exchange import audit
from exchange.app import opening, places, trusted
from exchange.cli import main as command_line
from exchange.cli.keys import follow
from exchange.cli.trial import APPROVER, AUDITOR, SYSTEM, Trial
from exchange.receipts import verify_receipt
from exchange.settings import load_settings
from security.batch import unverified
from security.errors import Misconfigured, Refusal
from security.keys import generate
from security.message import in_memory
from tests.registers import LAMPS
from tests.whole.real_bus import a_trial, csv, rows

FEED: Final = "made-up-lamps"
LOST: Final = 100


class Seen:
    """Every head that went out, by name and size."""

    def __init__(self) -> None:
        self.roots: dict[tuple[str, int], str] = {}
        self.twice: list[tuple[str, int]] = []

    def note(self, note: str) -> None:
        origin, size, root = note.split("\n")[:3]
        if self.roots.setdefault((origin, int(size)), root) != root:
            self.twice.append((origin, int(size)))

    def of_journal(self, trial: Trial) -> None:
        """What lies in the journal was signed, whether anybody asked for it or not."""
        with closing(places.journal_database(trial.settings).connect()) as connection:
            for (note,) in connection.execute("SELECT note FROM heads WHERE note IS NOT NULL"):
                self.note(note)


def run(capsys: pytest.CaptureFixture[str], trial: Trial, *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert command_line.main([*words, "--settings", trial.settings.source, "--json"]) == code, capsys.readouterr()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def made_up(folder: Path) -> Trial:
    trial = a_trial(folder, LAMPS)
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", FEED)
    return trial


def push(trial: Trial, seen: Seen, *ids: str) -> dict[str, bytes]:
    partner, receipts = trial.partner("made-up"), {}
    for id in ids:
        receipts[id] = partner.push(FEED, in_memory(csv(rows(id, 1))), "text/csv", id).octets
        seen.note(unverified(receipts[id])["checkpoint"])
    partner.report(ids[-1], wait_s=60)
    return receipts


def a_witness(trial: Trial) -> Callable[[], LogWitness]:
    """A witness of the bureau `water`, named in the settings."""
    trial.enrol("water", "Water bureau", "水务局")
    key, name = generate("EdDSA"), "water.witness.example"
    public = key.public_key
    assert isinstance(public, Ed25519PublicKey)
    settings = Path(trial.settings.source)
    said = f'[[witnesses.witness]]\nname = "{name}"\nkey = "{public.public_bytes_raw().hex()}"\n'
    settings.write_text(f"{settings.read_text()}[witnesses]\nquorum = 1\n{said}")
    trial.settings = load_settings(settings)
    folder = PartnerFolder(trial.partners / "water")
    return lambda: LogWitness(folder, Log(folder, trial.url), name, key, places.utc_now)


def wipe(trial: Trial) -> None:
    shutil.rmtree(trial.state)


def test_after_a_loss_the_gap_is_found_named_and_recovered_and_no_size_is_signed_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]
) -> None:
    trial, seen, file = made_up(tmp_path), Seen(), tmp_path / "backup.tar"
    folder, witness = PartnerFolder(trial.partners / "made-up"), a_witness(trial)
    with trial:
        before = push(trial, seen, "a-1", "a-2")
        made = run(capsys, trial, "backup", str(file), "--by", SYSTEM.name)
        lost_ids = [f"b-{number}" for number in range(LOST)]
        lost = push(trial, seen, *lost_ids)
        assert witness().look().head.size > made["size"]
    seen.of_journal(trial)
    kept = (trial.folder / "heads" / "newest.checkpoint").read_text()
    known = int(kept.split("\n")[1])
    wipe(trial)

    restored = run(capsys, trial, "restore", str(file))
    assert restored["state_root"] == made["state_root"]
    assert restored["lost"]["size"] == made["size"]
    assert (restored["lost"]["known_size"], restored["lost"]["gap"]) == (known, known - made["size"])
    assert restored["lost"]["gap"] >= LOST
    with pytest.raises(Misconfigured, match=r"audit\.log_behind"):
        trial.start()
    # Nothing is entered under the former name, by whichever door.
    refused = run(capsys, trial, "person", "dismiss", AUDITOR.name, "--by", APPROVER.name, code=1)
    assert refused["refused"]["code"] == "audit.log_behind"
    ground = ("--ground", "状态盘损坏，恢复至备份")
    decision = run(capsys, trial, "epoch", "propose", *ground, "--by", SYSTEM.name)["decision"]
    early = run(capsys, trial, "epoch", "open", decision, "--by", SYSTEM.name, code=1)
    assert early["refused"]["code"].startswith("decision.")
    run(capsys, trial, "decision", "approve", decision, "--by", APPROVER.name)
    opened = run(capsys, trial, "epoch", "open", decision, "--by", SYSTEM.name)
    assert (opened["former_log"], opened["size"]) == (trial.settings.bus.origin, made["size"])

    with trial:
        assert follow(trial.partner("made-up").changes_of_keys(), folder) == 1
        with pytest.raises(Refusal):  # as long as it trusts the former epoch alone
            witness().look()
        assert follow(trial.partner("water").changes_of_keys(), PartnerFolder(trial.partners / "water")) == 1
        signed = witness().look()
        assert (signed.head.origin, signed.before) == (f"{trial.settings.bus.origin}/2", made["size"] + 1)
        again = push(trial, seen, *lost_ids)
        assert push(trial, seen, "a-1") == {"a-1": before["a-1"]}
        anchors, partner = folder.anchors, trial.partner("made-up")
        head = partner.checkpoint()
        for receipt in again.values():
            assert verify_receipt(receipt, anchors).checkpoint.origin == f"{anchors.origin}/2"
    seen.of_journal(trial)
    assert seen.twice == []
    (tmp_path / "lost").mkdir()
    for id in lost_ids:
        (tmp_path / "lost" / f"{id}.json").write_bytes(lost[id])
    files = [str(path) for path in sorted((tmp_path / "lost").iterdir())]
    presented = run(capsys, trial, "audit", "present", *files, "--by", AUDITOR.name)
    assert len(presented["presented"]) == LOST
    assert all(one["resent"] > made["size"] for one in presented["presented"])
    verdict = audit.verify(trial.state, trusted.anchors_of(trial.settings), [head])
    assert verdict.ok, verdict.problems
    with closing(opening.open_journal(trial.settings)) as journal:
        first = journal.entry(made["size"])
        assert first is not None
        assert first.detail is not None
        named = ("size", "root", "known_size", "known_root", "gap")
        assert [first.detail[name] for name in named] == [
            *(restored["lost"][name] for name in ("size", "root", "known_size", "known_root", "gap")),
        ]
        shown = journal.search(type="receipt", outcome="presented", limit=1_000)
        assert {entry.leaf.sender for entry in shown} == {"made-up"}
    tell(f"LOSS: {restored['lost']['gap']} entries, {LOST} deliveries resent; {len(seen.roots)} heads, none twice")


def test_without_a_loss_the_log_goes_on_under_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial, seen, file = made_up(tmp_path), Seen(), tmp_path / "backup.tar"
    with trial:
        before = push(trial, seen, "a-1", "a-2")
    # Once it stands still: a read of the last second is an entry after the backup, and would be lost.
    made = run(capsys, trial, "backup", str(file), "--by", SYSTEM.name)
    seen.of_journal(trial)
    wipe(trial)
    restored = run(capsys, trial, "restore", str(file))
    assert (restored["state_root"], restored["lost"]) == (made["state_root"], None)
    with trial:
        after = push(trial, seen, "a-1", "c-1")
        assert after["a-1"] == before["a-1"]
        assert trial.partner("made-up").checkpoint().origin == trial.settings.bus.origin
    seen.of_journal(trial)
    assert seen.twice == []
    assert audit.verify(trial.state, trusted.anchors_of(trial.settings)).ok
