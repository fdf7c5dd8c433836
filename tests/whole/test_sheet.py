"""A sheet of the quarter's map, sent twice over real sockets: preview, report and picture say what was sown."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from lxml import etree

from exchange.cli.demo_quarter import FEEDS
from exchange.cli.trial import City, Trial
from samples.generate import Truth, generate
from security.message import file_content

FEED = "planning-map-500"
KINDS = ("added", "moved", "changed", "gone")


class Quarter:
    """A running bus that has the sheet's first version."""

    def __init__(self, trial: Trial, files: Path, truth: Truth) -> None:
        self.trial, self.files, self.truth = trial, files, truth

    def sent(self, name: str, message_id: str) -> dict[str, Any]:
        partner = self.trial.partner("planning")
        partner.push(FEED, file_content(self.files / name), "application/octet-stream", message_id)
        reported = partner.report(message_id, wait_s=60)
        assert reported.received is not None
        return dict(reported.received.document["report"])  # type: ignore[arg-type]  # it is an object

    def told(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and document of a `yongtong` command beside the bus."""
        command = [sys.executable, "-m", "exchange.cli.main", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.trial.folder)
        return done.returncode, dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quarter]:
    folder = tmp_path_factory.mktemp("sheet")
    truth = generate(folder / "files", 2007)
    files = folder / "files"
    city = City(truth.extent, files / "districts.geojson", files / "grid.geojson", (FEEDS,))
    trial = Trial(folder / "bus", city)
    for bureau in ("planning", "curious"):
        trial.enrol(bureau, "Some bureau", "某单位")
    trial.grant("planning", "push", FEED)
    with trial:
        found = Quarter(trial, files, truth)
        assert found.sent("sheet-first.dxf", "first")["new"] == truth.sheet_versions.first
        yield found


def test_preview_report_and_picture_of_a_second_version_say_what_was_sown(quarter: Quarter, tmp_path: Path) -> None:
    truth = quarter.truth.sheet_versions
    wanted = {kind: len(getattr(truth, kind)) for kind in KINDS}
    code, foreseen = quarter.told("feed", "preview", FEED, str(quarter.files / "sheet-second.dxf"))
    assert (code, foreseen["sheet"]["numbers"]) == (0, [truth.number])
    assert {kind: foreseen["sheet"][kind] for kind in KINDS} == wanted
    told = quarter.sent("sheet-second.dxf", "second")["sheet"]
    assert {**told, "compared": True} == foreseen["sheet"]
    file = tmp_path / "sheet.svg"
    mine = ["--as", "planning", "--url", quarter.trial.url, "--partners", str(quarter.trial.partners)]
    code, made = quarter.told("report", "second", *mine, "--picture", str(file))
    assert (code, made["octets"]) == (0, file.stat().st_size)
    titles = [str(title.text) for title in etree.parse(file).iter("{http://www.w3.org/2000/svg}title")][1:]
    assert {kind: sum(kind in title for title in titles) for kind in KINDS} == wanted
    for handle, moved_m in truth.moved.items():
        assert any(title.startswith(f"{truth.number}/{handle} ") and f" {moved_m:.2f} m" in title for title in titles)


def test_a_picture_is_given_to_the_bureau_whose_delivery_it_is_and_to_no_other(quarter: Quarter) -> None:
    address = f"{quarter.trial.url}/api/v1/deliveries/first/picture"
    answers = {}
    for bureau in ("planning", "curious"):
        folder = quarter.trial.partners / bureau
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(folder / "ca.pem")
            session.cert = (str(folder / "connection.pem"), str(folder / "connection.key"))
            answers[bureau] = session.get(address, timeout=20)
    assert (answers["planning"].status_code, answers["planning"].headers["content-type"]) == (200, "image/svg+xml")
    assert "default-src 'none'" in answers["planning"].headers["content-security-policy"]
    refused = answers["curious"]
    assert (refused.status_code, refused.json()["refusal"]["code"]) == (404, "delivery.unknown")
