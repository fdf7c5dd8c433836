"""Mapping keeps every record: as a candidate, as rejected with its errors, or as left out by a named rule."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.records import CARRIED, CONTENT, GUESSED, RECORD, SHEET
from connectors.formats.table import decode
from mappings.apply import Mapped, map_records, take
from mappings.feed import Feed
from mappings.findings import sentence_of
from mappings.load import read_feed
from mappings.schema import CANDIDATES, FINDINGS
from security.errors import Refusal
from security.message import in_memory

HEAD = """
id = "f"
title = "t"
title_zh = "题"
bureau = "b"
format = "table"
content = "snapshot"
"""

FEED = (
    HEAD
    + """
crs = "EPSG:4549"

[options]
header = "key"
carry_down = "key"

[fields]
source_key   = { from = "key" }
class_code   = { from = ["kind", "size"], join = "/", lookup = "kind" }
easting_m    = { from = "y", parse = "metres" }
northing_m   = { from = "x", parse = "metres" }
owner_name   = { from = "owner" }
owner_code   = { from = "owner code" }
state        = { from = "state", lookup = "state" }
initial_date = { from = "day", parse = "date" }
removed      = { from = "gone", lookup = "gone", parse = "yes_no" }

[lookups.kind]
"lamp"     = "0118"
"lamp/tall" = "0118"
"cover"    = "0101"

[lookups.state]
"good" = "完好"

[lookups.gone]
"D" = "yes"

[defaults]
owner_name       = "Default owner"
owner_code       = "D1"
maintainer_name  = "Default maintainer"
state            = "完好"

[[ignore]]
rule = "again"
title = "t"
title_zh = "题"
carried = true

[[ignore]]
rule = "nothing_there"
title = "t"
title_zh = "题"
from = "kind"
values = ["", "none"]

[[tally]]
name = "keys"
title = "t"
title_zh = "题"
of = ["key"]

