"""Tables of every kind give the same records, and bytes that are not what the feed says are refused by code."""

import datetime
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import openpyxl  # type: ignore[import-untyped]  # it ships no types
import polars as pl
import pytest
import xlwt
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats import table, workbook
from connectors.formats.catalogue import formats
from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET, Options
from connectors.formats.workbook_process import text_of
from security.errors import Refusal
from security.message import in_memory

CSV = "编号,类型,X\nLD1,路灯,3307153.91\nLD2,,\n"


def decode(octets: bytes, **options: str | int | bool | list[str]) -> pl.DataFrame:
    return pl.concat([batch.frame for batch in table.decode([in_memory(octets)], options)]).drop(CONTENT)


def refusal(octets: bytes, options: Options) -> str:
    with pytest.raises(Refusal) as refused:
        list(table.decode([in_memory(octets)], options))
    return refused.value.code


def outcome(octets: bytes) -> str:
    """`decode.done` or the refusal's code."""
    try:
        decode(octets)
    except Refusal as refused:
        return refused.code
    return "decode.done"


def xlsx(**sheets: list[list[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def xls(rows: list[list[object]], merged: Sequence[tuple[int, int, int, int]] = ()) -> bytes:
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    covered = {
        (row, column): (top, left)
        for top, bottom, left, right in merged
        for row in range(top, bottom + 1)
        for column in range(left, right + 1)
    }
    for top, bottom, left, right in merged:
        sheet.write_merge(top, bottom, left, right, rows[top][left])
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            if cell is not None and (row, column) not in covered:
                sheet.write(row, column, cell)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_the_catalogue_finds_the_format_by_its_name() -> None:
    assert formats()["table"].OPTIONS is table.OPTIONS
    assert "workbook" not in formats()


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030"])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_text_in_every_encoding_and_delimiter_gives_the_same_records(
    encoding: str, declared: bool, delimiter: str
) -> None:
    options = {"encoding": encoding.removesuffix("-sig")} if declared else {}
    frame = decode(CSV.replace(",", delimiter).encode(encoding), **options)
    assert frame.columns == [RECORD, SHEET, CARRIED, "编号", "类型", "X"]
    assert frame.rows() == [(0, None, False, "LD1", "路灯", "3307153.91"), (1, None, False, "LD2", None, None)]


def test_characters_outside_gbk_come_through_gb18030() -> None:
    assert decode("路名\n䶮溪路\n".encode("gb18030"), encoding="gb18030")["路名"].to_list() == ["䶮溪路"]


@pytest.mark.parametrize(
    ("octets", "options", "code"),
    [
        (CSV.encode("gbk"), {"encoding": "utf-8"}, "decode.encoding_wrong"),
        ("编号\n䶮\n".encode(), {"encoding": "gbk"}, "decode.encoding_wrong"),
        (CSV.encode("utf-8-sig"), {"encoding": "gb18030"}, "decode.encoding_wrong"),
        (CSV.encode(), {"encoding": "big5"}, "decode.encoding_unknown"),
        (CSV.encode("utf-16"), {}, "decode.encoding_unknown"),
        (b"a,b\n\xff\xff\xff,1\n", {}, "decode.encoding_unknown"),
        (b"a,b\n\x00,1\n", {}, "decode.encoding_unknown"),
        (b"", {}, "decode.header_not_found"),
        (CSV.encode(), {"header": "设施编号"}, "decode.header_not_found"),
        (CSV.encode(), {"carry_down": "设施编号"}, "decode.header_not_found"),
        (b"a,b,a\n1,2,3\n", {}, "decode.header_doubled"),
        (b"a,#record\n1,2\n", {}, "decode.header_doubled"),
        (b"a,b\n1,2,3\n", {"header": "a"}, "decode.row_too_long"),
        (b'a,b\n"1,2\n', {}, "decode.not_readable"),
        (b"a,b\n" + b"x" * (table.CELL_CHARACTERS + 1) + b",1\n", {}, "decode.too_large"),
        (",".join(f"c{n}" for n in range(501)).encode() + b"\n" + b"1," * 500 + b"1\n", {}, "decode.too_large"),
    ],
)
def test_text_that_is_not_what_the_feed_says_is_refused(octets: bytes, options: Options, code: str) -> None:
    assert refusal(octets, options) == code


def test_a_gb18030_body_cut_in_the_middle_of_a_character_is_refused() -> None:
    octets = CSV.encode("gb18030")
    assert refusal(octets[: octets.index("路灯".encode("gb18030")) + 1], {}) == "decode.encoding_unknown"


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", 3)
    assert decode(b"a\n1\n2\n3\n").height == 3
    assert refusal(b"a\n1\n2\n3\n4\n", {}) == "decode.too_large"


@pytest.mark.parametrize("options", [{}, {"carry_down": "编号"}])
def test_a_header_alone_is_a_batch_without_records(options: Options) -> None:
    (batch,) = table.decode([in_memory("编号,类型\n".encode())], options)
    assert (batch.frame.height, batch.frame.columns[4:]) == (0, ["编号", "类型"])


def test_quotes_hold_delimiters_and_line_breaks() -> None:
    assert decode('编号,位置\nLD1,"甲路,\n乙路"\n'.encode())["位置"].to_list() == ["甲路,\n乙路"]


def test_titles_above_the_header_and_blank_rows_are_no_records() -> None:
    octets = "路灯普查成果,,\n单位：,,\n编号,类型,X\nLD1,路灯,1\n,,\nLD2,路灯,2\n".encode()
    frame = decode(octets)
    assert frame["编号"].to_list() == ["LD1", "LD2"]
    assert frame[RECORD].to_list() == [0, 1]
    assert frame.equals(decode(octets, header="类型"))


def test_without_merged_cells_the_feed_says_how_many_header_rows() -> None:
    frame = decode("编号,坐标,,备注\n,X,Y,\nLD1,1,2,三\n".encode(), header="编号", header_rows=2)
    assert frame.columns[3:] == ["编号", "坐标/X", "坐标/Y", "备注"]


def test_short_rows_and_columns_without_a_name() -> None:
    frame = decode("编号,,类型\nLD1,x,路灯\nLD2\n".encode(), header="编号")
    assert frame.select("编号", "类型").rows() == [("LD1", "路灯"), ("LD2", None)]
    assert frame.width == 5


def test_an_empty_first_cell_repeats_the_value_above_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "RECORDS_PER_BATCH", 2)
    octets = "点号,连接\n,A0\nA1,A2\n ,A3\n,A4\nA2,A1\n".encode()
    frame = decode(octets, carry_down="点号")
    assert frame["点号"].to_list() == [None, "A1", "A1", "A1", "A2"]
    assert frame[CARRIED].to_list() == [False, False, True, True, False]


def test_contents_with_the_same_columns_share_a_batch_and_keep_their_records_apart() -> None:
    contents = [in_memory(octets) for octets in (b"k,v\n1,a\n2,\n", b"k,v\n,b\n", b"k,v\n", b"k,w\n3,c\n")]
    first, second = (batch.frame for batch in table.decode(contents, {"carry_down": "k"}))
    assert first.select(CONTENT, RECORD, "k", "v").rows() == [(0, 0, "1", "a"), (0, 1, "2", None), (1, 0, None, "b")]
    assert second.select(CONTENT, RECORD, "k", "w").rows() == [(3, 0, "3", "c")]


def test_batches_hold_at_most_fifty_thousand_records_numbered_through() -> None:
    octets = b"a\n" + b"1\n" * (RECORDS_PER_BATCH + 1)
    first, second = (batch.frame for batch in table.decode([in_memory(octets)], {}))
    assert (first.height, second.height, second[RECORD][0]) == (RECORDS_PER_BATCH, 1, RECORDS_PER_BATCH)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="gb18030", exclude_characters="\0\r"), max_size=8), st.integers().map(str)
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=50)
def test_what_a_csv_writer_writes_is_read_back(rows: list[tuple[str, str]]) -> None:
    import csv

    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerows([("名", "号"), *rows])
    frame = decode(stream.getvalue().encode("gb18030"), encoding="gb18030", header="名")
    assert frame.select("名", "号").rows() == [(name or None, number) for name, number in rows]


