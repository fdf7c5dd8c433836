"""Two machines at one journal, the wire to one of them cut and healed: two network namespaces and a pair of ends."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from exchange.audit import verify
from tests.conftest import ROOT
from tests.log.buses import JournalFolder, an_entry
from tests.postgres import PostgresServer

HERE, THERE = "10.213.47.1", "10.213.47.2"
HANDED_OVER_S = 5.0
DELIVERIES = 150


@contextmanager
def a_wire(name: str) -> Iterator[None]:
    """A namespace of that name, joined to this one; gone afterwards."""
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("addr", "add", f"{HERE}/24", "dev", f"{name}a")
        _ip("-n", name, "addr", "add", f"{THERE}/24", "dev", f"{name}b")
        for space, end in (((), f"{name}a"), (("-n", name), f"{name}b")):
            _ip(*space, "link", "set", end, "up")
        yield
    finally:
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def wire() -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("root:network namespaces")
    name = f"yt{os.getpid() % 100_000}"
    try:
        with a_wire(name):
            yield name
    except subprocess.CalledProcessError as problem:
        pytest.skip(f"root:network namespaces ({problem.stderr.decode().strip()})")


def test_a_machine_whose_wire_is_cut_holds_up_nobody_and_catches_up(wire: str, tmp_path: Path) -> None:
    server = PostgresServer(HERE)
    try:
        url = server.database()
        (tmp_path / "database.url").write_text(url)
        bus = JournalFolder(tmp_path)
        journal = bus.open()
        away = tmp_path / "away"
        away.mkdir()
        for file in ("answer.key", "answer.pem", "log.key"):
            shutil.copy(tmp_path / file, away / file)
        (away / "database.url").write_text(url.replace("127.0.0.1", HERE))
        command = [
            "ip",
            "netns",
            "exec",
            wire,
            sys.executable,
            "-m",
            "tests.log.buses",
            str(away),
            "0",
            f"{DELIVERIES}",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        _ip("link", "set", f"{wire}a", "down")
        began = time.monotonic()
        for _ in range(20):
            journal.note(an_entry()).result(10)
        assert time.monotonic() - began < HANDED_OVER_S
        time.sleep(2.0)
        _ip("link", "set", f"{wire}a", "up")
        _ip("addr", "replace", f"{HERE}/24", "dev", f"{wire}a")
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        for line in said.splitlines():
            document = msgspec.json.decode(line, type=dict[str, str])
            kept = journal.receipt("water", document["id"]) if "receipt" in document else None
            assert kept is None or kept.decode() == document["receipt"]
        assert all(journal.inbox("water", f"m-{number}") for number in range(DELIVERIES))
        journal.close()
        verdict = verify(bus.readable(), bus.anchors)
        assert (verdict.problems, verdict.receipts, verdict.reports) == ([], DELIVERIES, DELIVERIES)
    finally:
        server.stop()
