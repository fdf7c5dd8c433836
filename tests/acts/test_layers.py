"""Layers of reference data, both acts: a version whole or not at all, kept beside those before, and told feature by
feature."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from msgspec import structs

from exchange.app import trusted
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM
from exchange.http.layers import features_within, listed
from exchange.processing import process
from exchange.receipts import verify_receipt
from exchange.replaying import superseded
from samples import quarter
from security.errors import Refusal
from tests.acts.bench_of_one import Acts, both_acts

GRID, DISTRICTS, ROADS, STREETS = "made-up-grid", "made-up-districts", "made-up-roads", "made-up-streets"
LAYERS = {GRID: "unit-grid", DISTRICTS: "district", ROADS: "roads", STREETS: "street"}
FILE = """
id = "{id}"
title = "A layer"
title_zh = "图层"
bureau = "made-up"
format = "vector"
content = "reference"
layer = "{layer}"
crs = "EPSG:4490"
gone_limit_percent = 20

[fields]
source_key = {{ from = "@code" }}
name = {{ from = "@name" }}
geometry = {{ from = "geometry" }}
land_use = {{ from = "@use" }}
"""
Features = list[dict[str, Any]]


class Planning:
    """A bureau `made-up` that delivers layers."""

    def __init__(self, acts: Acts) -> None:
        self.acts = acts
        for feed in LAYERS:
            acts.trial.grant("made-up", "push", feed)

    def told(self, message_id: str, features: Features, feed: str = GRID) -> dict[str, Any]:
        """Both acts; what the report says."""
        self.acts.push(message_id, geojson(features), feed)
        process(feed, self.acts.bus)
        return self.acts.report(message_id)

    def kept(self, feed: str = GRID) -> list[int]:
        """Features of each version of a layer."""
        return [self.acts.bus.store.features(one.id).height for one in self.acts.bus.store.layer_versions(LAYERS[feed])]


FILES: dict[str, Any] = {id: FILE.format(id=id, layer=layer) for id, layer in LAYERS.items()}


@pytest.fixture
def planning(tmp_path: Path) -> Iterator[Planning]:
    with both_acts(tmp_path, **FILES) as acts:
        yield Planning(acts)


@pytest.fixture(scope="module")
def without_a_version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planning]:
    """For deliveries of which nothing is kept."""
    with both_acts(tmp_path_factory.mktemp("none") / "bus", **FILES) as acts:
        yield Planning(acts)


def geojson(features: Features) -> bytes:
    named = [{**one, "properties": {"name": None, "use": None, **one["properties"]}} for one in features]
    return json.dumps({"type": "FeatureCollection", "features": named}).encode()


def grids(*columns: int) -> Features:
    """The sample's unit grids; of some columns of cells alone, if any are named."""
    wanted = {quarter.grid_code(i, j) for i in columns or range(quarter.COLUMNS) for j in range(quarter.ROWS)}
    return [one for one in quarter.grids()["features"] if one["properties"]["code"] in wanted]


def feature(code: str | None, shape: shapely.Geometry, **said: str) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"code": code, **said}, "geometry": json.loads(shapely.to_geojson(shape))}


def codes(report: dict[str, Any]) -> dict[str, int]:
    return {finding["code"]: finding["count"] for finding in report["findings"]}


def counts(report: dict[str, Any]) -> dict[str, int]:
    names = ("records", "new", "changed", "unchanged", "rejected", "ignored", "gone")
    return {name: report[name] for name in names if report[name]}


def test_each_delivery_is_a_version_and_those_before_are_kept(planning: Planning) -> None:
    first = planning.told("g-1", grids())
    assert counts(first) == {"records": 120, "new": 120}
    assert (first["layer"], first["version"], first["findings"]) == ("unit-grid", 1, [])
    changed, *others = grids()[:-2]
    changed["properties"]["use"] = "park"
    second = planning.told("g-2", [changed, *others])
    assert counts(second) == {"records": 118, "changed": 1, "unchanged": 117, "gone": 2}
    assert (second["version"], planning.kept()) == (2, [120, 118])
    one, two = planning.acts.bus.store.layer_versions("unit-grid")
    assert one.valid_from_us < two.valid_from_us
    said = planning.acts.bus.store.features(two.id).filter(source_key=changed["properties"]["code"])
    assert json.loads(said["attributes"][0]) == {"land_use": "park"}


