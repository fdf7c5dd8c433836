"""Two real processes on one journal, at once."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from exchange.audit import verify
from exchange.database import turn
from tests.log.buses import JournalFolder, an_entry


def test_two_processes_append_at_once_and_the_whole_tree_holds(bus: JournalFolder) -> None:
    command = [sys.executable, "-m", "tests.log.buses", str(bus.folder)]
    processes = [subprocess.Popen([*command, str(first), "60"], stdout=subprocess.PIPE) for first in (0, 40, 1000)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    receipts: dict[str, set[str]] = {}
    for line in b"".join(said).splitlines():
        document = msgspec.json.decode(line, type=dict[str, str])
        if "receipt" in document:
            receipts.setdefault(document["id"], set()).add(document["receipt"])
    # 20 deliveries came to two processes; each has one receipt.
    assert len(receipts) == 160
    assert all(len(octets) == 1 for octets in receipts.values())
    verdict = verify(bus.readable(), bus.anchors)
    assert verdict.problems == []
    assert (verdict.entries, verdict.receipts, verdict.reports) == (320, 160, 160)
    assert verdict.signed == 320


def test_resuming_beside_a_process_that_works_makes_no_second_receipt(bus: JournalFolder) -> None:
    command = [sys.executable, "-m", "tests.log.buses", str(bus.folder), "0", "150"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    journal = bus.open()
    assert process.stdout is not None
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or []))
    reader.start()
    while process.poll() is None:
        journal.resume()
    reader.join()
    for line in lines:
        document = msgspec.json.decode(line, type=dict[str, str])
        kept = journal.receipt("water", document["id"]) if "receipt" in document else None
        assert kept is None or kept.decode() == document["receipt"]
    journal.close()
    process.stdout.close()
    assert verify(bus.readable(), bus.anchors).problems == []


def test_who_waits_for_the_turn_gets_it_next(tmp_path: Path) -> None:
    order = []

    def wait() -> None:
        with turn(tmp_path, "journal"):
            order.append("second")

    with turn(tmp_path, "journal"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
    with turn(tmp_path, "journal"):
        order.append("first")
    waiting.join()
    assert order == ["second", "first"]


def test_entries_of_the_other_process_are_built_upon(bus: JournalFolder) -> None:
    one, other = bus.open(), bus.open()
    places = [journal.note(an_entry()).result(10).index for _ in range(5) for journal in (one, other)]
    assert places == list(range(10))
    assert one.checkpoint() == other.checkpoint()
    one.close()
    other.close()
    assert verify(bus.readable(), bus.anchors).ok