[[tally]]
name = "pairs"
title = "t"
title_zh = "题"
of = ["key", "to"]
"""
)
COLUMNS = ["key", "kind", "size", "y", "x", "owner", "owner code", "state", "day", "gone", "to"]


def feed(text: str = FEED) -> Feed:
    return read_feed(text.encode(), "f")


def records(*rows: dict[str, str], delivery: int = 0) -> pl.DataFrame:
    frame = pl.DataFrame([{c: row.get(c) for c in COLUMNS} for row in rows], schema=dict.fromkeys(COLUMNS, pl.String))
    own = pl.DataFrame(
        {
            CONTENT: [delivery] * len(rows),
            RECORD: range(len(rows)),
            SHEET: [None] * len(rows),
            CARRIED: ["again" in row for row in rows],
        },
        schema={CONTENT: pl.UInt32, RECORD: pl.UInt32, SHEET: pl.String, CARRIED: pl.Boolean},
    )
    return take(pl.concat([own, frame], how="horizontal"), feed())


def mapped(*rows: dict[str, str]) -> Mapped:
    return map_records(records(*rows), feed())


def candidate(**row: str) -> dict[str, object]:
    return mapped({"key": "K", "kind": "lamp", **row}).candidates.row(0, named=True)


def test_x_is_east_and_y_is_north_whatever_the_source_calls_them() -> None:
    got = candidate(x="3307153.91", y="649654.95")
    assert (got["x"], got["y"]) == (649654.95, 3307153.91)


def test_columns_are_put_together_without_the_empty_ones() -> None:
    assert candidate(size="tall")["class_code"] == candidate()["class_code"] == "0118"


def test_text_is_trimmed_and_an_empty_text_is_nothing_said() -> None:
    got = candidate(key="　K1 ", owner="  ")
    assert (got["source_key"], got["owner_name"]) == ("K1", "Default owner")


def test_a_lookup_may_stand_before_a_parse_function() -> None:
    assert candidate(gone="D")["removed"] is True
    assert candidate()["removed"] is None


def test_a_role_is_stated_default_or_unknown() -> None:
    silent, stated = candidate(), candidate(owner="Somebody")
    assert (silent["owner_name"], silent["owner_code"], silent["owner_basis"]) == ("Default owner", "D1", "default")
    assert (silent["maintainer_name"], silent["maintainer_basis"]) == ("Default maintainer", "default")
    assert (silent["authority_name"], silent["authority_basis"]) == (None, None)
    # The default's code never stands beside the name that a record states.
    assert (stated["owner_name"], stated["owner_code"], stated["owner_basis"]) == ("Somebody", None, "stated")


def test_a_default_fills_what_was_not_said_and_never_what_was_said_wrongly() -> None:
    assert candidate()["state"] == "完好"
    got = mapped({"key": "K", "kind": "lamp", "state": "odd"})
    assert got.candidates.height == 0
    assert got.findings.select("code", "field", "severity", "value").rows() == [
        ("value.lookup_unknown", "state", "error", "odd")
    ]


def test_a_rejected_record_says_every_field_that_cannot_be_read() -> None:
    got = mapped({"key": "A", "kind": "lamp"}, {"key": "B", "kind": "tree", "day": "soon", "x": "far", "gone": "Z"})
    assert got.candidates["source_key"].to_list() == ["A"]
    assert got.findings.select("record", "code", "field", "value").rows() == [
        (1, "value.lookup_unknown", "class_code", "tree"),
        (1, "value.not_readable", "northing_m", "far"),
        (1, "value.not_readable", "initial_date", "soon"),
        (1, "value.lookup_unknown", "removed", "Z"),
    ]


def test_a_long_value_is_cut_in_its_finding() -> None:
    assert mapped({"key": "A", "kind": "树" * 200}).findings["value"].to_list() == ["树" * 80]


def test_the_first_rule_that_fits_leaves_a_record_out_by_name() -> None:
    got = mapped({"key": "A"}, {"key": "A", "again": "yes"}, {"key": "B", "kind": "none", "x": "far"})
    assert got.candidates.height == 0
    assert got.findings.select("code", "field", "severity", "value").rows() == [
        ("ignored.nothing_there", "kind", "ignored", None),
        ("ignored.again", None, "ignored", None),
        ("ignored.nothing_there", "kind", "ignored", "none"),
    ]
    assert all(sentence_of(code) for code in got.findings["code"])


def test_a_pair_into_another_feed_is_counted_where_its_lesser_end_is() -> None:
    here = mapped(
        {"key": "B1", "to": "B2"}, {"key": "B2", "to": "B1"}, {"key": "B2", "to": "A1"}, {"key": "B1", "to": "C1"}
    )
    there = mapped({"key": "A1", "to": "B2"})
    assert here.tallies.rows() == [(0, "keys", 2), (0, "pairs", 2)]
    assert there.tallies.rows() == [(0, "keys", 1), (0, "pairs", 1)]


def test_deliveries_mapped_together_come_out_as_they_would_alone() -> None:
    first, second = [{"key": "A", "kind": "lamp"}, {"key": "B", "to": "A"}], [{"key": "A", "kind": "tree"}]
    both = map_records(pl.concat([records(*first, delivery=0), records(*second, delivery=1)]), feed())
    for number, rows in enumerate((first, second)):
        alone = map_records(records(*rows, delivery=number), feed())
        mine = pl.col("delivery") == number
        assert both.candidates.filter(mine).equals(alone.candidates)
        assert both.findings.filter(mine).equals(alone.findings)
        assert both.tallies.filter(mine).sort("name").equals(alone.tallies.sort("name"))


def test_a_column_that_the_feed_reads_and_the_source_lacks_is_refused_by_name() -> None:
    lacking = records({"key": "A"}).drop("x", "day")
    for refused in (lambda: take(lacking, feed()), lambda: map_records(lacking, feed())):
        with pytest.raises(Refusal, match=r"mapping\.column_missing") as problem:
            refused()
        assert set(problem.value.detail.split(", ")) == {"x", "day"}


def test_a_feed_may_read_the_sheet_s_name() -> None:
    text = (
        HEAD
        + 'crs = "EPSG:4549"\n[fields]\nsource_key = { from = ["#sheet", "k"], join = "-" }\n'
        + '[defaults]\nclass_code = "0101"\n'
    )
    frame = pl.concat([batch.frame for batch in decode([in_memory(b"k,v\n1,2\n")], {})]).with_columns(
        pl.lit("J").alias(SHEET)
    )
    got = map_records(take(frame, feed(text)), feed(text))
    assert got.candidates["source_key"].to_list() == ["J-1"]


def test_no_records_give_no_rows_in_the_declared_columns() -> None:
    got = mapped()
    assert (dict(got.candidates.schema), dict(got.findings.schema)) == (CANDIDATES, FINDINGS)
    assert got.candidates.height == got.findings.height == got.tallies.height == 0


WORDS = {
    "key": ["A", "B", " ", ""],
    "kind": ["lamp", "cover", "tree", "none", "", " lamp "],
    "size": ["tall", ""],
    "y": ["1", "nan", "x", ""],
    "x": ["3307153.91", "1e400", ""],
    "owner": ["O", ""],
    "state": ["good", "bad", ""],
    "day": ["2022-09-05", "2022-02-30", ""],
    "gone": ["D", "E", ""],
    "to": ["A", "B", ""],
}
ROW = st.fixed_dictionaries(
    {column: st.sampled_from(words) for column, words in WORDS.items()}, optional={"again": st.just("yes")}
)


@given(st.lists(st.lists(ROW, max_size=6), min_size=1, max_size=3))
@settings(max_examples=150)
def test_every_record_is_one_candidate_or_rejected_or_left_out_by_one_rule(
    deliveries: list[list[dict[str, str]]],
) -> None:
    source = pl.concat([records(*rows, delivery=number) for number, rows in enumerate(deliveries)])
    got = map_records(source, feed())
    assert (dict(got.candidates.schema), dict(got.findings.schema)) == (CANDIDATES, FINDINGS)
    candidates = got.candidates.select("delivery", "record").rows()
    ignored = got.findings.filter(pl.col("severity") == "ignored").select("delivery", "record").rows()
    rejected = set(got.findings.filter(pl.col("severity") == "error").select("delivery", "record").rows())
    assert sorted([*candidates, *ignored, *rejected]) == sorted(source.select("delivery", RECORD).rows())


def test_a_guessed_encoding_is_said_of_each_record_that_is_taken_and_of_no_other() -> None:
    rows = [{"key": "1", "kind": "lamp"}, {"key": "2", "kind": "?"}, {"key": "3", "kind": "none"}]
    frame = records(*rows, {"key": "4", "kind": "lamp"})
    guessed = frame.with_columns(pl.Series(GUESSED, ["gb18030"] * 3 + [None]))
    told = map_records(guessed, feed())
    assert told.candidates["record"].to_list() == [0, 3]
    findings = told.findings.select("record", "code", "severity", "value").rows()
    assert findings[0] == (0, "text.encoding_guessed", "warning", "gb18030")
    assert [(record, code) for record, code, *_ in findings[1:]] == [
        (1, "value.lookup_unknown"),
        (2, "ignored.nothing_there"),
    ]
    assert take(guessed.rename({"delivery": CONTENT}), feed())[GUESSED].to_list() == guessed[GUESSED].to_list()
