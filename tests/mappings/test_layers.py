"""A feed of reference data: what its file may say, and what becomes of its records."""

from pathlib import Path

import polars as pl
import pytest

from connectors.formats.records import CARRIED, RECORD, SHEET
from mappings.apply import map_records
from mappings.load import load_feeds, read_feed
from security.errors import Misconfigured

GOOD = """
id = "roads"
title = "Roads"
title_zh = "道路"
bureau = "planning"
format = "vector"
content = "reference"
layer = "roads"
crs = "EPSG:4549"

[fields]
source_key = { from = "@RoadID" }
name = { from = "@Name" }
geometry = { from = "geometry" }
grade = { from = "@Grade" }

[[ignore]]
rule = "planned"
title = "Planned"
title_zh = "规划"
from = "@Grade"
values = ["规划"]
"""
LINE = "LINESTRING (649654.95 3307153.91, 649660 3307160)"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('layer = "roads"', "", "layer"),
        ('layer = "roads"', 'layer = "Roads 1"', "layer"),
        ('content = "reference"', 'content = "snapshot"', "layer"),
        ('geometry = { from = "geometry" }', "", "fields.geometry"),
        ("grade =", 'easting_m = { from = "x", parse = "metres" }\ngrade =', "fields"),
        ('crs = "EPSG:4549"', 'crs = "4549"', "crs"),
        ("grade =", "attributes =", "fields.attributes"),
        ("grade =", "Grade =", "fields.Grade"),
        ('grade = { from = "@Grade" }', 'grade = { from = "@Grade", parse = "metres" }', "fields.grade.parse"),
        ('layer = "roads"', 'layer = "roads"\nclasses = ["CJ/T 214-2007:0118"]', "classes"),
    ],
)
def test_a_mistake_stops_the_start_and_is_named(old: str, new: str, key: str) -> None:
    assert old in GOOD
    with pytest.raises(Misconfigured, match=rf"roads\.toml: {key}: "):
        read_feed(GOOD.replace(old, new).encode(), "roads")


def test_two_feeds_deliver_no_one_layer(tmp_path: Path) -> None:
    for id in ("roads", "streets-and-roads"):
        (tmp_path / f"{id}.toml").write_text(GOOD.replace('id = "roads"', f'id = "{id}"'), encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"streets-and-roads\.toml: layer: roads delivers 'roads' already"):
        load_feeds([tmp_path])


def test_what_the_shared_schema_does_not_name_is_kept_as_an_attribute() -> None:
    feed = read_feed(GOOD.encode(), "roads")
    said = {"@RoadID": ["R1", "R2"], "@Name": ["䶮溪路", None], "@Grade": ["次干路", "规划"], "geometry": [LINE, LINE]}
    own = {"delivery": [0, 0], RECORD: [0, 1], SHEET: [None, None], CARRIED: [False, False]}
    kinds = {"delivery": pl.UInt32, RECORD: pl.UInt32, SHEET: pl.String, CARRIED: pl.Boolean}
    mapped = map_records(pl.DataFrame({**own, **said}, {**kinds, **dict.fromkeys(said, pl.String)}), feed)
    kept = mapped.candidates.select("record", "source_key", "name", "geometry", "attributes", "x")
    assert kept.rows() == [(0, "R1", "䶮溪路", LINE, '{"grade":"次干路"}', None)]
    assert mapped.findings["code"].to_list() == ["ignored.planned"]