# Spreadsheets


def test_excel_of_both_kinds_gives_the_same_text() -> None:
    rows: list[list[object]] = [
        ["编号", "X", "数", "日", "时", "是"],
        ["LD1", 491447.32, 12, datetime.date(2022, 9, 5), datetime.datetime(2022, 9, 5, 8, 30), True],
    ]
    old = xls([[value if not isinstance(value, datetime.date) else str(value) for value in row] for row in rows])
    new = decode(xlsx(S=rows))
    assert new.rows() == [(0, "S", False, "LD1", "491447.32", "12", "2022-09-05", "2022-09-05 08:30:00", "TRUE")]
    assert decode(old).rows() == new.rows()


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (491447.32, "491447.32"),
        (12.0, "12"),
        (330203005012007.0, "330203005012007"),
        (1e-05, "0.00001"),
        (1e20, "1" + "0" * 20),
        (True, "TRUE"),
        (datetime.time(8, 30), "08:30:00"),
        (datetime.datetime(2022, 9, 5), "2022-09-05"),
    ],
)
def test_a_cell_is_spelled_without_exponent_or_needless_zero(cell: object, text: str) -> None:
    assert text_of(cell) == text  # type: ignore[arg-type]  # the parameters are of several kinds


def test_merged_header_cells_are_filled_and_joined() -> None:
    rows: list[list[object]] = [
        ["成果表", None, None, None],
        ["点号", "坐标\n(m)", None, "备注"],
        [None, "X", "Y", None],
        ["A1", 1.5, 2, "三"],
    ]
    octets = xls(rows, [(0, 0, 0, 3), (1, 2, 0, 0), (1, 1, 1, 2), (1, 2, 3, 3)])
    frame = decode(octets, header="点号")
    assert frame.columns[3:] == ["点号", "坐标(m)/X", "坐标(m)/Y", "备注"]
    assert frame.rows()[0][3:] == ("A1", "1.5", "2", "三")


