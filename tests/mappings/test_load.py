"""A feed's file that is wrong stops the start, naming file and key."""

import json
import re
from pathlib import Path

import pytest

from exchange.cli.main import main
from mappings.examples import check_examples
from mappings.load import feed_digest, load_feeds, read_feed
from security.errors import Misconfigured
from security.message import sha256

ROOT = Path(__file__).parent.parent.parent

GOOD = """
id       = "lighting-census"
title    = "Street lighting census"
title_zh = "路灯普查成果"
bureau   = "urban-management"
format   = "table"
content  = "snapshot"
classes  = ["CJ/T 214-2007:0118"]
crs      = "EPSG:4549"
accuracy = 0.5

[options]
header = "编号"

[fields]
source_key = { from = "编号" }
class_code = { from = "类型", lookup = "kind" }
northing_m = { from = "X", parse = "metres" }
easting_m  = { from = "Y", parse = "metres" }

[lookups.kind]
"单臂路灯" = "0118"

[[ignore]]
rule     = "spare"
title    = "Spare pole in the yard"
title_zh = "库存灯杆"
from     = "类型"
values   = ["库存"]

[[example]]
source = { "编号" = "LD001", "类型" = "单臂路灯", "X" = "3307153.91", "Y" = "649654.95" }
expect = { source_key = "LD001", class_code = "0118", longitude_deg = 121.549, latitude_deg = 29.874 }

[[example]]
source = { "编号" = "LD002", "类型" = "库存" }
expect = { ignored = "spare" }
"""


def test_a_good_file_is_read_and_its_examples_hold() -> None:
    feed = read_feed(GOOD.encode(), "lighting-census")
    assert check_examples(feed) == ()
    assert feed.columns == ["编号", "类型", "X", "Y"]
    assert feed.class_codes == ("0118",)
    assert feed_digest(feed) == sha256(GOOD.encode()).hex
    assert feed.max_age.days == 7


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ('bureau   = "urban-management"', 'bureau = "x"\nbureaux = 1', "bureaux"),
        ('bureau   = "urban-management"', 'bureau = ""', "bureau: is empty"),
        ('bureau   = "urban-management"', 'bureau = "x"\ndigest = "0"', "digest"),
        ('id       = "lighting-census"', 'id = "lighting"', "id: 'lighting'"),
        ('format   = "table"', 'format = "tables"', "format: 'tables' is none of"),
        ('content  = "snapshot"', 'content = "everything"', "$.content"),
        ('header = "编号"', 'headers = "编号"', "options.headers"),
        ('header = "编号"', "header = 1", "options.header: 1 is not a str"),
        ('format   = "table"', 'format = "vector"', "options.header: the format vector has no such option"),
        ('format   = "table"', 'format = "dxf"', "options.header: the format dxf has no such option"),
        ('"EPSG:4549"', '"4549"', "crs: '4549'"),
        ('"EPSG:4549"', '"EPSG:499999"', "crs: EPSG:499999 is unknown"),
        ('"EPSG:4549"', '"EPSG:4490"', "fields.easting_m: EPSG:4490 has the axes longitude_deg"),
        ("accuracy = 0.5", "accuracy = 0", "accuracy"),
        ("easting_m  =", "height_m  =", "come together"),
        ("source_key =", "key =", "fields.key: is none of"),
        ('{ from = "编号" }', '{ from = "编号", parser = "text" }', "parser"),
        ('parse = "metres" }\neasting', 'parse = "meters" }\neasting', "fields.northing_m.parse: 'meters' is none of"),
        ('parse = "metres" }\neasting', 'parse = "date" }\neasting', "fields.northing_m.parse: date gives Date"),
        ('{ from = "编号" }', "{ from = [] }", "fields.source_key.from"),
        ('lookup = "kind"', 'lookup = "kinds"', "fields.class_code.lookup: there is no [lookups.kinds]"),
        (', lookup = "kind"', "", "lookups.kind: no field uses it"),
        ('source_key = { from = "编号" }', "", "fields.source_key: is missing"),
        ("0118", "0199", "classes: CJ/T 214-2007 has no class '0199'"),
        ("CJ/T 214-2007:", "CJ/T 214-2009:", "classes: 'CJ/T 214-2009:0118' names no edition"),
        ('"单臂路灯" = "0118"', '"单臂路灯" = "0117"', "fields.class_code: gives the class '0117'"),
        ('values   = ["库存"]', "carried = true", "ignore.spare: needs either"),
        ('values   = ["库存"]', "", "ignore.spare: needs either"),
        ('rule     = "spare"', 'rule = "Spare pole"', "ignore.Spare pole"),
        ("[options]", "[defaults]\nowner_names = '甲'\n[options]", "defaults.owner_names"),
        ("[options]", "[defaults]\nheight_m = '1'\n[options]", "defaults.height_m"),
        ("[options]", "[defaults]\nowner_name = ''\n[options]", "defaults.owner_name"),
        ("[options]", "[[tally]]\nname='n'\ntitle='n'\ntitle_zh='n'\nof=[]\n[options]", "tally.n"),
        ("accuracy = 0.5", "sensitive = ['colour']", "sensitive: 'colour'"),
        ("accuracy = 0.5", "gone_limit_percent = 101", "gone_limit_percent"),
        ("[options]", "[options", "lighting-census.toml"),
    ],
)
def test_one_thing_spoilt_is_named_with_its_key(good: str, bad: str, said: str) -> None:
    assert good in GOOD
    with pytest.raises(Misconfigured) as problem:
        read_feed(GOOD.replace(good, bad).encode(), "lighting-census")
    assert str(problem.value).startswith("lighting-census.toml: ")
    assert said in str(problem.value)


