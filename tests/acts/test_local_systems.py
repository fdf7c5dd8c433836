"""A feed in the city's own system, from its file to the register, and no parameter of it anywhere on the way."""

import json
import logging
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs
from pyproj import Proj
from rich.cells import cell_len

from exchange.app import opening, saving
from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.processing import process
from security.errors import Misconfigured, sentences
from tests.acts.bench_of_one import Acts, both_acts
from tests.components.local_files import FILES, of_plane, of_space, plane_file, projected, written
from tests.components.local_files import leaks as leaked
from tests.registers import a_register

CENTRE: Final = (121.5493, 29.8697)
LOCAL: Final[dict[str, Callable[[float, float], tuple[float, float]]]] = {
    "plane": lambda *at: of_plane(*Proj("EPSG:4549")(*at)),
    "space": of_space,
    "projection": lambda *at: projected("CGCS2000", *at),
}
EXAMPLE: Final = """
[[example]]
source = {{ "编号" = "L", "类别" = "0101", "东" = "{0:.4f}", "北" = "{1:.4f}" }}
expect = {{ source_key = "L", longitude_deg = 121.5493, latitude_deg = 29.8697 }}
"""


def a_feed(system: str) -> str:
    """A register in a local system, with an example."""
    text = a_register(f"in-{system}", "Covers", "井盖", fields=EXAMPLE.format(*LOCAL[system](*CENTRE)))
    text = text.replace("EPSG:4490", f"local:{system}").replace("longitude_deg = {", "easting_m = {")
    text = text.replace("latitude_deg = {", "northing_m = {").replace("degrees", "metres")
    return text.replace("经度", "东").replace("纬度", "北")


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    folder = tmp_path_factory.mktemp("local")
    for name, text in FILES.items():
        written(folder / "systems", name, text())
    settings = {"also": {"city": {"systems": str(folder / "systems")}}}
    with both_acts(folder / "city", settings, **{f"in-{name}": a_feed(name) for name in LOCAL}) as acts:
        for name in LOCAL:
            acts.trial.grant("made-up", "push", f"in-{name}")
        yield acts


