"""坐标存疑 The samples' ordinary feeds, one after another and then again, on one bus: nothing of them is held."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from exchange.app import opening
from exchange.cli.trial import City, Trial
from exchange.feed_turn import take_turn
from samples import generate
from samples.street_survey import make_city
from tests.acts.bench_of_one import EXTENT, SAMPLE, Acts

ROOT = Path(__file__).parents[2]
STREET = Path(make_city.__file__).parent
QUARTER = {
    "urban-census": "census.csv",
    "water-register": "water.csv",
    "power-register": "power.csv",
    "planning-map-500": "sheet.dxf",
    "security-cameras": "cameras.xml",
}


@contextmanager
def a_bus(folder: Path, city: City, files: list[Path]) -> Iterator[Acts]:
    """A bus whose feeds are all of `made-up`."""
    (folder / "feeds").mkdir(parents=True)
    for path in files:
        text = re.sub(r'^bureau( *)= ".*"', r'bureau\1= "made-up"', path.read_text(encoding="utf-8"), flags=re.M)
        (folder / "feeds" / path.name).write_text(text, encoding="utf-8")
    trial = Trial(folder / "bus", City(city.extent, city.districts, city.grid, (folder / "feeds",)))
    trial.enrol("made-up", "Made-up bureau", "某单位")
    for path in files:
        trial.grant("made-up", "push", path.stem)
    bus = opening.open_bus(trial.settings)
    try:
        yield Acts(trial, bus)
    finally:
        bus.close()


def outcomes(acts: Acts, contents: Mapping[str, bytes]) -> set[str]:
    """What became of a delivery of each feed, sent twice."""
    found: set[str] = set()
    for turn in ("first", "again"):
        for feed, content in contents.items():
            acts.push(f"{turn}-{feed}", content, feed)
            take_turn(feed, acts.bus)
            row = acts.bus.journal.inbox("made-up", f"{turn}-{feed}")
            assert row is not None
            found.add(row.status)
    return found


def test_nothing_of_the_quarter_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["generate", str(tmp_path / "quarter")])
    generate.main()
    contents = {feed: (tmp_path / "quarter" / name).read_bytes() for feed, name in QUARTER.items()}
    feeds = [ROOT / "mappings" / "feeds" / f"{feed}.toml" for feed in QUARTER]
    city = City(EXTENT, SAMPLE / "districts.geojson", SAMPLE / "grid.geojson", ())
    with a_bus(tmp_path / "made", city, feeds) as acts:
        assert outcomes(acts, contents) == {"processed"}


def test_nothing_of_the_real_street_is_held(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("pipe_survey")
    files = sorted((STREET / "feeds").glob("*.toml"))
    survey, drawing = "pipe_survey_results.xls", "pipe_map_R2004_ansi936.dxf"
    contents = {one.stem: (folder / (drawing if "map" in one.stem else survey)).read_bytes() for one in files}
    city = City((113.915, 22.541, 113.924, 22.546), STREET / "districts.geojson", STREET / "grid.geojson", ())
    with a_bus(tmp_path / "street", city, files) as acts:
        assert outcomes(acts, contents) == {"processed"}