@pytest.mark.parametrize("crs", ["local:ningbo-2000", "local:1"])
def test_a_local_system_is_declared_by_its_name_and_counts_in_metres(crs: str) -> None:
    assert read_feed(GOOD.replace("EPSG:4549", crs).encode(), "lighting-census").crs == crs


@pytest.mark.parametrize("crs", ["GCJ-02", "BD-09"])
def test_a_deflected_system_counts_in_degrees(crs: str) -> None:
    with pytest.raises(Misconfigured, match=f"fields.easting_m: {crs} has the axes longitude_deg and latitude_deg"):
        read_feed(GOOD.replace("EPSG:4549", crs).encode(), "lighting-census")
    degrees = (
        GOOD.replace("northing_m ", "latitude_deg").replace("easting_m ", "longitude_deg").replace("metres", "degrees")
    )
    assert read_feed(degrees.replace("EPSG:4549", crs).encode(), "lighting-census").crs == crs


@pytest.mark.parametrize("crs", ["local:", "local:../a", "local:Ningbo", "local:a.toml", "GCJ02", "gcj-02", "WGS84"])
def test_a_system_of_no_known_form_is_refused_and_the_forms_are_named(crs: str) -> None:
    with pytest.raises(Misconfigured, match=r"crs: .* is not of the form EPSG:4549 or local:NAME, and not GCJ-02"):
        read_feed(GOOD.replace("EPSG:4549", crs).encode(), "lighting-census")


def test_an_example_that_holds_with_north_and_east_exchanged_says_which_two_lines_to_write() -> None:
    exchanged = (
        GOOD.replace('"X", parse', '"Z", parse').replace('"Y", parse', '"X", parse').replace('"Z", parse', '"Y", parse')
    )
    unmet = check_examples(read_feed(exchanged.encode(), "lighting-census"))
    assert unmet[-1].endswith(
        'exchanged; write: easting_m = { from = "Y", parse = "metres" }; northing_m = { from = "X", parse = "metres" }'
    )
    far = GOOD.replace("longitude_deg = 121.549", "longitude_deg = 121.649")
    (said,) = check_examples(read_feed(far.encode(), "lighting-census"))
    assert "exchanged" not in said


def test_examples_of_a_system_that_epsg_lacks_are_placed_as_the_caller_says() -> None:
    feed = read_feed(GOOD.replace("EPSG:4549", "local:here").encode(), "lighting-census")
    assert check_examples(feed, lambda x, y: (x * 0 + 121.549, y * 0 + 29.874)) == ()
    unmet = check_examples(feed)
    assert [said.partition(": ")[2].partition(": ")[2] for said in unmet] == [
        "longitude_deg is None, not 121.549",
        "latitude_deg is None, not 29.874",
    ]