def run(acts: Acts, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    capsys.readouterr()
    code = command_line.main([*words, "--settings", acts.trial.settings.source])
    told = capsys.readouterr()
    return code, told.out + told.err


def csv(system: str) -> bytes:
    x, y = LOCAL[system](*CENTRE)
    swapped = f"M,0101,{y:.4f},{x:.4f}" if system == "plane" else ""
    return f"编号,类别,东,北\nL,0101,{x:.4f},{y:.4f}\n{swapped}\n".encode()


def pushed(acts: Acts, system: str) -> dict[str, Any]:
    """A delivery in the system, processed; the claim that it made."""
    acts.push(f"m-{system}", csv(system), feed=f"in-{system}")
    assert process(f"in-{system}", acts.bus) == 1
    query = "SELECT longitude_deg, latitude_deg, accuracy_m FROM claims ORDER BY id DESC LIMIT 1"
    row = acts.bus.store.connection().execute(query).fetchone()
    return dict(zip(("longitude_deg", "latitude_deg", "accuracy_m"), row, strict=True))


@pytest.mark.parametrize("system", LOCAL)
def test_a_delivery_in_a_local_system_lies_where_it_lies(acts: Acts, system: str) -> None:
    claim = pushed(acts, system)
    assert claim["longitude_deg"] == pytest.approx(CENTRE[0], abs=1e-8)
    assert claim["latitude_deg"] == pytest.approx(CENTRE[1], abs=1e-8)
    assert claim["accuracy_m"] == pytest.approx(0.5, abs=0.001)


def test_no_parameter_stands_in_the_state_the_log_a_backup_or_anything_printed(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source = tmp_path / "source.csv"
    source.write_bytes(csv("plane"))
    acts.push("m-again", csv("plane"), feed="in-plane")
    process("in-plane", acts.bus)
    told = {
        " ".join(words): run(acts, capsys, *words)
        for plain in (["feeds"], ["systems"], ["systems", "check", "plane"], ["feed", "check", "in-plane"], ["doctor"],
                      ["feed", "preview", "in-plane", str(source)], ["audit", "search"], ["systems", "check", "none"])
        for words in (plain, [*plain, "--json"])
    }  # fmt: skip
    assert {line for line, (code, _) in told.items() if code} <= {
        "doctor", "doctor --json", "systems check none", "systems check none --json"
    }  # fmt: skip
    everything = [*(text for _, text in told.values()), caplog.text, *_state(acts.trial.state)]
    backup = tmp_path / "backup.tar"
    with registry(acts.trial.settings) as opened:
        saving.make_backup(acts.trial.settings, backup, opened.journal, "person-1", lambda line: None)
    with tarfile.open(backup) as tar:
        assert not [name for name in tar.getnames() if "systems" in name]
    everything.append(backup.read_bytes().decode("latin-1"))
    assert "m-again" in "".join(everything)
    for text in (made() for made in FILES.values()):
        assert leaked("\n".join(everything), text) == []


def _state(folder: Path) -> Iterator[str]:
    """All that the state folder holds: files as they are, and databases row by row."""
    for path in folder.rglob("*"):
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                yield from database.iterdump()
        elif path.is_file():
            yield path.read_bytes().decode("latin-1")


def test_systems_are_listed_with_their_residuals(acts: Acts, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(acts, capsys, "systems", "--json")
    told = json.loads(text)
    assert (code, told["tolerance_cm"]) == (0, 10.0)
    assert [(one["name"], one["kind"], one["rests_on"], one["control_points"]) for one in told["systems"]] == [
        ("plane", "plane", "EPSG:4549", 3),
        ("projection", "projection", "CGCS2000", 3),
        ("space", "space", "Krassovsky 1940", 3),
    ]
    assert all(one["holds"] and one["rms_cm"] <= one["worst_cm"] < 0.1 for one in told["systems"])
    code, text = run(acts, capsys, "systems")
    assert code == 0
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "七参数 space" in text
    assert text.count("│ 是 yes") == 3


def test_a_system_off_its_control_points_is_shown_point_by_point_and_stops_the_start(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "systems", "off", plane_file(off_m=0.25))
    text = Path(acts.trial.settings.source).read_text(encoding="utf-8")
    path = tmp_path / "settings.toml"
    path.write_text(text.replace(acts.trial.settings.city.systems, str(tmp_path / "systems")), encoding="utf-8")
    here = ("--settings", str(path))
    assert command_line.main(["systems", "check", "off", "--json", *here]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(one["point"], round(one["east_mm"]), abs(one["north_mm"]) < 4) for one in told["points"]] == [
        (1, 250, True),
        (2, 250, True),
        (3, 250, True),
    ]
    assert (told["rms_cm"], told["worst_cm"], told["holds"]) == (24.99, 24.99, False)  # on the ground
    assert command_line.main(["systems", "check", "off", *here]) == 1
    assert capsys.readouterr().out.count("│ 否 no") == 3
    assert command_line.main(["systems", "--json", *here]) == 1
    assert command_line.main(["feed", "check", "in-plane", *here]) == 2
    assert sentences()["config.system_residual"].next_zh in capsys.readouterr().err


def test_without_the_parameters_that_a_feed_needs_the_bus_does_not_start(acts: Acts, tmp_path: Path) -> None:
    written(tmp_path, "plane", plane_file())
    city = structs.replace(acts.trial.settings.city, systems=str(tmp_path))
    with pytest.raises(Misconfigured, match=r"in-(projection|space)\.toml: crs: local:\w+: no \w+\.toml in the folder"):
        opening.open_bus(structs.replace(acts.trial.settings, city=city))


def test_parameters_in_the_state_folder_or_open_to_others_stop_the_start(acts: Acts, tmp_path: Path) -> None:
    inside = acts.trial.state / "systems"
    written(tmp_path, "plane", plane_file()).chmod(0o644)
    for folder, code in ((inside, "config.keys_exposed"), (tmp_path, "config.system_exposed")):
        city = structs.replace(acts.trial.settings.city, systems=str(folder))
        with pytest.raises(Misconfigured) as told:
            opening.open_bus(structs.replace(acts.trial.settings, city=city))
        assert told.value.code == code


def test_what_stands_the_wrong_way_round_is_told_which_two_lines_to_write(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.csv"
    source.write_bytes(csv("plane"))
    code, text = run(acts, capsys, "feed", "preview", "in-plane", str(source), "--json")
    (finding,) = [one for one in json.loads(text)["findings"] if one["code"] == "position.axes_swapped"]
    lines = 'easting_m = { from = "北", parse = "metres" }; northing_m = { from = "东", parse = "metres" }'
    assert code == 0
    assert finding["sentence"]["next_zh"].endswith(f"两行应为：{lines}")
    assert finding["sentence"]["next_en"].endswith(f"They read: {lines}")
