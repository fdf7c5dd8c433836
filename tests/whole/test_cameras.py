"""The camera feed whole: catalogues, a page and a keepalive are taken, and what devices keep secret lies nowhere."""

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exchange import audit
from exchange.app import opening, places
from exchange.cli.demo_quarter import FEEDS
from exchange.cli.demo_voices import spellings
from exchange.cli.trial import City, Trial
from exchange.cli.verifying import read_anchors
from samples.generate import Truth, generate
from security.message import in_memory

Data = Callable[[str], Path]
FEED = "security-cameras"
PASSWORD, ADDRESS = b"Password1", b"172.19.128.50"  # of lunasaw_catalog.xml
MTOM_BYTES = 2_000_000  # above what is inline, above what is spooled


class Played(NamedTuple):
    """What came of the whole play: reports by message id, and all that commands and answers said."""

    trial: Trial
    truth: Truth
    reports: dict[str, dict[str, Any]]
    said: str


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, shared_data: Data) -> Played:
    real, files = shared_data("gb28181"), tmp_path_factory.mktemp("quarter")
    truth = generate(files, 2007)
    city = City(truth.extent, files / "districts.geojson", files / "grid.geojson", (FEEDS,))
    trial = Trial(tmp_path_factory.mktemp("cameras") / "bus", city)
    trial.enrol("public-security", "Public security bureau", "公安局")
    trial.enrol("case-system", "Case system", "案件系统")
    trial.grant("public-security", "push", FEED)
    for view in ("ownership", "components"):
        trial.grant("case-system", "pull", view)
    whole = (files / "cameras.xml").read_bytes()
    deliveries = {
        "sample": (real / "lunasaw_catalog.xml").read_bytes(),
        "sample-gb2312": (real / "lunasaw_catalog_gb2312.xml").read_bytes(),
        "whole": whole,
        "page": (real / "nvr_catalog_page_2_of_8.xml").read_bytes(),
        "keepalive": (real / "ipcamera_keepalive.xml").read_bytes(),
        "again": whole + b"\n" * (MTOM_BYTES - len(whole)),
        "cut": whole[:-40],
        "notify": notification(DEL=truth.cameras.keys[0], OFF=truth.cameras.keys[1]),
    }
    with trial:
        reports = {name: pushed(trial, name, octets) for name, octets in deliveries.items()}
        said = asked(trial, truth) + commanded(trial, real / "lunasaw_catalog.xml")
    return Played(trial, truth, reports, said)


def pushed(trial: Trial, message_id: str, octets: bytes) -> dict[str, Any]:
    police = trial.partner("public-security")
    police.push(FEED, in_memory(octets), "application/xml", message_id)
    reported = police.report(message_id, wait_s=60)
    assert reported.received is not None
    report: dict[str, Any] = reported.received.document["report"]  # type: ignore[assignment]  # it is an object
    return {"status": reported.status, **report}


def notification(**events: str) -> bytes:
    """What a platform sends between catalogues: event by event, of which device."""
    items = "".join(f"<Item><DeviceID>{key}</DeviceID><Event>{event}</Event></Item>" for event, key in events.items())
    head = f"<CmdType>Catalog</CmdType><SN>18</SN><SumNum>{len(events)}</SumNum>"
    return f"<Notify>{head}<DeviceList>{items}</DeviceList></Notify>".encode()


def asked(trial: Trial, truth: Truth) -> str:
    """Whose each camera near the middle is, as the case system hears it."""
    west, south, east, north = truth.extent
    near = trial.partner("case-system").nearest((west + east) / 2, (south + north) / 2, 500, "0136", purpose="test")
    assert near
    return repr(near)


def commanded(trial: Trial, file: Path) -> str:
    """What an operator's commands print about the feed."""
    commands = (["feed", "preview", FEED, str(file)], ["audit", "search"], ["feeds"])
    lines = [[sys.executable, "-m", "exchange.cli.main", *words, "--json"] for words in commands]
    done = [
        subprocess.run([*line, "--settings", trial.settings.source], capture_output=True, check=True, text=True)
        for line in lines
    ]
    assert json.loads(done[0].stdout)["records"] == 1
    return "".join(one.stdout + one.stderr for one in done)


def lies_in(words: list[bytes], octets: bytes) -> bool:
    return any(spelt in octets for word in words for spelt in spellings(word))