def test_a_format_whose_files_name_their_system_is_told_the_feed_s_and_no_option_says_another() -> None:
    assert "crs" not in read_feed(GOOD.encode(), "lighting-census").options
    vector = re.sub(r"(?s)\[options\].*?\n\n", "[options]\nlayer = '路灯'\n\n", GOOD, count=1)
    vector = vector.replace('format   = "table"', 'format = "vector"')
    assert read_feed(vector.encode(), "lighting-census").options == {"layer": "路灯", "crs": "EPSG:4549"}
    with pytest.raises(Misconfigured, match=r"options\.crs"):
        read_feed(vector.replace("layer =", "crs =").encode(), "lighting-census")


def test_what_is_the_machine_s_own_no_feed_says() -> None:
    drawing = re.sub(r"(?s)\[options\].*?\n\n", "[options]\nchord_mm = 10\n\n", GOOD, count=1)
    drawing = drawing.replace('format   = "table"', 'format = "dxf"')
    here = {"dwg2dxf": "/usr/bin/dwg2dxf"}
    assert read_feed(drawing.encode(), "lighting-census", given=here).options == {"chord_mm": 10, **here}
    assert read_feed(GOOD.encode(), "lighting-census", given=here).options == {"header": "编号"}
    with pytest.raises(Misconfigured, match=r"options\.dwg2dxf: the format dxf has no such option"):
        read_feed(drawing.replace("chord_mm = 10", "dwg2dxf = '/tmp/mine'").encode(), "lighting-census")


def test_a_file_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"lighting-census\.toml"):
        read_feed(GOOD.encode("gbk"), "lighting-census")


def test_two_files_cannot_declare_one_feed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lighting-census.toml").write_text(GOOD, encoding="utf-8")
    assert list(load_feeds([tmp_path / "a"])) == ["lighting-census"]
    with pytest.raises(Misconfigured, match="another file already declares"):
        load_feeds([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("folder", ["mappings/feeds", "samples/street_survey/feeds", "samples/water_structures/feeds"])
def test_every_example_of_every_feed_here_holds(folder: str) -> None:
    feeds = load_feeds([ROOT / folder])
    assert feeds
    for feed in feeds.values():
        assert feed.example, feed.id
        assert check_examples(feed) == ()


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (
            'class_code = "0118", longitude',
            'class_code = "0117", longitude',
            "example 1: class_code is '0118', not '0117'",
        ),
        ("longitude_deg = 121.549", "longitude_deg = 121.5491", "example 1: longitude_deg is 121.54"),
        ('ignored = "spare"', 'ignored = "carried"', "example 2: ignored is 'spare', not 'carried'"),
        ('ignored = "spare"', 'finding = "value.lookup_unknown"', "example 2: finding is None"),
        ('"编号" = "LD002"', '"编码" = "LD002"', "example 2: the feed does not read the column '编码'"),
    ],
)
def test_an_example_that_does_not_hold_is_said(good: str, bad: str, said: str) -> None:
    assert good in GOOD
    found = check_examples(read_feed(GOOD.replace(good, bad).encode(), "lighting-census"))
    assert any(said in sentence for sentence in found)


def test_every_feed_that_is_released_says_its_data_level_and_the_command_shows_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["feeds", "--json", "--settings", str(ROOT / "settings.toml")]) == 0
    shown = {feed["id"]: feed for feed in json.loads(capsys.readouterr().out)["feeds"]}
    released = load_feeds([ROOT / "mappings" / "feeds"])
    assert {id: feed["level"] for id, feed in shown.items()} == {id: feed.level for id, feed in released.items()}
    assert all(feed["level"] for feed in shown.values())
    assert shown["security-cameras"]["sensitive"] == released["security-cameras"].sensitive != []
    assert main(["feeds", "--settings", str(ROOT / "settings.toml")]) == 0
    assert "sealed" in capsys.readouterr().out
