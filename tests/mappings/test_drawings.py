"""From a drawing's records to candidates: code, else block, else layer; sets of classes; numbers beside symbols."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.records import CARRIED, RECORD, SHEET
from mappings.apply import Mapped, map_records
from mappings.feed import Feed
from mappings.load import read_feed
from security.errors import Misconfigured

FEED = """
id = "f"
title = "t"
title_zh = "题"
bureau = "b"
format = "table"
content = "snapshot"
crs = "EPSG:4549"

[fields]
source_key  = { from = "key" }
class_code  = { from = ["code", "block", "layer"], lookup = ["codes", "blocks", "layers"] }
network     = { from = "layer", lookup = "networks" }
easting_m   = { from = "x", parse = "metres" }
northing_m  = { from = "y", parse = "metres" }

[lookups.codes]
"174200" = "0102|0103"
"340101" = "0101"

[lookups.blocks]
"gc130" = "0118"

[lookups.layers]
"LAMPS" = "0118"

[lookups.networks]
"LPOINT" = "L"
"LTEXT"  = "L"
"DPOINT" = "D"
"DTEXT"  = "D"
"LAMPS"  = "L"

[[ignore]]
rule = "drawn_part"
title = "t"
title_zh = "题"
from = "code"
endings = ["-1", "-2"]

[[ignore]]
rule = "lettering"
title = "t"
title_zh = "题"
from = "entity"
values = ["TEXT"]

[label]
from     = "text"
among    = "entity"
values   = ["TEXT"]
pattern  = "[LD][0-9]+"
within_m = 3.0
"""
COLUMNS = ("key", "entity", "layer", "block", "code", "x", "y", "text")


def a_feed(text: str = FEED) -> Feed:
    return read_feed(text.encode(), "f")


def mapped(*rows: dict[str, object], feed: Feed | None = None) -> Mapped:
    frame = pl.DataFrame(
        [
            {"delivery": 0, RECORD: number, SHEET: row.get("layer"), CARRIED: False, **{c: row.get(c) for c in COLUMNS}}
            for number, row in enumerate(rows)
        ],
        schema={
            "delivery": pl.UInt32,
            RECORD: pl.UInt32,
            SHEET: pl.String,
            CARRIED: pl.Boolean,
            **dict.fromkeys(COLUMNS, pl.String),
        },
    )
    return map_records(frame, feed or a_feed())


def a_symbol(key: str, x: float = 0, y: float = 0, **said: str) -> dict[str, object]:
    return {"key": key, "entity": "INSERT", "layer": "LPOINT", "code": "340101", "x": str(x), "y": str(y), **said}


def a_text(text: str, x: float, y: float = 0, layer: str = "LTEXT") -> dict[str, object]:
    return {"key": text, "entity": "TEXT", "layer": layer, "x": str(x), "y": str(y), "text": text}


def labels(*rows: dict[str, object]) -> dict[str, str]:
    return dict(mapped(*rows).candidates.select("source_key", "label").rows())


def test_the_code_decides_else_the_block_else_the_layer() -> None:
    done = mapped(
        a_symbol("by code", code="174200", block="gc130", layer="LAMPS"),
        a_symbol("by block", code="999999", block="gc130"),
        a_symbol("by layer", code="", block="gc999", layer="LAMPS"),
    )
    assert done.candidates["class_code"].to_list() == ["0102|0103", "0118", "0118"]
    assert done.findings.is_empty()


def test_what_nothing_maps_is_told_with_all_that_it_said() -> None:
    (finding,) = mapped(a_symbol("?", code="555", block="gc999")).findings.rows(named=True)
    assert (finding["code"], finding["field"], finding["value"]) == (
        "value.lookup_unknown",
        "class_code",
        "555 gc999 LPOINT",
    )


def test_a_drawn_part_of_an_object_is_left_out_by_how_its_code_ends() -> None:
    done = mapped(a_symbol("whole"), a_symbol("part", code="340101-1"), a_symbol("part", code="340101-2"))
    assert done.candidates.height == 1
    assert done.findings["code"].to_list() == ["ignored.drawn_part"] * 2


def test_a_number_beside_a_symbol_is_its_label() -> None:
    assert labels(a_symbol("A", 0), a_text("L7", 1), a_symbol("B", 50), a_text("L8", 51)) == {"A": "L7", "B": "L8"}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([a_symbol("A"), a_text("L7", 3.5)], "too far"),
        ([a_symbol("A"), a_text("L7", 1, layer="DTEXT")], "of another network"),
        ([a_symbol("A"), a_text("28/8", 1)], "no number"),
        ([a_symbol("A"), a_text("xL7", 1)], "not as a whole"),
        ([a_symbol("A", 0), a_symbol("A2", 1.2), a_text("L7", 1.5)], "another symbol is nearer to it"),
    ],
)
def test_a_text_is_nobody_s_number(rows: list[dict[str, object]], why: str) -> None:
    assert labels(*rows)["A"] is None, why


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12),
)
def test_no_number_is_borne_by_two_symbols_and_each_is_the_nearest(symbols, texts) -> None:  # type: ignore[no-untyped-def]  # given by hypothesis
    rows = [a_symbol(f"S{n}", *at) for n, at in enumerate(symbols)]
    rows += [a_text(f"L{n}", *at) for n, at in enumerate(texts)]
    if not rows:
        return
    borne = {key: label for key, label in labels(*rows).items() if label is not None}
    assert len({*borne.values()}) == len(borne)
    for key, label in borne.items():
        (x, y), (u, v) = symbols[int(key[1:])], texts[int(label[1:])]
        far = (x - u) ** 2 + (y - v) ** 2
        assert far <= 9
        assert all((x - a) ** 2 + (y - b) ** 2 >= far for a, b in texts)
        assert all((u - a) ** 2 + (v - b) ** 2 >= far for a, b in symbols)


def test_each_record_is_told_to_stand_in_its_layer() -> None:
    done = mapped(a_symbol("A"), a_text("L7", 1))
    assert done.parts.rows() == [(0, 0, "LPOINT"), (0, 1, "LTEXT")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('lookup = ["codes", "blocks", "layers"]', 'lookup = ["codes", "blocks"]', "one lookup for each column"),
        ('lookup = ["codes", "blocks", "layers"]', 'lookup = ["codes", "blocks", "nowhere"]', "no such code list"),
        ('endings = ["-1", "-2"]', "", "`values` or `endings`"),
        ('pattern  = "[LD][0-9]+"', 'pattern  = "["', "label.pattern"),
        ("within_m = 3.0", "within_m = 0.0", "label.within_m"),
        ('crs = "EPSG:4549"', 'crs = "EPSG:4490"', "fields.easting_m"),
    ],
)
def test_a_mistake_in_the_file_stops_the_start_and_names_the_key(old: str, new: str, said: str) -> None:
    assert old in FEED
    with pytest.raises(Misconfigured, match=said):
        a_feed(FEED.replace(old, new))