def test_the_same_again_makes_no_version(planning: Planning) -> None:
    planning.told("g-1", grids())
    again = planning.told("g-2", list(reversed(grids())))
    assert counts(again) == {"records": 120, "unchanged": 120}
    assert "version" not in again
    assert planning.kept() == [120]


def test_no_component_comes_of_a_layer(planning: Planning) -> None:
    planning.told("r-1", [feature("G1", shapely.LineString([(121.545, 29.87), (121.555, 29.87)]))], ROADS)
    store = planning.acts.bus.store
    assert (store.ledger().components, store.ledger().claims) == (0, 0)
    assert planning.kept(ROADS) == [1]


def test_the_account_of_the_day_balances(planning: Planning) -> None:
    planning.told("g-1", grids())
    planning.told("g-2", grids()[:-2])
    planning.told("g-3", [*grids(), grids()[0]])
    tallies = planning.acts.bus.store.tallies(0, 2**62).select("message_id", "new", "unchanged", "rejected", "rows")
    assert tallies.rows() == [("g-1", 120, 0, 0, 120), ("g-2", 0, 118, 0, 0), ("g-3", 0, 0, 121, 0)]


CELL = shapely.box(121.5445, 29.8655, 121.5455, 29.8664)
AWAY = shapely.box(121.552, 29.8655, 121.553, 29.8664)
BOWTIE = shapely.Polygon([(121.5445, 29.8655), (121.5455, 29.8664), (121.5455, 29.8655), (121.5445, 29.8664)])
FAR = shapely.box(121.5445, 29.8655, 122.5455, 29.8664)


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        pytest.param(feature("330203001001001", CELL), "layer.code_doubled", id="doubled"),
        pytest.param(feature(None, CELL), "key.missing", id="no_code"),
        pytest.param(feature("33020300100100", shapely.Point(121.545, 29.866)), "layer.no_area", id="point"),
        pytest.param(feature("33020300100199", BOWTIE), "layer.geometry_invalid", id="bowtie"),
        pytest.param(feature("33020300100199", FAR), "layer.outside_city", id="far"),
        pytest.param(feature("3302030010019", CELL), "layer.code_malformed", id="13_digits"),
        pytest.param(feature("33020300100A199", CELL), "layer.code_malformed", id="letter"),
        pytest.param(feature("330203001001099", CELL), "layer.overlap", id="overlap"),
        pytest.param(feature("330206001001001", AWAY), "layer.parent_unknown", id="no_district"),
        pytest.param(
            {"type": "Feature", "properties": {"code": "330203001001099"}, "geometry": None},
            "layer.geometry_missing",
            id="none",
        ),
    ],
)
def test_one_wrong_feature_refuses_the_version_and_every_feature_is_told(
    without_a_version: Planning, spoilt: dict[str, Any], code: str, request: pytest.FixtureRequest
) -> None:
    report = without_a_version.told(request.node.callspec.id, [*grids(0), spoilt])
    assert counts(report) == {"records": 11, "rejected": 11}
    assert {*codes(report)} == {code, "layer.not_taken"}
    assert codes(report)["layer.not_taken"] == 10
    assert (without_a_version.kept(), "version" in report) == ([], False)
    assert all(finding["sentence"]["zh"] and finding["sentence"]["next_en"] for finding in report["findings"])


def test_a_grid_lies_in_the_district_that_its_code_names(planning: Planning) -> None:
    west, east = grids(5), grids(6)
    west[0]["properties"]["code"], east[0]["properties"]["code"] = "330205009009001", west[0]["properties"]["code"]
    assert codes(planning.told("g-1", west + east))["layer.outside_parent"] == 2


