"""From a drawing's records to candidates: code, else block, else layer; sets of classes; numbers beside symbols."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mappings.labels
from connectors.formats.records import CARRIED, RECORD, SHEET
from exchange.outcomes import told_by_of
from mappings.apply import Mapped, map_records
from mappings.feed import Feed
from mappings.load import read_feed
from mappings.schema import KEY, READINGS
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


def test_what_told_the_class_stands_with_it_and_a_less_sure_sign_is_said() -> None:
    done = mapped(
        a_symbol("by code"),
        a_symbol("by block", code="999999", block="gc130"),
        a_symbol("by layer", block="gc999", layer="LAMPS", code=""),
    )
    assert done.candidates["class_basis"].to_list() == ["codes", "blocks", "layers"]
    assert done.findings.select("record", "code", "field", "severity", "value").rows() == [
        (1, "class.by_fallback", "block", "warning", "gc130"),
        (2, "class.by_fallback", "layer", "warning", "LAMPS"),
    ]


def test_two_lookups_of_the_first_column_are_both_sure() -> None:
    text = FEED.replace('["code", "block", "layer"]', '["code", "code", ["layer", "block"]]')
    text = text.replace('["codes", "blocks", "layers"]', '["blocks", "codes", "layers"]')
    feed = a_feed(text.replace('"LAMPS" = "0118"\n\n', '"LAMPS lamp" = "0118"\n\n'))
    done = mapped(a_symbol("code"), a_symbol("both", code="", layer="LAMPS", block="lamp"), feed=feed)
    assert done.candidates["class_basis"].to_list() == ["codes", "layers"]
    assert done.findings.select("record", "field", "value").rows() == [(1, "layer, block", "LAMPS lamp")]


def test_a_feed_with_one_lookup_says_nothing_of_how_sure_it_is() -> None:
    text = FEED.replace(
        '["code", "block", "layer"], lookup = ["codes", "blocks", "layers"]', '"code", lookup = "codes"'
    )
    done = mapped(
        a_symbol("A"),
        feed=a_feed(text.replace('[lookups.blocks]\n"gc130" = "0118"\n\n[lookups.layers]\n"LAMPS" = "0118"\n', "")),
    )
    assert (done.candidates["class_basis"].to_list(), done.findings.height) == ([None], 0)


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


BY_OFFSET = FEED + 'repeated = 3\nsymbols = ["INSERT"]\n'
RIGHT, BELOW = (1.0, 0.5), (0.25, -2.0)


def numbered(*symbols: tuple[str, float, float, tuple[float, float]]) -> list[dict[str, object]]:
    """Symbols, and their numbers `L` and the symbol's own at an offset."""
    rows = [a_symbol(name, x, y) for name, x, y, _ in symbols]
    return rows + [a_text(f"L{name}", x + dx, y + dy) for name, x, y, (dx, dy) in symbols]


def labels_by_offset(rows: list[dict[str, object]]) -> dict[str, str]:
    return dict(mapped(*rows, feed=a_feed(BY_OFFSET)).candidates.select("source_key", "label").rows())


CROWDED = numbered(
    *((str(n), 20.0 * n, 0.0, RIGHT) for n in range(1, 6)),
    *((str(n), 20.0 * n, 0.0, BELOW) for n in range(6, 10)),
    ("11", 300.0, 0.0, RIGHT),
    ("12", 301.2, 0.0, BELOW),  # nearer to the number of 11 than 11 is
    ("13", 400.0, 0.0, (-0.5, 0.3)),  # an offset that no other has
)


@given(st.permutations(CROWDED))
@settings(max_examples=20)
def test_where_a_drawing_has_its_numbers_tells_whose_they_are_in_any_order(rows: list[dict[str, object]]) -> None:
    found = labels_by_offset(rows)
    assert found == {**{str(n): f"L{n}" for n in (*range(1, 10), 11, 12)}, "13": None}


def test_a_number_of_what_is_no_component_is_not_its_neighbour_s() -> None:
    kerb = {**a_symbol("kerb", 500.0, 0.0), "code": "340101-1"}  # left out by rule, and numbered
    rows = [*CROWDED, kerb, a_text("L99", 501.0, 0.5), a_symbol("cover", 500.75, 2.5)]
    assert labels_by_offset(rows)["cover"] is None
    assert labels_by_offset([row for row in rows if row is not kerb])["cover"] == "L99"


def test_a_number_that_stands_alike_to_two_symbols_stays_open() -> None:
    rows = [*CROWDED, a_symbol("14", 600.0), a_symbol("15", 600.0), a_text("L14", 601.0, 0.5)]
    assert (labels_by_offset(rows)["14"], labels_by_offset(rows)["15"]) == (None, None)


def test_a_text_drawn_twice_over_is_one_number() -> None:
    assert labels_by_offset([*CROWDED, a_text("L1", 21.0, 0.5)])["1"] == "L1"


def test_so_many_at_one_place_that_nobody_could_tell_bear_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mappings.labels, "MOST_PAIRS", 5)
    assert set(labels_by_offset(CROWDED).values()) == {None}


def test_each_record_is_told_to_stand_in_its_layer() -> None:
    done = mapped(a_symbol("A"), a_text("L7", 1))
    assert done.parts.rows() == [(0, 0, "LPOINT"), (0, 1, "LTEXT")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('lookup = ["codes", "blocks", "layers"]', 'lookup = ["codes", "blocks"]', "one lookup for each member"),
        ('lookup = ["codes", "blocks", "layers"]', 'lookup = ["codes", "blocks", "nowhere"]', "no such code list"),
        ('from = ["code", "block", "layer"]', 'from = ["code", [], "layer"]', "names no column"),
        (
            'from = ["code", "block", "layer"], lookup = ["codes", "blocks", "layers"]',
            'from = ["code", ["block", "layer"]], lookup = "codes"',
            "a lookup of their own",
        ),
        ('endings = ["-1", "-2"]', "", "`values` or `endings`"),
        ("within_m = 3.0", "within_m = 3.0\nrepeated = 1", "label.repeated"),
        ('pattern  = "[LD][0-9]+"', 'pattern  = "["', "label.pattern"),
        ("within_m = 3.0", "within_m = 0.0", "label.within_m"),
        ('crs = "EPSG:4549"', 'crs = "EPSG:4490"', "fields.easting_m"),
    ],
)
def test_a_mistake_in_the_file_stops_the_start_and_names_the_key(old: str, new: str, said: str) -> None:
    assert old in FEED
    with pytest.raises(Misconfigured, match=said):
        a_feed(FEED.replace(old, new))


def test_a_report_counts_the_accepted_by_what_told_their_class() -> None:
    done = mapped(a_symbol("A"), a_symbol("B"), a_symbol("C"), a_symbol("D", code="", block="gc130"))
    became = ["new", "unchanged", "rejected", "new"]
    outcomes = done.candidates.select(*KEY, outcome=pl.Series(became))
    assert told_by_of(done.candidates, outcomes, 2) == [{"codes": 2, "blocks": 1}, {}]
    assert told_by_of(pl.DataFrame(schema=READINGS), outcomes, 1) == [{}]
