"""SIGKILL before and after each durable step: nothing visible, or one delivery with one receipt for ever."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from exchange.audit import verify
from exchange.receipts import verify_receipt
from tests.log.buses import JournalFolder, finished
from tests.s3 import S3Server

STEPS = ["evidence.sync", "journal.group", "journal.sign", "journal.keep"]
COUNT = 3  # deliveries that the process tries


def killed(bus: JournalFolder, fault: str) -> list[dict[str, str]]:
    """What a process said before the fault killed it."""
    command = [sys.executable, "-m", "tests.log.buses", str(bus.folder), "0", str(COUNT)]
    done = subprocess.run(
        command, env={**os.environ, "YONGTONG_FAULT": fault}, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    return [msgspec.json.decode(line) for line in done.stdout.splitlines()]


# Steps of delivery n: the sync and a group to accept it, then a group to finish it.
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["resume", "retry"])
def test_a_kill_leaves_nothing_or_one_delivery_with_one_receipt(
    bus: JournalFolder, step: str, side: str, count: int, how: str
) -> None:
    nothing_or_one_receipt(bus, step, side, count, how)


# By SM2 the same document signed twice is two documents: so it must never be signed again once it could have been sent.
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", ["journal.sign", "journal.keep"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_kill_leaves_one_receipt_where_signing_again_gives_another(
    tmp_path: Path, step: str, side: str, count: int
) -> None:
    bus = JournalFolder(tmp_path, ("SM2", "SM2"))
    assert bus.receipt_key.sign(b"x") != bus.receipt_key.sign(b"x")
    nothing_or_one_receipt(bus, step, side, count, "resume")


# Where evidence lies in a bucket, of a sync that was killed before or after it there is no more to be seen.
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_kill_leaves_nothing_or_one_delivery_where_evidence_lies_in_a_bucket(
    bus_on: Callable[[str], JournalFolder], s3: S3Server, side: str, count: int
) -> None:
    nothing_or_one_receipt(bus_on(s3.url(secrets.token_hex(6))), "evidence.sync", side, count, "retry")


def nothing_or_one_receipt(bus: JournalFolder, step: str, side: str, count: int, how: str) -> None:
    said = killed(bus, f"{step}:{side}:{count}")
    journal = bus.open()
    if how == "resume":
        journal.resume()
    for number in range(COUNT):
        message_id = f"m-{number}"
        known = journal.inbox("water", message_id)
        receipts = {line["receipt"].encode() for line in said if line["id"] == message_id and "receipt" in line}
        reports = {line["report"].encode() for line in said if line["id"] == message_id and "report" in line}
        if known is not None and how == "resume":
            assert known.receipt is not None
        accepted = journal.accept(bus.acceptance(message_id, b"row %d" % number)).result(10)
        assert accepted.repeated is (known is not None)
        receipt = accepted.inbox.receipt
        assert receipt is not None
        # What was once answered is answered ever after.
        assert receipts <= {receipt}
        again = journal.accept(bus.acceptance(message_id, b"row %d" % number)).result(10)
        assert again.inbox.receipt == receipt
        assert verify_receipt(receipt, bus.anchors).document["message_id"] == message_id
        report = finished(journal, accepted.inbox.id)
        assert reports <= {report}
        assert finished(journal, accepted.inbox.id) == report
        assert verify_receipt(report, bus.anchors).kind == "report"
        # The evidence of what was accepted is there, whole.
        assert bus.evidence.read(accepted.inbox.evidence).read() == b"row %d" % number
    assert journal.resume() == 0
    journal.close()
    verdict = verify(bus.readable(), bus.anchors)
    assert verdict.problems == []
    assert (verdict.entries, verdict.receipts, verdict.reports) == (2 * COUNT, COUNT, COUNT)
    assert verdict.signed == verdict.entries


def test_resume_signs_heads_that_a_crash_left(bus: JournalFolder) -> None:
    killed(bus, "journal.sign:before:1")
    left = verify(bus.readable(), bus.anchors)
    assert (left.ok, left.entries, left.signed, left.receipts) == (True, 1, 0, 0)
    journal = bus.open()
    assert journal.checkpoint() == ""
    assert journal.resume() == 1
    assert journal.checkpoint() != ""
    assert journal.resume() == 0
    journal.close()
    assert verify(bus.readable(), bus.anchors).signed == 1
