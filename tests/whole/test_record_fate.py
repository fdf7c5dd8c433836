"""From push to proof with the commands that a bureau and a third party type: one record of 10,000, checked offline."""

import json
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from exchange.entry import LoggedEntry
from security.keys import der_of_pem
from security.message import in_memory
from tests.whole.real_bus import FEED, RealBus, csv, rows

RECORDS: Final = 10_000
WAIT_S: Final = 120.0


def told(*arguments: str, cwd: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a `yongtong` command."""
    command = [sys.executable, "-m", "exchange.cli.main", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, cwd=cwd)
    return done.returncode, dict(json.loads(done.stdout))


def test_a_bureau_proves_one_record_of_ten_thousand_and_anybody_checks_it(bus: RealBus, tmp_path: Path) -> None:
    id = "fate-1"
    right = rows(id)
    others = [{**right[0], "编号": f"{id}-{n}", "类别": "none"} for n in range(3, RECORDS - 1)]
    bus.partner().push(FEED, in_memory(csv([*right, *others, right[1]])), "text/csv", id)
    assert bus.partner().report(id, wait_s=WAIT_S).status == "processed"
    mine = ["--as", "made-up", "--url", bus.url, "--partners", str(bus.trial.partners)]
    proof, anchors = tmp_path / "proof.json", tmp_path / "anchors.json"
    asked = ["report", id, *mine, "--out", str(proof)]
    assert told(*asked, "--record", f"{id}-5000")[0] == 0
    anchors.write_bytes((bus.folder().path / "anchors.json").read_bytes())
    code, said = told("verify", str(proof), "--anchors", str(anchors), cwd=tmp_path)
    assert (code, said["kind"]) == (0, "record")
    assert [said["record"][name] for name in ("source_key", "outcome", "index", "records")] == [
        f"{id}-5000",
        "rejected",
        5000,
        RECORDS,
    ]
    proof.write_bytes(proof.read_bytes().replace(b'"rejected"', b'"new"'))
    code, said = told("verify", str(proof), "--anchors", str(anchors), cwd=tmp_path)
    assert (code, said["refused"]["code"]) == (1, "audit.record_invalid")
    # A key that stands twice is refused with its places, and one of them is then named.
    code, said = told(*asked, "--record", f"{id}-1")
    assert (code, said["refused"]["code"]) == (1, "report.record_several")
    assert "1 (" in said["refused"]["detail"]
    assert f"{RECORDS - 1} (" in said["refused"]["detail"]
    code, said = told(*asked, "--record", f"{id}-1", "--index", str(RECORDS - 1))
    assert (code, said["index"]) == (0, RECORDS - 1)
    code, said = told(*asked, "--record", "nobody's")
    assert (code, said["refused"]["code"]) == (1, "report.record_unknown")


def test_outcomes_are_given_to_whom_they_belong_and_the_reading_is_entered(bus: RealBus) -> None:
    id = "fate-2"
    bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    bus.partner().report(id, wait_s=30)
    address = f"{bus.url}/api/v1/deliveries/{id}/outcomes"
    bus.trial.enrol("curious", "A curious bureau", "某好奇单位")
    with bus.session(bus.folder("curious")) as session:
        answer = session.get(address, timeout=20)
    assert (answer.status_code, answer.json()["refusal"]["code"]) == (404, "delivery.unknown")
    with bus.session(None) as session:
        answer = session.get(address, timeout=20)
    assert answer.json()["refusal"]["code"] == "auth.refused"
    assert bus.partner().outcomes(id)[:6] == b"ARROW1"
    path, until = f"/deliveries/{id}/outcomes", time.monotonic() + 10
    while len(reads := reads_of(bus, path)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    asked = [Path(bus.folder(bureau).file("connection.pem")) for bureau in ("made-up", "curious")]  # newest first
    assert [read.leaf.carrier for read in reads] == [sha256(der_of_pem(p.read_bytes())).hexdigest() for p in asked]


def reads_of(bus: RealBus, path: str) -> list[LoggedEntry]:
    """Entries of reads of an address, whoever asked."""
    found = bus.journal.search(type="read", outcome="answered", limit=1000)
    return [entry for entry in found if entry.detail and entry.detail.get("path") == path]
