"""Readings are mapped like any record; a file of them that makes no sense stops the start."""

from pathlib import Path

import pytest

from connectors.formats.telemetry_json import decode
from mappings.apply import map_records, take
from mappings.examples import check_examples
from mappings.load import load_feeds, read_feed
from mappings.schema import READINGS
from security.errors import Misconfigured
from security.message import in_memory

REGISTER = """
id = "register"
title = "t"
title_zh = "题"
bureau = "water"
format = "table"
content = "snapshot"
crs = "EPSG:4490"

[defaults]
class_code = "0101"

[fields]
source_key = { from = "key" }
longitude_deg = { from = "x", parse = "degrees" }
latitude_deg = { from = "y", parse = "degrees" }
"""
GOOD = """
id = "levels"
title = "t"
title_zh = "题"
bureau = "water"
format = "telemetry_json"
content = "readings"
of = "register"

[defaults]
unit = "m"

[fields]
source_key = { from = ["site", "device"], join = "-" }
quantity = { from = "metric" }
value = { from = "value", parse = "number" }
observed_at = { from = "ts", parse = "epoch_ms" }

[[example]]
source = { "site" = "S", "device" = "1", "metric" = "level", "value" = "3.20", "ts" = "1795564800250" }
expect = { source_key = "S-1", quantity = "level", value = 3.2, unit = "m", observed_at = 2026-11-25T00:00:00.250Z }
"""
QUANTITY, VALUE = 'quantity = { from = "metric" }', 'value = { from = "value", parse = "number" }'


def test_readings_fill_their_own_schema_and_lack_what_nobody_said() -> None:
    feed = read_feed(GOOD.encode(), "levels")
    content = in_memory(b'[{"site":"S","device":1,"metric":"level","value":NaN,"ts":1795564800250},{"site":"S"}]')
    (batch,) = decode([content], {})
    mapped = map_records(take(batch.frame, feed), feed)
    assert dict(mapped.candidates.schema) == READINGS
    assert mapped.candidates.select("record", "source_key", "quantity", "value").rows() == [(1, "S", None, None)]
    assert mapped.findings.select("record", "code", "field", "value").rows() == [
        (0, "value.not_readable", "value", "NaN")
    ]
    assert mapped.unread.rows() == [(0, 0, "S-1")]


def test_a_good_file_holds_its_examples() -> None:
    assert check_examples(read_feed(GOOD.encode(), "levels")) == ()
    wrong = read_feed(GOOD.replace("00.250Z", "01Z").encode(), "levels")
    assert len(check_examples(wrong)) == 1


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('of = "register"', "", "of: is missing"),
        ('of = "register"', 'of = "register"\ncrs = "EPSG:4490"', "crs: says something of things"),
        ('of = "register"', 'of = "register"\naccuracy = 0.5', "accuracy: says something of things"),
        ('of = "register"', 'of = "register"\nas_of = 2026-01-01', "as_of: says something of things"),
        ('of = "register"', 'of = "register"\nclasses = ["CJ/T 214-2007:0101"]', "classes: says something of things"),
        ('of = "register"', 'of = "register"\ngone_limit_percent = 5', "gone_limit_percent: says something of things"),
        (QUANTITY, "", "fields.quantity: is missing"),
        ('observed_at = { from = "ts", parse = "epoch_ms" }', "", "fields.observed_at: is missing"),
        (VALUE, "", "fields: a reading says a value, a state, or both"),
        ('parse = "epoch_ms"', 'parse = "number"', "fields.observed_at.parse: number gives"),
        (
            VALUE,
            'value = { from = "value" }',
            "fields.value.parse: text gives",
        ),
        (QUANTITY, f'{QUANTITY}\nclass_code = {{ from = "metric" }}', "fields.class_code: is none of"),
        ('unit = "m"', 'observed_at = "now"', "defaults.observed_at"),
        ('unit = "m"', 'owner_name = "x"', "defaults.owner_name"),
    ],
)
def test_what_makes_no_sense_for_readings_is_named(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(Misconfigured, match=said):
        read_feed(GOOD.replace(old, new, 1).encode(), "levels")


def test_a_default_may_say_the_quantity() -> None:
    text = GOOD.replace(QUANTITY, "").replace("[defaults]", '[defaults]\nquantity = "level"')
    assert read_feed(text.encode(), "levels").defaults["quantity"] == "level"


def test_a_register_says_no_of_and_needs_its_crs() -> None:
    with pytest.raises(Misconfigured, match="of: belongs to"):
        read_feed(REGISTER.replace("crs =", 'of = "levels"\ncrs =').encode(), "register")
    with pytest.raises(Misconfigured, match="crs: '' is not of the form"):
        read_feed(REGISTER.replace('crs = "EPSG:4490"', "").encode(), "register")


@pytest.mark.parametrize(
    "spoilt, of",
    [
        ("", "nothing-such"),
        (REGISTER.replace('bureau = "water"', 'bureau = "power"'), "register"),
        ("", "levels"),
    ],
)  # fmt: skip
def test_readings_are_of_a_register_of_the_same_bureau(tmp_path: Path, spoilt: str, of: str) -> None:
    (tmp_path / "register.toml").write_text(spoilt or REGISTER, encoding="utf-8")
    (tmp_path / "levels.toml").write_text(GOOD.replace('of = "register"', f'of = "{of}"'), encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"levels\.toml: of: "):
        load_feeds([tmp_path])


def test_the_register_may_stand_in_another_folder(tmp_path: Path) -> None:
    for name, text in (("register", REGISTER), ("levels", GOOD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.toml").write_text(text, encoding="utf-8")
    assert [*load_feeds([tmp_path / "levels", tmp_path / "register"])] == ["levels", "register"]


def test_the_water_bureaus_own_readings_hold() -> None:
    feed = load_feeds([Path(__file__).parents[2] / "mappings/feeds"])["water-telemetry"]
    assert check_examples(feed) == ()
    assert feed.columns == ["deviceId", "metric", "value", "status", "observedAt"]