def test_the_whole_catalogue_becomes_its_cameras(played: Played) -> None:
    told, report = played.truth.cameras, played.reports["whole"]
    assert (report["status"], report["new"], report["records"]) == ("processed", told.accepted, told.records)
    counts = {finding["code"]: finding["count"] for finding in report["findings"]}
    for code, rows in (told.rejected | {f"ignored.{rule}": rows for rule, rows in told.ignored.items()}).items():
        assert counts[code] == len(rows), code


def test_a_page_of_a_real_recorder_ends_nothing(played: Played) -> None:
    report = played.reports["page"]
    assert report["status"] == "processed"
    assert (report["records"], report["rejected"], report["gone"]) == (2, 2, 0)
    assert {finding["code"] for finding in report["findings"]} == {"position.missing"}


@pytest.mark.parametrize(
    "message_id, rule", [("keepalive", "keepalive"), ("sample", "recorder"), ("sample-gb2312", "recorder")]
)
def test_what_lists_no_camera_is_left_out_by_a_named_rule_and_ends_nothing(
    played: Played, message_id: str, rule: str
) -> None:
    report = played.reports[message_id]
    assert report["status"] == "processed"
    assert (report["records"], report["ignored"], report["gone"]) == (1, 1, 0)
    assert [finding["code"] for finding in report["findings"]] == [f"ignored.{rule}"]


def test_the_same_again_by_mtom_changes_nothing_and_a_cut_one_is_refused(played: Played) -> None:
    again, cut = played.reports["again"], played.reports["cut"]
    assert (again["status"], again["unchanged"], again["gone"]) == ("processed", played.truth.cameras.accepted, 0)
    assert (cut["status"], cut["code"]) == ("refused", "decode.not_readable")


def test_a_notification_ends_the_camera_it_removes_and_no_other_and_being_off_is_no_news(played: Played) -> None:
    report = played.reports["notify"]
    assert report["status"] == "processed"
    assert (report["records"], report["ended"], report["ignored"], report["gone"]) == (2, 1, 1, 0)
    assert [finding["code"] for finding in report["findings"]] == ["ignored.state_change"]


def test_what_is_looked_for_would_be_found(shared_data: Data) -> None:
    clear = (shared_data("gb28181") / "lunasaw_catalog.xml").read_bytes()
    for before in range(4):
        for octets in (clear, base64.b64encode(b"x" * before + clear), base64.urlsafe_b64encode(b"x" * before + clear)):
            assert lies_in([PASSWORD], octets)
            assert lies_in([ADDRESS], octets)
    assert not lies_in([PASSWORD, ADDRESS], base64.b64encode(b"Passwort1 172.19.129.50"))


def test_what_devices_keep_secret_lies_nowhere_in_state_logs_receipts_or_answers(played: Played) -> None:
    words = [PASSWORD, ADDRESS, *(word.encode() for word in played.truth.cameras.withheld)]
    files = [path for path in played.trial.folder.rglob("*") if path.is_file()]
    kept = {path.relative_to(played.trial.folder).parts[0] for path in files}
    assert {"state", "partners", "serve.log", "keys"} <= kept
    assert [path for path in files if lies_in(words, path.read_bytes())] == []
    assert not lies_in(words, played.said.encode())
    assert not lies_in(words, json.dumps(played.reports, ensure_ascii=False).encode())


def test_every_delivery_of_the_feed_is_sealed_and_nothing_is_left_in_the_spool(played: Played) -> None:
    state = played.trial.state
    with closing(sqlite3.connect(f"file:{state / 'journal.sqlite'}?mode=ro", uri=True)) as reader:
        locations = [text for (text,) in reader.execute("SELECT evidence FROM inbox")]
    assert len(locations) == len(played.reports)
    assert all(len(location.split(":")) == 5 for location in locations)
    assert list((state / "spool").iterdir()) == []
    key = Path(played.trial.settings.at(played.trial.settings.keys.folder)) / "evidence.key"
    assert (key.stat().st_size, key.stat().st_mode & 0o777) == (32, 0o600)
    assert not list(state.rglob("*.key"))


def test_the_log_verifies_and_a_restart_keeps_what_was_sealed(played: Played) -> None:
    anchors = read_anchors(played.trial.state / "anchors.json")
    assert audit.verify(played.trial.state, anchors).problems == []
    with closing(opening.open_bus(played.trial.settings)) as bus:
        row = bus.journal.inbox("public-security", "again")
        assert row is not None
        assert bus.evidence.sweep(bus.journal.evidence_files(), places.utc_now()) == 0
        assert b"Password" in bus.evidence.read(row.evidence).read()
