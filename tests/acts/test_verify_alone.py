"""One receipt, or one record's proof, verified by itself: what it holds is said, and what no witness signed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.app import keys_in_force, trusted
from exchange.cli import main as command_line
from exchange.cli.output import print_table
from exchange.entry import commitment
from exchange.processing import process
from exchange.receipts import outcome_leaf_of
from security import merkle
from security.anchors import Anchors
from security.checkpoint import sign_checkpoint
from security.cosignature import Witness
from security.jws import jcs
from security.keys import generate
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


class Alone(msgspec.Struct, frozen=True):
    """A receipt, a report and a record's proof in a folder, and the bus's anchors."""

    folder: Path
    acts: Acts
    anchors: Anchors

    def verified(self, name: str, capsys: pytest.CaptureFixture[str], *more: str, **asked: Any) -> tuple[int, str]:
        """Exit code and what is printed, by the anchors with what they ask for."""
        path = self.folder / "anchors.json"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(self.anchors, **asked)))
        code = command_line.main(["verify", str(self.folder / name), "--anchors", str(path), *more])
        return code, capsys.readouterr().out


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    folder = tmp_path_factory.mktemp("alone")
    with both_acts(folder / "acts") as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        (folder / "receipt.json").write_bytes(acts.bus.journal.receipt("made-up", "m-1") or b"")
        process(FEED, acts.bus)
        (folder / "report.json").write_bytes(acts.bus.journal.report("made-up", "m-1") or b"")
        (folder / "record.json").write_bytes(by_a_thief_of_the_logs_key(acts))
        yield Alone(folder, acts, trusted.anchors_of(acts.trial.settings))


def by_a_thief_of_the_logs_key(acts: Acts) -> bytes:
    """A proof for a record that never was, in a log of one entry that never was."""
    settings, origin, salt = acts.trial.settings, acts.bus.origin, b"\1" * 32
    root = outcome_leaf_of(0, "HYD-1", "rejected", salt)
    detail = jcs({"message_id": "m-1", "outcome_root": root.hex(), "records": 1}).decode()
    blank = dict.fromkeys(("actor", "carrier", "feedDigest", "grant", "signer", "trustDigest"), "")
    said = {"feed": FEED, "outcome": "processed", "sender": "made-up", "type": "processing", "v": 1}
    committed = commitment(salt, detail.encode())
    leaf = jcs({**blank, **said, "detail": committed, "origin": origin, "time": "2026-11-28T00:00:00.000000Z"})
    head = sign_checkpoint(
        origin, 1, merkle.leaf_hash(leaf), keys_in_force.log_key(settings, keys_in_force.keyring_of(settings))
    )
    entry = {"index": 0, "leaf": leaf.decode(), "proof": [], "salt": salt.hex(), "detail": detail}
    record = {"index": 0, "source_key": "HYD-1", "outcome": "rejected", "salt": salt.hex(), "path": []}
    return jcs({"v": 1, "origin": origin, "checkpoint": head, **entry, "record": record})


DOCUMENTS = ("receipt.json", "report.json", "record.json")


def demands() -> dict[str, Any]:
    key = generate("EdDSA").public_key
    return {"witnesses": [Witness("witness.example", key.public_bytes_raw().hex())], "quorum": 1}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_by_anchors_that_ask_for_nothing_it_holds_and_is_said_to_be_unwitnessed(
    alone: Alone, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out = alone.verified(name, capsys, "--json")
    said = json.loads(out)
    assert (code, said["ok"], said["state"], said["missing"]) == (0, True, "holds", [])
    assert (said["witnesses"], said["timestamp"]) == ("unwitnessed", "none")
    code, out = alone.verified(name, capsys)
    title = " ".join(out.partition("━")[0].split())
    assert code == 0
    assert "UNWITNESSED 无见证" in title
    assert "NO TIMESTAMP 无时间戳" in title
    assert "INCOMPLETE" not in title


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_thief_of_the_logs_key_can_make_is_no_pass_where_the_anchors_ask_for_a_witness(
    alone: Alone, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out = alone.verified(name, capsys, "--json", **demands())
    said = json.loads(out)
    assert (code, said["ok"], said["state"], said["missing"]) == (1, True, "incomplete", ["witnesses"])
    code, out = alone.verified(name, capsys, **demands())
    assert code == 1
    assert "INCOMPLETE 不完整" in out
    # Witnesses of whom none has to sign are no demand.
    assert alone.verified(name, capsys, "--json", **{**demands(), "quorum": 0})[0] == 0


def test_a_timestamp_that_the_anchors_ask_for_is_missed(alone: Alone, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = alone.verified("receipt.json", capsys, "--json", timestamp_certificates=["a root"])
    said = json.loads(out)
    assert (code, said["state"], said["missing"]) == (1, "incomplete", ["timestamp"])


def test_a_name_that_steers_the_terminal_is_printed_by_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """ESC colours and clears, OSC sets the title, CR overwrites a row, U+202E turns it round; a line break is one."""
    evil = "x\x1b[31m\x1b]0;t\x07\u202e gpj\r\x9b2J"
    print_table(f"t {evil}", ["a", "b"], [(evil, "one\ntwo"), (None, "甲")])
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    for word in ("[U+001B]", "[U+0007]", "[U+202E]", "[U+000D]", "[U+009B]", "甲"):
        assert word in out.replace("\n", ""), word
    assert len([line for line in out.splitlines() if "one" in line or "two" in line]) == 2