def test_the_nearest_larger_layer_that_was_delivered_is_the_one_that_codes_name(planning: Planning) -> None:
    half = shapely.union_all([shapely.from_geojson(json.dumps(one["geometry"])) for one in grids(0, 1, 2)])
    planning.told("s-1", [feature("330203001", half)], STREETS)
    known = {"330203001"}
    report = planning.told("g-1", grids(0, 1, 2))
    others = [one for one in grids(0, 1, 2) if one["properties"]["code"][:9] not in known]
    assert codes(report)["layer.parent_unknown"] == len(others) > 0


def test_a_hole_between_grids_is_told_and_kept(planning: Planning) -> None:
    hole = quarter.grid_code(3, 4)
    report = planning.told("g-1", [one for one in grids() if one["properties"]["code"] != hole])
    (gap,) = report["findings"]
    assert (gap["code"], gap["severity"], gap["count"], report["new"]) == ("layer.gap", "warning", 1, 119)
    assert gap["values"][0]["value"].startswith("100")  # a cell is some 10,000 m²


def test_edges_that_differ_by_centimetres_are_no_overlap(planning: Planning) -> None:
    features = grids()
    ring = features[0]["geometry"]["coordinates"][0]
    features[0]["geometry"]["coordinates"] = [[[x + 3e-7, y] for x, y in ring]]  # 3 cm
    assert planning.told("g-1", features)["version"] == 1


def test_a_version_that_would_end_too_much_waits_for_a_person(planning: Planning) -> None:
    planning.told("g-1", grids())
    held = planning.told("g-2", grids(0, 1))
    assert (held["code"], held["would_end"], held["gone_percent"]) == ("delivery.held", 100, "83.3")
    assert planning.kept() == [120]
    row = planning.acts.bus.journal.inbox("made-up", "g-2")
    assert row is not None
    with registry(planning.acts.trial.settings) as opened:
        opened.decide_delivery(row.id, "release", SYSTEM)
    process(GRID, planning.acts.bus)
    assert (planning.acts.report("g-2")["version"], planning.kept()) == (2, [120, 20])


def test_what_is_older_than_the_newest_version_takes_no_place(planning: Planning) -> None:
    acts = planning.acts
    late = acts.delivery("g-0", geojson(grids(0, 1, 2)), GRID)
    planning.told("g-1", grids())
    acts.receive(late)
    process(GRID, acts.bus)
    assert planning.acts.report("g-0")["code"] == "layer.older"
    assert planning.kept() == [120]


def test_a_grant_that_is_narrowed_lets_no_layer_in(tmp_path: Path) -> None:
    with both_acts(tmp_path, **FILES) as acts:
        acts.trial.grant("made-up", "push", GRID, attributes=["name"])
        acts.push("g-1", geojson(grids()), GRID)
        process(GRID, acts.bus)
        octets = acts.bus.journal.report("made-up", "g-1")
        assert octets is not None
        assert verify_receipt(octets, trusted.anchors_of(acts.trial.settings)).document["report"]["code"] == (
            "layer.grant_narrow"
        )


def test_outlines_heaped_on_one_another_end_before_they_are_all_compared(planning: Planning) -> None:
    heap = [feature(f"330203001{n:06}", shapely.buffer(CELL, 1e-9 * (n % 7))) for n in range(1_500)]
    octets = geojson(heap)
    planning.acts.push("g-1", octets, GRID)
    process(GRID, planning.acts.bus)
    assert planning.acts.report("g-1")["code"] == "layer.too_tangled"


def test_a_recalled_version_stands_no_longer_and_the_next_is_compared_with_the_one_before(planning: Planning) -> None:
    planning.told("g-1", grids())
    planning.told("g-2", grids()[:-2])
    planning.acts.recall(planning.acts.recalling("g-2"))
    process(GRID, planning.acts.bus)
    assert counts(planning.told("g-3", grids()[:-1])) == {"records": 119, "unchanged": 119, "gone": 1}
    assert [one.stands for one in planning.acts.bus.store.layer_versions()] == [True, False, True]


