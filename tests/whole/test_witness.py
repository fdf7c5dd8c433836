"""docs/witness.md, run as it stands against a bus of real processes; then the operator goes back to a backup."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.app import trusted
from exchange.attestations import Attestations
from exchange.cli.trial import Trial
from exchange.database import SqliteFile
from exchange.settings import load_settings
from security.errors import Misconfigured
from security.keys import der_of_pem
from tests.registers import LAMPS
from tests.whole.real_bus import REGISTER, a_trial

PAGE = Path(__file__).parents[2] / "docs" / "witness.md"
SH = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMANDS = [line.strip() for block in SH.findall(PAGE.read_text(encoding="utf-8")) for line in block.splitlines()]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    trial = a_trial(tmp_path_factory.mktemp("witness"), LAMPS, REGISTER)
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.enrol("water", "Water bureau", "水务局")
    yield trial
    trial.stop()


def said(trial: Trial, starts: str, **changed: str) -> str:
    """The page's line that starts so, as it runs here."""
    (line,) = (command for command in COMMANDS if command.startswith(starts) and all(old in command for old in changed))
    for old, new in {"https://localhost:8443": trial.url, **changed}.items():
        line = line.replace(old, new)
    return line.replace("yongtong", f"{sys.executable} -m exchange.cli.main")


def run(trial: Trial, line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(line, shell=True, cwd=trial.folder, capture_output=True, text=True, timeout=120)


def document(trial: Trial, line: str) -> dict[str, Any]:
    done = run(trial, f"{line} --json")
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def cosigned_size(trial: Trial) -> int:
    kept = Attestations(SqliteFile(trial.state, "journal"))
    try:
        anchors = trusted.anchors_of(trial.settings)
        head = kept.newest_cosigned([one.name for one in anchors.witnesses], anchors.quorum)
        return head.size if head else 0
    finally:
        kept.close()


def test_a_bureau_becomes_a_witness_by_the_page_and_finds_a_restored_backup(trial: Trial) -> None:
    # (1) its key
    made = run(trial, said(trial, "yongtong witness", **{"--new-key": "--new-key"}))
    assert made.returncode == 0, made.stderr
    key = trial.partners / "water" / "witness.key"
    assert key.stat().st_mode & 0o777 == 0o600
    # (2) the settings, as they were printed
    snippet = made.stdout[made.stdout.index("[[witnesses.witness]]") :]
    settings = Path(trial.settings.source)
    settings.write_text(f"{settings.read_text(encoding='utf-8')}[witnesses]\nquorum = 1\n{snippet}", encoding="utf-8")
    trial.settings = load_settings(settings)
    # (3) what a partner trusts: its own file, the witness entered by hand
    anchors = trusted.anchors_of(trial.settings)
    own = json.loads((trial.partners / "water" / "anchors.json").read_bytes())
    own |= {"witnesses": [msgspec.to_builtins(one) for one in anchors.witnesses], "quorum": 1}
    (trial.folder / "anchors.json").write_text(json.dumps(own), encoding="utf-8")
    assert [der_of_pem(pem.encode()) for pem in anchors.authorities] == [
        der_of_pem((trial.folder / "keys" / "ca.pem").read_bytes())
    ]
    # (4) looking: once, and again and again until it is killed
    trial.start()
    once = said(trial, "yongtong witness", **{"--once": "--once"})
    first = document(trial, once)
    assert first["witnesses"] == [anchors.witnesses[0].name]
    every = said(trial, "yongtong witness", **{"--every 600": "--every 1"})
    with subprocess.Popen(every.split(), cwd=trial.folder, stderr=subprocess.DEVNULL) as going:
        until = time.monotonic() + 60
        while cosigned_size(trial) <= first["size"]:
            assert time.monotonic() < until
            time.sleep(0.1)
        going.kill()
    assert document(trial, once)["before"] >= first["size"]
    against = said(trial, "yongtong audit verify")
    assert document(trial, against)["ok"]
    # (5) the operator goes back to a backup, and the log goes on from there
    trial.stop()
    backup = trial.folder / "backup.sqlite"
    with closing(sqlite3.connect(trial.state / "journal.sqlite")) as ours, closing(sqlite3.connect(backup)) as copy:
        ours.backup(copy)
    trial.start()
    for _ in range(3):
        trial.partner("made-up").checkpoint()
        last = document(trial, once)
    trial.stop()
    for name in ("journal.sqlite-wal", "journal.sqlite-shm"):
        (trial.state / name).unlink(missing_ok=True)
    shutil.copy(backup, trial.state / "journal.sqlite")
    with pytest.raises(Misconfigured, match=r"audit\.log_behind"):
        trial.start()
    shutil.rmtree(trial.folder / "heads")  # he means it
    trial.start()
    (trial.partners / "made-up" / "checkpoint").unlink()
    short = run(trial, f"{once} --json")
    assert (short.returncode, json.loads(short.stdout)["refused"]["code"]) == (1, "audit.log_truncated")
    found = run(trial, f"{against} --json")
    assert (found.returncode, json.loads(found.stdout)["ok"]) == (1, False)
    while trial.partner("made-up").checkpoint().size <= last["size"]:
        pass
    forked = run(trial, f"{once} --json")
    assert (forked.returncode, json.loads(forked.stdout)["refused"]["code"]) == (1, "audit.log_forked")
    # (6) the proof, in the officer's hands
    proof = said(trial, "yongtong verify")
    assert document(trial, proof)["kind"] == "fork"
    assert "FORK PROVEN" in run(trial, proof).stdout
