"""Planning moves a border: both versions over real doors, decided on at the command line, told to who subscribes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import requests

from connectors.partner.folder import PartnerFolder
from exchange.cli.demo_quarter import FEEDS
from exchange.cli.trial import APPROVER, SYSTEM, City, Trial
from samples.generate import Truth, generate
from samples.planning import Boundary
from security.message import Area, in_memory

DISTRICT, GRID, IMAGERY, CENSUS = "planning-district", "planning-unit-grid", "planning-imagery", "urban-census"


class Played(NamedTuple):
    """What came of it. before, after: identifier, district and grid of each component by its census key."""

    trial: Trial
    truth: Truth
    boundary: Boundary
    reports: dict[str, dict[str, Any]]
    before: dict[str, tuple[str | None, str | None, str | None]]
    after: dict[str, tuple[str | None, str | None, str | None]]
    changes: list[Any]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    files = tmp_path_factory.mktemp("quarter")
    truth = generate(files, 2007)
    boundary = msgspec.json.decode((files / "boundary-truth.json").read_bytes(), type=Boundary)
    city = City(truth.extent, files / "districts.geojson", files / "grid.geojson", (FEEDS,))
    trial = Trial(tmp_path_factory.mktemp("border") / "bus", city)
    trial.enrol("planning", "Planning bureau", "自然资源和规划局")
    trial.enrol("urban-management", "Urban management bureau", "城市管理局")
    trial.enrol("case-system", "Case system", "案件系统", "case system")
    for feed in (DISTRICT, GRID, IMAGERY):
        trial.grant("planning", "push", feed)
    trial.grant("urban-management", "push", CENSUS)
    for view in ("components", "changes", "layers"):
        trial.grant("case-system", "pull", view, map_area_km2=100)
    trial.grant("urban-management", "pull", "layers", area=Area(districts=("330205",)))
    reports = {}
    with trial:
        reports["census"] = pushed(trial, "urban-management", CENSUS, files / "census.csv")
        for name in ("", "-later"):
            reports[f"district{name}"] = pushed(trial, "planning", DISTRICT, files / f"districts{name}.geojson")
            reports[f"grid{name}"] = pushed(trial, "planning", GRID, files / f"grid{name}.geojson")
        reports["imagery"] = pushed(trial, "planning", IMAGERY, files / "imagery.geojson")
        before, last = standing(trial), changed(trial, 0)[-1].change_number
        for layer in ("district", "unit-grid"):
            said = command(trial, "layers", "release", layer, "--version", "2", "--by", SYSTEM.name)
            command(trial, "decision", "approve", said["decision"], "--by", APPROVER.name)
        waited(trial)
        yield Played(trial, truth, boundary, reports, before, standing(trial), changed(trial, last))


def pushed(trial: Trial, bureau: str, feed: str, file: Path) -> dict[str, Any]:
    """The report of a file, pushed over SOAP and waited for."""
    partner, message_id = trial.partner(bureau), file.name
    partner.push(feed, in_memory(file.read_bytes()), "application/octet-stream", message_id)
    reported = partner.report(message_id, wait_s=240)
    assert reported.received is not None
    report: dict[str, Any] = reported.received.document["report"]
    return report


def command(trial: Trial, *words: str) -> dict[str, Any]:
    """What a command says."""
    line = [sys.executable, "-m", "exchange.cli.main", *words, "--json", "--settings", trial.settings.source]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def waited(trial: Trial) -> None:
    """Return once what was decided is in force."""
    until = time.monotonic() + 240
    while set(command(trial, "layers")["placed_by"].values()) != {2}:
        assert time.monotonic() < until, "the worker did not place by what was decided"
        time.sleep(0.5)


def standing(trial: Trial) -> dict[str, tuple[str | None, str | None, str | None]]:
    pages = trial.partner("case-system").components(None, purpose="p")
    return {str(one.key): (one.identifier, one.division_code, one.grid_code) for page in pages for one in page}


def changed(trial: Trial, after: int) -> list[Any]:
    """All changes after a number, as a subscriber pulls them."""
    found: list[Any] = []
    while page := trial.partner("case-system").changes(after, purpose="p").changes:
        found += page
        after = page[-1].change_number
    return found


def moved(played: Played) -> set[str]:
    return {key for key, there in played.before.items() if played.after[key] != there}


def test_each_version_is_told_feature_by_feature(played: Played) -> None:
    counts = {
        name: tuple(report[word] for word in ("version", "new", "changed", "unchanged", "gone"))
        for name, report in played.reports.items()
        if "layer" in report
    }
    assert counts == {
        "district": (1, 2, 0, 0, 0),
        "grid": (1, 120, 0, 0, 0),
        "district-later": (2, 0, 2, 0, 0),
        "grid-later": (2, 10, 0, 110, 10),
        "imagery": (1, 2, 0, 0, 0),
    }


def test_exactly_the_components_of_the_street_are_placed_anew(played: Played) -> None:
    assert played.before.keys() == played.after.keys()
    grids = sorted(played.after[key][2] or "" for key in moved(played))
    known = played.truth.registers["census.csv"]
    of_census = [grid for key, grid in played.boundary.moved.items() if key.startswith("PC")]
    assert len(grids) > 50
    assert grids == sorted(of_census), (len(grids), len(of_census), known)
    assert {played.after[key][1] for key in moved(played)} == {"330205"}


def test_identifiers_stay(played: Played) -> None:
    assert {key: one[0] for key, one in played.before.items()} == {key: one[0] for key, one in played.after.items()}
    assert all(one[0] and one[0].startswith("330203") for key, one in played.before.items() if key in moved(played))


def test_the_change_feed_tells_each_once_and_nothing_else(played: Played) -> None:
    assert sorted(str(one.key) for one in played.changes) == sorted(moved(played))
    assert {one.kind for one in played.changes} == {"changed"}


def test_the_layers_are_listed_with_what_is_in_force(played: Played) -> None:
    told = command(played.trial, "layers")
    assert [(one["layer"], one["version"], one["in_force"]) for one in told["layers"]] == [
        ("district", 1, False),
        ("district", 2, True),
        ("imagery", 1, False),
        ("unit-grid", 1, False),
        ("unit-grid", 2, True),
    ]
    shown = command(played.trial, "layers", "show", "unit-grid", "--version", "1", "--limit", "3")
    assert [one["kind"] for one in shown["features"]] == ["Polygon"] * 3


def test_which_imagery_shows_a_place_on_a_day(played: Played) -> None:
    def codes(*asked: str) -> list[str]:
        return [one["code"] for one in command(played.trial, "layers", "imagery", *asked)["imagery"]]

    assert codes("121.547", "29.87") == ["DOM-2026-03", "DOM-2024-01"]
    assert codes("121.547", "29.87", "--on", "2026-03-08") == ["DOM-2024-01"]
    assert codes("121.555", "29.87") == ["DOM-2024-01"]
    assert codes("121.547", "29.87", "--on", "2024-01-01") == []


def asked(trial: Trial, bureau: str, path: str) -> requests.Response:
    """An answer over REST to a bureau's own certificate."""
    folder = PartnerFolder(trial.partners / bureau)
    certificate = (folder.file("connection.pem"), folder.file("connection.key"))
    return requests.get(f"{trial.url}/api/v1{path}", cert=certificate, verify=folder.file("ca.pem"), timeout=120)


