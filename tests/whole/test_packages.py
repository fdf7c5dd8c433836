"""A planning bureau before a one-way gateway: its sheet goes in by a package, what came of it is carried home."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.app import places
from exchange.cli.demo_quarter import FEEDS
from exchange.cli.trial import City, Trial
from exchange.doctor.examine import examine
from samples.generate import Truth, generate

FEED = "planning-map-500"
WAIT_S = 60.0


class Gateway:
    """A bus whose one-way door is `gate/`, and the bureau on the other side, which it never hears."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.truth: Truth = generate(self.files, 2007)
        city = City(self.truth.extent, self.files / "districts.geojson", self.files / "grid.geojson", (FEEDS,))
        self.trial = Trial(folder / "bus", city, also={"packages": {"folder": "gate"}})
        self.trial.enrol("planning", "Planning bureau", "自然资源和规划局")
        self.trial.grant("planning", "push", FEED)
        self.gate = self.trial.folder / "gate"

    def told(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and document of a `yongtong` command of the bureau's."""
        command = [sys.executable, "-m", "exchange.cli.main", *arguments, "--as", "planning", "--json"]
        command += ["--partners", str(self.trial.partners)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, dict(json.loads(done.stdout))

    def packed(self, name: str, message_id: str, folder: Path) -> Path:
        """The package of one of the quarter's files."""
        path = folder / f"{message_id}.package"
        code, made = self.told("pack", FEED, str(self.files / name), str(path), "--message-id", message_id)
        assert (code, made["octets"]) == (0, path.stat().st_size)
        return path

    def out(self, name: str) -> Path:
        """An answer laid out for the bureau, once it is."""
        return awaited(lambda: self.gate / "out/planning" / name, lambda path: path.exists())

    def check(self) -> Any:
        """What doctor says of the door."""
        found = examine(self.trial.settings, places.utc_now())
        return next(check for check in found if check.name == "packages.folder")


def awaited(look: Callable[[], Path], holds: Callable[[Path], bool]) -> Path:
    until = time.monotonic() + WAIT_S
    while not holds(found := look()):
        assert time.monotonic() < until, f"{found} did not come to hold"
        time.sleep(0.1)
    return found


def gone(path: Path) -> None:
    awaited(lambda: path, lambda path: not path.exists())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    with gateway.trial:
        yield gateway


def test_it_shows_a_sheet_through_the_one_way_door_and_its_answers_carried_home(
    gateway: Gateway, tmp_path: Path
) -> None:
    octets = gateway.packed("sheet-first.dxf", "first", tmp_path).read_bytes()
    laid = gateway.gate / "in/first.package"
    with laid.open("wb") as coming:  # the gateway writes slowly
        coming.write(octets[: len(octets) // 2])
        coming.flush()
        time.sleep(2.5)
        assert laid.exists()
        assert not (gateway.gate / "out/planning").exists()
        coming.write(octets[len(octets) // 2 :])
    gateway.out("first.receipt.json")
    gateway.out("first.report.json")
    gone(laid)
    home = tmp_path / "stick"
    shutil.copytree(gateway.gate / "out/planning", home)
    code, brought = gateway.told("answers", str(home))
    kinds = [(one["kind"], one["outcome"]) for one in brought["answers"]]
    assert (code, kinds) == (0, [("receipt", "accepted"), ("report", "processed")])
    report = json.loads(home.joinpath("first.report.json").read_bytes())
    assert report
    assert gateway.told("receipt", "first", "--url", gateway.trial.url)[1]["carrier"] == "folder:main"
    told = gateway.told("report", "first", "--url", gateway.trial.url)[1]
    assert told["report"]["report"]["new"] == gateway.truth.sheet_versions.first


def test_what_the_gateway_spoilt_is_refused_told_and_seen_by_doctor_until_somebody_has_looked(
    gateway: Gateway, tmp_path: Path
) -> None:
    (gateway.gate / "refused/link.package").symlink_to("/etc/hostname")  # nothing of ours
    assert gateway.check().ok
    octets = gateway.packed("sheet-second.dxf", "spoilt", tmp_path).read_bytes()
    (gateway.gate / "in/spoilt.package").write_bytes(octets[:-1] + bytes([octets[-1] ^ 1]))
    gateway.out("spoilt.refusal.json")
    said = json.loads((gateway.gate / "refused/spoilt.package.json").read_text())
    assert said["code"] == "signature.content_digest"
    assert all(said["sentence"][name] for name in ("zh", "en", "next_zh", "next_en"))
    code, brought = gateway.told("answers", str(gateway.gate / "out/planning"))
    assert code == 1
    assert {one["code"] for one in brought["answers"] if one["kind"] == "refusal"} == {"signature.content_digest"}
    assert (gateway.check().ok, "refused/" in gateway.check().next_zh) == (False, True)
    for path in (gateway.gate / "refused").iterdir():
        path.unlink()
    assert gateway.check().ok


@pytest.mark.parametrize("wrong", ["no such file", "no package's name", "one stands there", "no folder", "a stranger"])
def test_wrong_use_is_named(gateway: Gateway, tmp_path: Path, wrong: str) -> None:
    sheet, out = str(gateway.files / "sheet-first.dxf"), tmp_path / "a.package"
    out.write_bytes(b"another")
    words = {
        "no such file": ("pack", FEED, str(tmp_path / "nothing.dxf"), str(tmp_path / "b.package")),
        "no package's name": ("pack", FEED, sheet, str(tmp_path / "b.zip")),
        "one stands there": ("pack", FEED, sheet, str(out)),
        "no folder": ("answers", str(tmp_path / "nowhere")),
        "a stranger": ("answers", str(tmp_path), "--partners", str(tmp_path)),
    }[wrong]
    command = [sys.executable, "-m", "exchange.cli.main", *words, "--as", "planning", "--json"]
    command += [] if wrong == "a stranger" else ["--partners", str(gateway.trial.partners)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stdout)["misconfigured"]
    code = "config.partner_missing" if wrong == "a stranger" else "config.file"
    assert (done.returncode, said["code"]) == (2, code)
    assert out.read_bytes() == b"another"


def test_killed_between_the_receipt_and_the_removal_it_gives_the_same_receipt(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    package = gateway.packed("sheet-first.dxf", "first", tmp_path)
    fault = {**os.environ, "YONGTONG_FAULT": "package.answered:before:1"}
    gateway.trial.start(fault)
    shutil.copy(package, gateway.gate / "in")
    gateway.trial.wait()
    receipt = gateway.out("first.receipt.json").read_bytes()
    assert (gateway.gate / "in/first.package").exists()
    with gateway.trial:
        gone(gateway.gate / "in/first.package")
        gateway.out("first.report.json")
        assert gateway.out("first.receipt.json").read_bytes() == receipt
        assert gateway.told("receipt", "first", "--url", gateway.trial.url)[0] == 0
    assert not list((gateway.trial.state / "spool").glob("package-*"))


def test_a_door_in_the_state_folder_stops_the_start(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    settings = Path(gateway.trial.settings.source)
    settings.write_text(settings.read_text().replace('folder = "gate"', 'folder = "state/gate"'))
    command = [sys.executable, "-m", "exchange.cli.main", "serve", "--json", "--settings", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, json.loads(done.stdout)["misconfigured"]["code"]) == (2, "config.setting")