def test_several_sheets_are_read_in_the_order_asked_and_numbered_through() -> None:
    octets = xlsx(A=[["k"], [1]], B=[["k"], [2], [3]], C=[["other"]])
    frame = decode(octets, sheet=["B", "A"])
    assert frame.select(RECORD, SHEET, "k").rows() == [(0, "B", "2"), (1, "B", "3"), (2, "A", "1")]


def test_sheets_are_never_guessed() -> None:
    octets = xlsx(A=[["k"], [1]], B=[["k"], [2]])
    assert refusal(octets, {}) == "decode.sheet_unclear"
    assert refusal(octets, {"sheet": "Z"}) == "decode.sheet_missing"
    assert decode(xlsx(A=[["k"], [1]], B=[])).height == 1


def test_a_truncated_workbook_is_refused_at_every_length() -> None:
    octets = xlsx(A=[["k"], [1], [2]])
    for length in range(4, len(octets), len(octets) // 20):
        assert refusal(octets[:length], {}) == "decode.not_readable"


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=6))
@settings(max_examples=40)
def test_a_damaged_workbook_is_read_or_refused_and_nothing_else(at: int, patch: bytes) -> None:
    octets = bytearray(xlsx(A=[["k", "v"], *([n, f"text {n}"] for n in range(20))]))
    at %= len(octets)
    octets[at : at + len(patch)] = patch
    assert outcome(bytes(octets)).startswith("decode.")


@given(st.integers(512, 6000), st.binary(min_size=1, max_size=6))
@settings(max_examples=40)
def test_a_damaged_excel_97_file_is_read_or_refused_and_nothing_else(at: int, patch: bytes) -> None:
    octets = bytearray(xls([["k", "v"], *([n, f"text {n}"] for n in range(20))]))
    octets[at : at + len(patch)] = patch
    assert outcome(bytes(octets)).startswith("decode.")


def repacked(octets: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(octets)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return stream.getvalue()


def test_a_zip_bomb_costs_the_reader_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MEMORY_BYTES", 200 << 20)
    octets = repacked(xlsx(A=[["k"], ["v"]]), lambda _, part: part.replace(b">v<", b">" + b"v" * (100 << 20) + b"<"))
    assert len(octets) < 1 << 20
    assert refusal(octets, {}) == "decode.too_large"


def test_a_reader_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "WAIT_S", 0.001)
    assert refusal(xlsx(A=[["k"], [1]]), {}) == "decode.too_large"


@pytest.mark.parametrize("corner", [b"XFD1048576", b"A20000000"])
def test_two_far_cells_that_would_unfold_into_a_huge_rectangle_are_refused(
    corner: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook, "WAIT_S", 2.0)
    octets = repacked(xlsx(A=[["k"], [1]]), lambda _, part: part.replace(b'r="A2"', b'r="' + corner + b'"'))
    assert refusal(octets, {}) == "decode.too_large"


def test_a_zip_that_is_no_workbook_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as package:
        package.writestr("readme.txt", "hello")
    assert refusal(stream.getvalue(), {}) == "decode.not_readable"


# Read as columns, where nothing is quoted