def test_who_holds_a_grant_reads_a_version_as_geojson_page_by_page(played: Played) -> None:
    first = asked(played.trial, "case-system", "/layers/unit-grid?limit=100")
    assert first.headers["content-type"] == "application/geo+json"
    told = first.json()
    assert (told["type"], told["version"], told["level"], len(told["features"])) == (
        "FeatureCollection",
        2,
        "internal",
        100,
    )
    rest = asked(played.trial, "case-system", f"/layers/unit-grid?limit=100&after={told['next']}").json()
    codes = [one["id"] for one in told["features"] + rest["features"]]
    assert (len({*codes}), rest["next"]) == (120, None)
    assert {*played.boundary.retired.values()} <= {*codes}
    former = asked(played.trial, "case-system", "/layers/unit-grid?version=1&limit=1000").json()
    assert {*played.boundary.retired} <= {one["id"] for one in former["features"]}
    listed = asked(played.trial, "case-system", "/layers").json()["layers"]
    assert [(one["layer"], one["version"]) for one in listed if one["in_force"]] == [("district", 2), ("unit-grid", 2)]
    image = asked(played.trial, "case-system", "/imagery?lon=121.547&lat=29.87&on=2026-03-31").json()["imagery"][0]
    assert (image["code"], image["resolution_m"], image["taken_on"]) == ("DOM-2026-03", 0.05, "2026-03-09")


def test_what_leaves_ends_at_the_edge_of_the_granted_area(played: Played) -> None:
    told = asked(played.trial, "urban-management", "/layers/unit-grid?limit=1000").json()
    assert {one["id"][:6] for one in told["features"]} == {"330205"}
    assert len(told["features"]) == 70
    assert asked(played.trial, "urban-management", "/imagery?lon=121.545&lat=29.87").json()["imagery"] == []
    assert len(asked(played.trial, "urban-management", "/imagery?lon=121.555&lat=29.87").json()["imagery"]) == 1


@pytest.mark.parametrize(
    ("bureau", "path", "code"),
    [
        ("planning", "/layers/unit-grid", "auth.no_grant"),
        ("case-system", "/layers/unit-grid?version=9", "layer.unknown"),
        ("case-system", "/layers/none", "layer.unknown"),
        ("case-system", "/layers/unit-grid?version=x", "http.parameter"),
        ("case-system", "/layers/unit-grid?limit=2000", "http.parameter"),
        ("case-system", "/imagery?lon=121.5", "http.parameter"),
    ],
)
def test_what_is_not_granted_or_not_there_is_refused_by_name(played: Played, bureau: str, path: str, code: str) -> None:
    assert asked(played.trial, bureau, path).json()["refusal"]["code"] == code


def test_a_preview_tells_what_planning_s_next_version_would_be_found_to_be(played: Played, tmp_path: Path) -> None:
    document = json.loads((Path(played.trial.settings.at(played.trial.settings.city.grid))).read_bytes())
    document["features"].append(document["features"][0])
    file = tmp_path / "grid.geojson"
    file.write_text(json.dumps(document))
    told = command(played.trial, "feed", "preview", GRID, str(file))
    assert (told["records"], {one["code"] for one in told["findings"]}) == (121, {"layer.code_doubled"})
