"""坐标诊断 What a preview says of a file's frame, and who gets the exact parameters of a local one."""

import json
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange.cli import main as command_line
from exchange.cli.trial import PROPOSER
from exchange.deflected import gcj02_of
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts
from tests.acts.test_frame_doubt import DEGREES, IN_METRES, PLANE, Covers, sent
from tests.components.frames_of_one import turned

TURN_DEG, BY = 0.3, -1276.987 - 4114.105j
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def covers() -> Covers:
    return Covers()


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory, covers: Covers) -> Iterator[Acts]:
    """A bus to which a register said where the covers are."""
    more = {DEGREES: REGISTER.replace(FEED, DEGREES), PLANE: IN_METRES}
    with both_acts(tmp_path_factory.mktemp("frame"), None, **more) as acts:
        acts.trial.grant("made-up", "push", FEED)
        assert sent(acts, "known", covers.told(*covers.degrees), FEED) == "processed"
        yield acts


@pytest.fixture
def run(acts: Acts, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command's exit and what it printed."""

    def run(*words: str | Path) -> tuple[int, str]:
        code = command_line.main([*map(str, words), "--settings", acts.trial.settings.source])
        return code, capsys.readouterr().out

    return run


def document(said: tuple[int, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said[1])
    return found


@pytest.fixture
def turned_file(tmp_path: Path, covers: Covers) -> Path:
    path = tmp_path / "turned.csv"
    path.write_bytes(covers.told(*turned(*covers.on("EPSG:4549"), TURN_DEG, by=BY)))
    return path


def test_a_preview_says_that_a_file_is_in_its_feed_s_system(run: Run, covers: Covers, tmp_path: Path) -> None:
    (tmp_path / "right.csv").write_bytes(covers.told(*covers.on("EPSG:4549")))
    found = document(run("feed", "preview", PLANE, tmp_path / "right.csv", "--json"))["frame"]
    assert (found["verdict"], found["matched"], found["fix"]) == ("as_said", 200, [])
    assert found["residual_cm"] < 1


def test_a_preview_says_what_a_file_looks_like_with_the_residual_and_the_line_to_change(
    run: Run, covers: Covers, tmp_path: Path
) -> None:
    (tmp_path / "gcj.csv").write_bytes(covers.told(*gcj02_of(*covers.degrees)))
    code, screen = run("feed", "preview", DEGREES, tmp_path / "gcj.csv", "--limit", "1")
    assert code == 0
    assert "looks like GCJ-02, 49" in screen
    assert "m south-east by what the feed says; 200/200 paired by" in screen
    assert re.search(r"residual 0\.\d cm", screen)
    assert '    crs = "GCJ-02"\n' in screen


def test_a_preview_of_a_local_frame_gives_no_exact_figure(run: Run, turned_file: Path) -> None:
    for json_too in ([], ["--json"]):
        _, said = run("feed", "preview", PLANE, turned_file, "--limit", "0", *json_too)
        assert "4,300 m, turned by some 0.3°" in said
        for secret in ("1276", "1,276", "1277", "1,277", "4114", "4,114", "0.30", "0.299"):
            assert secret not in said


def test_without_a_bus_magnitudes_alone_speak(
    acts: Acts, covers: Covers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Path(acts.trial.settings.source).read_text(encoding="utf-8")
    away = Path(acts.trial.settings.source).with_name("elsewhere.toml")
    text = settings.replace('folder = "state"', f'folder = "{tmp_path}/none"')
    assert text != settings
    away.write_text(text, encoding="utf-8")
    east, north = covers.on("EPSG:4549")
    (tmp_path / "swapped.csv").write_bytes(covers.told(north, east))
    command_line.main(["feed", "preview", PLANE, str(tmp_path / "swapped.csv"), "--json", "--settings", str(away)])
    found = json.loads(capsys.readouterr().out)["frame"]
    assert (found["verdict"], found["axes_exchanged"], found["matched"]) == ("frame", True, 0)
    assert "by magnitudes alone" in found["en"]


def test_a_security_administrator_gets_the_parameters_in_a_file_of_their_own_and_the_audit_has_no_figure(
    acts: Acts, run: Run, covers: Covers, turned_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "old-town.toml"
    code, screen = run("feed", "frame", PLANE, turned_file, "--out", out, "--by", PROPOSER.name)
    assert code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    said = tomllib.loads(out.read_text(encoding="utf-8"))
    plane = said["plane"]
    assert plane["to"] == "EPSG:4549"
    turn = plane["scale"] * np.exp(1j * np.radians(plane["rotation_deg"]))
    x, y = turned(*covers.on("EPSG:4549"), TURN_DEG, by=BY)
    east, north = covers.on("EPSG:4549")
    there = turn * (x + 1j * y) + complex(plane["dx_m"], plane["dy_m"])
    assert np.abs(there - (east + 1j * north)).max() < 0.01
    control = said["control"]
    assert len(control) == 12
    apart = [
        abs(turn * complex(p["x_m"], p["y_m"]) + complex(plane["dx_m"], plane["dy_m"])
            - complex(p["to_x_m"], p["to_y_m"])) for p in control
    ]  # fmt: skip
    assert max(apart) < 0.01
    (entry,) = acts.bus.journal.search(type="frame")
    assert entry.leaf.outcome == "told"
    assert set(entry.detail or {}) == {"system", "content_digest"}
    for secret in (f"{plane['dx_m']:.2f}", f"{plane['dy_m']:.2f}", "1276", "4114"):
        assert secret not in screen + repr(entry)
    again = document(run("feed", "frame", PLANE, turned_file, "--out", out, "--by", PROPOSER.name, "--json"))
    assert again["misconfigured"]["code"] == "config.stands"


def test_a_numbered_system_has_no_parameters_to_get(run: Run, covers: Covers, tmp_path: Path) -> None:
    (tmp_path / "zone.csv").write_bytes(covers.told(*covers.on("EPSG:4550")))
    out = tmp_path / "zone.toml"
    said = document(run("feed", "frame", PLANE, tmp_path / "zone.csv", "--out", out, "--by", PROPOSER.name, "--json"))
    assert said["refused"]["code"] == "frame.none_local"
    assert not out.exists()