def test_positions_in_metres_are_placed_in_degrees(tmp_path: Path) -> None:
    names = """
id = "made-up-names"
title = "Place names"
title_zh = "地名"
bureau = "made-up"
format = "table"
content = "reference"
layer = "place-name"
crs = "EPSG:4549"

[options]
header = "编号"

[fields]
source_key = { from = "编号" }
name = { from = "名称" }
easting_m = { from = "东", parse = "metres" }
northing_m = { from = "北", parse = "metres" }
"""
    files: dict[str, Any] = {"made-up-names": names}
    with both_acts(tmp_path, **files) as acts:
        acts.trial.grant("made-up", "push", "made-up-names")
        acts.push("n-1", "编号,名称,东,北\nD1,䶮溪路,649654.95,3307153.91\n".encode(), "made-up-names")
        process("made-up-names", acts.bus)
        (version,) = acts.bus.store.layer_versions("place-name")
        kept = acts.bus.store.features(version.id)
        place = shapely.from_wkb(kept["wkb"][0])
        assert (round(place.x, 6), round(place.y, 6)) == (121.549, 29.874)
        assert kept.select("source_key", "name").rows() == [("D1", "䶮溪路")]


def test_an_older_version_that_is_dead_is_not_laid_over_the_one_in_the_register(planning: Planning) -> None:
    acts = planning.acts
    late = acts.delivery("g-0", geojson(grids(0, 1, 2)), GRID)
    planning.told("g-1", grids())
    acts.receive(late)
    process(GRID, acts.bus)
    row = acts.bus.journal.inbox("made-up", "g-0")
    assert row is not None
    assert not superseded(acts.bus.journal, row, acts.bus.feeds[GRID])  # it came later, and is older by its signature
    planning.told("g-2", grids()[:-1])
    assert superseded(acts.bus.journal, row, acts.bus.feeds[GRID])


def test_what_the_feed_withholds_leaves_by_no_door(planning: Planning) -> None:
    park, *others = grids()
    park["properties"] |= {"use": "park", "name": "月湖"}
    planning.told("g-1", [park, *others])
    planning.acts.trial.grant("made-up", "pull", "layers", map_area_km2=10)
    bus = planning.acts.bus
    (grant,) = (one for one in bus.registry.grants("made-up") if one.target == "layers")

    def said(*sensitive: str) -> tuple[int, dict[str, Any]]:
        feed = structs.replace(bus.feeds[GRID], sensitive=[*sensitive])
        looking = structs.replace(bus, feeds={**bus.feeds, GRID: feed})
        found = features_within(grant, "unit-grid", {"limit": "1000"}, None, looking)["features"]
        return len(listed(looking)), next(one for one in found if one["id"] == park["properties"]["code"])["properties"]

    code = park["properties"]["code"]
    assert said() == (1, {"code": code, "name": "月湖", "land_use": "park"})
    assert said("land_use") == (1, {"code": code, "name": "月湖"})
    assert said("name", "land_use") == (1, {"code": code, "name": None})
    with pytest.raises(Refusal, match=r"layer\.unknown"):
        said("geometry")


def test_a_map_larger_than_is_allowed_leaves_to_who_is_granted_it(planning: Planning) -> None:
    planning.told("g-1", grids())
    planning.acts.trial.grant("made-up", "pull", "layers")
    bus = planning.acts.bus
    (grant,) = (one for one in bus.registry.grants("made-up") if one.target == "layers")
    asked = "unit-grid", {"limit": "1"}, None
    assert len(features_within(grant, *asked, bus)["features"]) == 1
    small = structs.replace(bus, limits=structs.replace(bus.limits, map_area_km2=1.0))  # the quarter has 1.2
    with pytest.raises(Refusal, match=r"export\.area_too_large"):
        features_within(grant, *asked, small)
    assert features_within(structs.replace(grant, map_area_km2=2), *asked, small)["features"]
