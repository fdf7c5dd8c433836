"""A bureau's DWG whole: by the settings' program it becomes components; while that does not run nothing is lost."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyproj
import pytest

from exchange.app import opening
from exchange.cli.trial import Trial, city_of
from samples.drawing import Drawing
from security.message import in_memory
from tests.formats.test_dwg import DWG, WHOLE
from tests.whole.real_bus import EXTENT

FEED = "planning-map-500"
LAMPS = 3
SETTINGS = Path(__file__).parents[2] / "settings.toml"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that gives one drawing of three street lamps, and says its version."""
    home = tmp_path_factory.mktemp("program")
    plane = pyproj.Transformer.from_crs("EPSG:4490", "EPSG:4549", always_xy=True)
    sheet = Drawing()
    for number in range(LAMPS):
        x, y = plane.transform((EXTENT[0] + EXTENT[2]) / 2 + number * 0.001, (EXTENT[1] + EXTENT[3]) / 2)
        sheet.insert("路灯", "gc154", (x, y, 3.0))
    (home / "whole.dxf").write_bytes(sheet.octets())
    path = home / "dwg2dxf"
    path.write_text(f'#!/bin/sh\ntest "$1" = --version && echo dwg2dxf 0.13.3 && exit 0\n{WHOLE}\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[Trial]:
    also = {"drawings": {"dwg2dxf": str(program)}}
    trial = Trial(tmp_path_factory.mktemp("dwg"), city_of(SETTINGS), also=also)
    trial.enrol("planning", "Planning bureau", "自然资源和规划局")
    trial.grant("planning", "push", FEED)
    with trial:
        yield trial


def told(trial: Trial, message_id: str) -> dict[str, Any]:
    reported = trial.partner("planning").report(message_id, wait_s=60)
    assert reported.received is not None
    report: dict[str, Any] = reported.received.document["report"]  # type: ignore[assignment]  # it is an object
    return {"status": reported.status, **report}


def test_a_dwg_becomes_components_and_waits_while_its_program_does_not_run(trial: Trial, program: Path) -> None:
    partner = trial.partner("planning")
    partner.push(FEED, in_memory(DWG), "image/vnd.dwg", "sheet-1")
    first = told(trial, "sheet-1")
    assert (first["status"], first["new"], first["rejected"]) == ("processed", LAMPS, 0)

    program.chmod(0o644)
    partner.push(FEED, in_memory(DWG + b"2"), "image/vnd.dwg", "sheet-2")
    assert partner.report("sheet-2", wait_s=5).received is None
    program.chmod(0o755)
    second = told(trial, "sheet-2")
    assert (second["status"], second["unchanged"], second["gone"]) == ("processed", LAMPS, 0)


def test_the_preview_of_a_dwg_is_by_the_same_program(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "sheet.dwg").write_bytes(DWG)
    words = ["feed", "preview", FEED, str(tmp_path / "sheet.dwg"), "--json", "--settings", trial.settings.source]
    done = subprocess.run([sys.executable, "-m", "exchange.cli.main", *words], capture_output=True, text=True)
    assert json.loads(done.stdout)["records"] == LAMPS, done.stderr


def test_only_the_format_that_runs_the_program_is_told_of_it(trial: Trial, program: Path) -> None:
    feeds = opening.feeds_of(trial.settings)
    assert {feed.format for feed in feeds.values() if feed.options.get("dwg2dxf") == str(program)} == {"dxf"}
    assert {feed.format for feed in feeds.values()} > {"dxf"}