# What a cell may hold that a reader of columns may take otherwise than a reader of rows; never a quote.
CELLS = st.text(st.sampled_from(list("aé井 \t\x1c\x1f\x0b\x85\u3000\u2028#0.;'\\")), max_size=4)
LINES = st.lists(
    st.one_of(st.lists(CELLS, max_size=5).map(",".join), st.just(""), st.just(",,"), st.just(" , ")), max_size=60
)


def records(octets: bytes, options: Options, monkeypatch: pytest.MonkeyPatch, above: int) -> object:
    """Names and rows, or the code of the refusal; read as columns where the text is longer than `above`."""
    with monkeypatch.context() as patched:
        patched.setattr(table, "PLAIN_ABOVE", above)
        try:
            frames = [batch.frame for batch in table.decode([in_memory(octets)], options)]
        except Refusal as refused:
            return refused.code
    frame = pl.concat(frames)
    return frame.columns, frame.rows()


@settings(max_examples=300)
@given(
    LINES,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "gb18030"]),
    st.sampled_from(["", "title,,\nof a table,,\n"]),
    st.booleans(),
)
def test_columns_and_rows_are_read_alike(lines: list[str], ending: str, encoding: str, above: str, last: bool) -> None:
    whole = [f"{above}key,name,", *(f"k{number},n," for number in range(60)), *lines]
    octets = ("\n".join(whole).replace("\n", ending) + (ending if last else "")).encode(encoding)
    with pytest.MonkeyPatch.context() as patched:
        for options in ({"header": "key"}, {"header": "key", "header_rows": 2}, {"header": "nowhere"}):
            as_rows = records(octets, options, patched, 1 << 30)
            assert records(octets, options, patched, 0) == as_rows


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"key,name\n" + b"k,n\n" * 70 + b"k,n,more\n", "a row is longer than the header"),
        (b"key,name\n" + b"k,n\n" * 70 + b"k," + b"x" * 40_000 + b"\n", "a cell is too long"),
        (b"key,name\n" + b"k,n\n" * 70 + b'k,"n\n2"\n', "a cell is quoted"),
        (b"key\n" + b"k\n" * 70, "there is no delimiter"),
        (b"key,name\n" + b"k,n\n" * 70 + b"k,\xff\n", "a byte is wrong"),
        (b"key,name\n" + b"k,n\n" * 70 + b"k,\0\n", "it is no text"),
    ],
)
def test_what_columns_cannot_say_rows_say(octets: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_rows = records(octets, {"header": "key"}, monkeypatch, 1 << 30)
    assert records(octets, {"header": "key"}, monkeypatch, 0) == as_rows, why


def test_a_large_text_without_quotes_is_read_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_rows", lambda lines, delimiter: iter([["key", "name"]] + [["k", "n"]] * 49))
    octets = b"key,name\n" + b"".join(b"k%d,n\n" % number for number in range(150_000))
    frames = [batch.frame for batch in table.decode([in_memory(octets)], {"header": "key"})]
    assert [frame.height for frame in frames] == [50_000, 50_000, 50_000]
    assert frames[2].row(-1) == (0, 149_999, None, False, "k149999", "n")


# The real file


def test_the_street_survey_has_three_header_rows_with_merged_cells(shared_data: Callable[[str], Path]) -> None:
    octets = (shared_data("pipe_survey") / "pipe_survey_results.xls").read_bytes()
    frame = decode(octets, sheet="J", header="管线点预编号", carry_down="管线点预编号")
    assert frame.height == 210
    assert frame.columns[3:] == [
        "管线点预编号", "管线点号", "连接点号", "埋设方式", "管线材料", "管径或断面尺寸φ(mm)", "管线点类别/特征",
        "管线点类别/附属物",
        "平面坐标(m)/X", "平面坐标(m)/Y", "高程(m)/地面", "高程(m)/管(沟块)顶", "高程(m)/管(沟块)内底", "埋深(m)",
        "电缆根数或总孔数/已用孔数", "管孔排列(行X列", "电力电压(KV)", "备注",
    ]  # fmt: skip
    assert frame.filter(pl.col(CARRIED)).height == 210 - 109
    assert frame.filter(pl.col("管线点预编号") == "J17")["连接点号"].to_list() == ["J18", "J19"]


def test_the_split_copy_of_the_survey_reads_numbers_as_the_digits_that_give_them_back(
    shared_data: Callable[[str], Path],
) -> None:
    octets = (shared_data("pipe_survey") / "pipe_survey_shifted.xlsx").read_bytes()
    frame = decode(octets, sheet="电信发射塔", header="管线点预编号")
    assert frame.select("管线点预编号", "x", "y").rows() == [("D752", "2493793.265", "491504.39")]
