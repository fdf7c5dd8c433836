"""Drawings become records, the same as two other readers see; what is no whole ASCII drawing is refused by code."""

import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import ezdxf
import polars as pl
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats import dxf, dxf_binary, dxf_tags
from connectors.formats.catalogue import formats
from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET, Options
from samples.drawing import Drawing
from security.errors import Refusal, sentences
from security.message import Content, Digest, file_content, in_memory

HEADER = "0\nSECTION\n2\nHEADER\n9\n$ACADVER\n1\n{}\n9\n$DWGCODEPAGE\n3\n{}\n0\nENDSEC\n"
POINT = "0\nPOINT\n5\nA1\n8\n管线\n10\n1.50\n20\n2.0\n30\n0\n"


def drawing(entities: str, version: str = "AC1015", page: str = "ANSI_936") -> str:
    return f"{HEADER.format(version, page)}0\nSECTION\n2\nENTITIES\n{entities}0\nENDSEC\n0\nEOF\n"


def decode(octets: bytes, **options: str | int | bool | list[str]) -> pl.DataFrame:
    return pl.concat(batch.frame for batch in dxf.decode([in_memory(octets)], options))


def records(entities: str, **options: str | int | bool | list[str]) -> pl.DataFrame:
    return decode(drawing(entities).encode("gbk"), **options)


def one(entities: str, **options: str | int | bool | list[str]) -> dict[str, str | None]:
    """The columns of the only record that say something."""
    frame = records(entities, **options)
    assert frame.height == 1
    return {name: value for name, value in frame.row(0, named=True).items() if name[0] != "#" and value is not None}


def refusal(octets: bytes, options: Options | None = None) -> tuple[str, str]:
    with pytest.raises(Refusal) as refused:
        list(dxf.decode([in_memory(octets)], options or {}))
    return refused.value.code, refused.value.detail


# One entity, one record


def test_the_catalogue_finds_the_format_and_not_its_scanner() -> None:
    assert formats()["dxf"].OPTIONS is dxf.OPTIONS
    assert "dxf_tags" not in formats()


def test_a_record_has_the_drawing_s_own_spelling() -> None:
    frame = records(POINT)
    assert frame.columns == [CONTENT, RECORD, SHEET, CARRIED, *dxf.COLUMNS]
    assert frame.row(0)[:4] == (0, 0, "管线", False)
    assert one(POINT) == {
        "entity": "POINT", "handle": "A1", "layer": "管线", "x": "1.50", "y": "2.0", "z": "0", "key": "A1",
    }  # fmt: skip


def test_an_insert_tells_block_rotation_code_and_the_attributes_asked_for() -> None:
    insert = (
        "0\nINSERT\n5\n1f\n8\nGXYZ\n66\n1\n2\ngc174100\n10\n1\n20\n2\n30\n3\n50\n90.5\n"
        "1001\nOTHER\n1000\nwrong\n1001\nSOUTH\n1070\n7\n1000\n174100\n1000\nmore\n1001\nLAST\n1000\nwrong\n"
        "0\nATTRIB\n8\nGXYZ\n1\nJS12\n2\n编号\n0\nATTRIB\n8\nGXYZ\n1\nlater\n2\n编号\n0\nATTRIB\n1\nx\n2\nOTHER\n0\nSEQEND\n"
    )
    assert one(insert, attributes=["编号", "管径"]) == {
        "entity": "INSERT", "handle": "1f", "layer": "GXYZ", "block": "gc174100", "code": "174100", "x": "1", "y": "2",
        "z": "3", "rotation": "90.5", "key": "1F", "@编号": "JS12",
    }  # fmt: skip


def test_a_tag_asked_for_twice_is_one_column() -> None:
    assert records(POINT, attributes=["编号", "编号"]).columns[-2:] == ["key", "@编号"]


def test_xdata_of_other_programs_is_no_code() -> None:
    assert "code" not in one(POINT + "1001\nSOUTH\n1001\nOTHER\n1000\n174100\n")


def test_the_pieces_of_an_mtext_are_one_text_with_its_formatting() -> None:
    said = one("0\nMTEXT\n5\n1\n8\n0\n10\n0\n20\n0\n3\n{\\fSimSun;给\n3\n水\\P\n1\n井}\n101\nEmbedded Object\n1\nno\n")
    assert said["text"] == "{\\fSimSun;给水\\P井}"


def test_lines_and_polylines_have_two_ends() -> None:
    line = one("0\nLINE\n8\n0\n10\n1\n20\n2\n30\n3\n11\n4\n21\n5\n31\n6\n")
    assert [line[name] for name in ("x", "y", "z", "x2", "y2", "z2")] == list("123456")
    flat = "0\nLWPOLYLINE\n8\n0\n90\n3\n70\n1\n38\n9\n10\n1\n20\n2\n10\n3\n20\n4\n42\n0.5\n10\n5\n20\n6\n"
    vertices = "0\nPOLYLINE\n8\n0\n66\n1\n70\n1\n10\n0\n20\n0\n30\n9\n" + "".join(
        f"0\nVERTEX\n8\n0\n10\n{x}\n20\n{x + 1}\n30\n0\n" for x in (1, 3, 5)
    )
    for said in (one(flat), one(vertices + "0\nSEQEND\n")):
        assert [said[name] for name in ("x", "y", "z", "x2", "y2", "z2")] == ["1", "2", "9", "5", "6", "9"]
        assert (said["vertices"], said["closed"]) == ("3", "1")


def test_paper_space_and_the_contents_of_blocks_are_no_records() -> None:
    paper = "0\nINSERT\n8\n0\n67\n1\n66\n1\n2\nB\n0\nATTRIB\n1\nx\n2\nT\n0\nSEQEND\n"
    blocks = "0\nSECTION\n2\nBLOCKS\n0\nBLOCK\n2\nB\n0\nCIRCLE\n8\n0\n0\nENDBLK\n0\nENDSEC\n"
    octets = (blocks + drawing(paper + POINT)).encode("gbk")
    assert decode(octets, encoding="gbk")["entity"].to_list() == ["POINT"]


def test_a_drawing_without_entities_has_columns_and_no_records() -> None:
    frame = records("")
    assert (frame.height, frame.columns[4:]) == (0, list(dxf.COLUMNS))


def test_several_drawings_are_numbered_apart() -> None:
    content = in_memory(drawing(POINT + POINT).encode("gbk"))
    frame = pl.concat(batch.frame for batch in dxf.decode([content, content], {}))
    assert frame.select(CONTENT, RECORD).rows() == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_three_systems_end_them(end: str) -> None:
    assert decode(drawing(POINT + POINT).replace("\n", end).encode("gbk")).equals(records(POINT + POINT))


@pytest.mark.parametrize("code", ["{:>3}", "{:>6}", "{:>12}", "{:<4}", "\t{} "])
def test_a_group_code_is_a_number_however_it_is_set(code: str) -> None:
    lines = drawing(POINT).split("\n")
    lines[:-1:2] = [code.format(int(line)) for line in lines[:-1:2]]
    assert decode("\n".join(lines).encode("gbk")).equals(records(POINT))


@pytest.mark.parametrize("code", ["", " ", "x", "8 0", "!8", "+8", "8.0", "1e1", "99999", "123456789", "８", "--8"])
def test_what_only_looks_like_a_group_code_refuses_the_drawing(code: str) -> None:
    assert refusal(drawing(POINT.replace("8\n管线", f"{code}\n管线")).encode("gbk"))[0] == "decode.not_readable"


# Places


def test_what_is_drawn_from_below_lies_where_the_world_sees_it() -> None:
    below = "210\n0.0\n220\n0.0\n230\n-1.0\n"
    insert = one("0\nINSERT\n8\n0\n2\nB\n10\n-649654.9500\n20\n3307153.91\n30\n-4.5\n" + below)
    assert (insert["x"], insert["y"], insert["z"]) == ("649654.9500", "3307153.91", "4.5")
    flat = one("0\nLWPOLYLINE\n8\n0\n90\n2\n10\n1\n20\n2\n10\n0.0\n20\n4\n" + below)
    assert (flat["x"], flat["x2"]) == ("-1", "0.0")
    line = one("0\nLINE\n8\n0\n10\n1\n20\n2\n11\n3\n21\n4\n" + below)  # a LINE is in the world already
    assert (line["x"], line["x2"]) == ("1", "3")


@given(
    normal=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda n: sum(part * part for part in n) > 0.01),
    place=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
)
@settings(max_examples=50)
def test_a_tilted_system_is_turned_as_ezdxf_turns_it(
    normal: tuple[float, float, float], place: tuple[float, float, float]
) -> None:
    said = one(
        "0\nTEXT\n8\n0\n1\nT\n"
        + "".join(f"{code}\n{value!r}\n" for code, value in zip((10, 20, 30), place, strict=True))
        + "".join(f"{code}\n{value!r}\n" for code, value in zip((210, 220, 230), normal, strict=True))
    )
    world = ezdxf.math.OCS(normal).to_wcs(place)
    assert [float(said[axis] or "nan") for axis in "xyz"] == pytest.approx(list(world), abs=1e-5)


def test_a_minsert_is_a_record_for_each_of_its_symbols() -> None:
    array = "0\nINSERT\n5\nA\n8\n0\n2\nB\n10\n10\n20\n20\n50\n90\n70\n3\n71\n2\n44\n1.5\n45\n4\n"
    frame = records(array)
    assert frame["key"].to_list() == ["A", "A:0:1", "A:0:2", "A:1:0", "A:1:1", "A:1:2"]
    assert frame["x"].cast(pl.Float64).round(6).to_list() == [10, 10, 10, 6, 6, 6]
    assert frame["y"].cast(pl.Float64).round(6).to_list() == [20, 21.5, 23, 20, 21.5, 23]
    assert refusal(drawing(array.replace("\n3\n71", "\n5001\n71")).encode("gbk"))[0] == "decode.too_large"


# Keys


def test_a_handle_is_a_key_once_and_a_place_is_one_without_it() -> None:
    bare = POINT.replace("5\nA1\n", "")
    assert records(POINT + POINT.replace("A1", "a1") + bare + bare)["key"].to_list() == [
        "A1", "POINT:管线::1.50:2.0", "POINT:管线::1.50:2.0#2", "POINT:管线::1.50:2.0#3",
    ]  # fmt: skip


# Text


@pytest.mark.parametrize(
    ("version", "page", "encoding"),
    [
        ("AC1015", "ANSI_936", "gbk"),
        ("AC1018", "ANSI_936", "gb18030"),
        ("AC1009", "gb2312", "gb2312"),
        ("AC1021", "ANSI_936", "utf-8"),
        ("AC1032", "ANSI_1252", "utf-8"),
        ("AC1032", "ANSI_936", "utf-8-sig"),
        ("AC1015", "ANSI_950", "cp950"),
        ("AC1015", "ANSI_932", "cp932"),
    ],
)
def test_the_drawing_says_how_its_text_is_encoded(version: str, page: str, encoding: str) -> None:
    assert decode(drawing(POINT.replace("管线", "中水"), version, page).encode(encoding))["layer"].to_list() == ["中水"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_feed_s_encoding_is_believed_instead(end: str) -> None:
    octets = drawing(POINT, page="ANSI_1252").replace("\n", end).encode("utf-8")
    assert decode(octets, encoding="utf-8")["layer"].to_list() == ["管线"]


def test_escaped_characters_are_the_ones_they_stand_for() -> None:
    text = "0\nTEXT\n8\n\\U+4DAE\n1\n\\U+4DAE\\u溪\\M+5B9DC\\U+000A%%c^J\\U+D840\\U+DC00\n"
    assert one(text)["layer"] == "䶮"
    assert one(text)["text"] == "䶮\\u溪管\\U+000A%%c^J\U00020000"
    assert one("0\nMTEXT\n8\n0\n3\na\\U+4D\n1\nAEb\n")["text"] == "a䶮b"


@pytest.mark.parametrize(
    ("octets", "options", "code"),
    [
        (drawing(POINT.replace("管线", "上水检修井消火栓")).encode("utf-8"), {}, "decode.encoding_wrong"),
        (drawing(POINT, "AC1021").encode("gbk"), {}, "decode.encoding_wrong"),
        (drawing(POINT).encode("gbk"), {"encoding": "utf-8"}, "decode.encoding_wrong"),
        (drawing(POINT).encode("utf-8-sig"), {}, "decode.encoding_wrong"),
        (drawing(POINT, page="ANSI_99").encode("gbk"), {}, "decode.encoding_unknown"),
        (drawing(POINT).encode("gbk"), {"encoding": "big5"}, "decode.encoding_unknown"),
        (drawing(POINT).replace("9\n$DWGCODEPAGE\n3\nANSI_936\n", "").encode("gbk"), {}, "decode.encoding_unknown"),
        (drawing(POINT.replace("管线", "\\U+D800")).encode("gbk"), {}, "decode.encoding_wrong"),
        (drawing(POINT.replace("管线", "\\M+5FFFF")).encode("gbk"), {}, "decode.encoding_wrong"),
        (drawing(POINT.replace("管线", "a\0")).encode("gbk"), {}, "decode.not_readable"),
        (drawing(POINT).encode("utf-16"), {"encoding": "utf-8"}, "decode.encoding_wrong"),
    ],
)  # fmt: skip
def test_text_in_another_encoding_refuses_the_drawing(octets: bytes, options: Options, code: str) -> None:
    assert refusal(octets, options)[0] == code


# What is no whole drawing


@pytest.mark.parametrize(
    "text",
    [
        "",
        "编号,类型\n1,2\n",
        "0\nEOF\n",
        "0\nSECTION\n2\nHEADER\n0\nENDSEC\n0\nEOF\n",
        drawing(POINT).removesuffix("0\nEOF\n"),
        drawing(POINT).replace("0\nENDSEC\n0\nEOF", "0\nEOF"),
        drawing(POINT).replace("0\nENDSEC\n0\nEOF\n", ""),
        drawing(POINT)[:-10],
        drawing(POINT).replace("8\n管线\n", "8\n"),
        drawing(POINT).replace("8\n管线\n", "管线\n"),
        drawing("0\nVERTEX\n8\n0\n0\nSEQEND\n"),
        drawing("0\nSEQEND\n"),
        drawing("0\nINSERT\n8\n0\n2\nB\n0\nVERTEX\n8\n0\n"),
        drawing("0\nPOLYLINE\n8\n0\n0\nVERTEX\n8\n0\n10\n1\n20\n1\n" + POINT),
        drawing("0\nPOLYLINE\n8\n0\n0\nVERTEX\n8\n0\n10\n1\n20\n1\n"),
        drawing("0\nINSERT\n8\n0\n66\n1\n2\nB\n" + POINT),
        drawing("0\nINSERT\n8\n0\n2\nB\n10\n1\n20\n1\n210\n0\n220\n0\n230\nnan\n"),
        drawing("0\nINSERT\n8\n0\n2\nB\n10\nx\n20\n1\n230\n-1\n"),
        drawing("0\nLWPOLYLINE\n8\n0\n70\nyes\n10\n1\n20\n1\n"),
        "0\nLINE\n" + drawing(POINT),
        "8\n0\n" + drawing(POINT),
    ],
)
def test_what_is_cut_short_or_no_drawing_is_refused(text: str) -> None:
    assert refusal(text.encode("gbk"), {"encoding": "gbk"})[0] == "decode.not_readable"


def test_dwg_is_refused_by_name_with_the_next_step(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("dxf_samples")
    found = {path.name: refusal(path.read_bytes()) for path in folder.glob("*.dwg")}
    assert len(found) == 8
    assert {code for code, _ in found.values()} == {"decode.dwg"}
    assert found["libredwg_r11_entities-2d.dwg"] == ("decode.dwg", "AC1009")
    assert {version for _, version in found.values()} >= {"AC1014", "AC1015", "AC1018", "AC1021", "AC1032"}
    assert "DXF" in sentences()["decode.dwg"].next_en
    assert "DXF" in sentences()["decode.dwg"].next_zh


@pytest.mark.parametrize(
    "entities",
    [
        "0\nTEXT\n8\n0\n1\n" + "x" * (dxf_tags.LINE_CHARACTERS + 1) + "\n",
        "0\nTEXT\n8\n0\n1\n" + "x" * (dxf_tags.BLOCK_BYTES * 2 + 1),
        "0\nMTEXT\n8\n0\n" + ("3\n" + "x" * 30_000 + "\n") * 9 + "1\nx\n",
        "".join(f"0\nPOINT\n8\n{number}\n" for number in range(dxf.LAYERS + 1)),
        "0\nHATCH\n8\n0\n" + ("310\n" + "F" * 30_000 + "\n") * 700,
    ],
    ids=["line", "line-without-end", "text", "layers", "entity"],
)
def test_what_would_fill_the_memory_is_refused(entities: str) -> None:
    assert refusal(drawing(entities).encode("gbk"))[0] == "decode.too_large"


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dxf, "RECORDS", 3)
    assert refusal(drawing(POINT * 4).encode("gbk"))[0] == "decode.too_large"
    assert records(POINT * 3).height == 3


# Binary


def binary(path: Path) -> bytes:
    """A drawing as ezdxf saves it in binary."""
    stream = io.BytesIO()
    ezdxf.readfile(path).write(stream, fmt="bin")  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_binary_drawing_is_what_ezdxf_reads(shared_data: Callable[[str], Path]) -> None:
    assert compare_with_ezdxf(shared_data("dxf_samples") / "ezdxf_binary_r13.dxf").height == 3


@pytest.mark.parametrize(
    "name", ["libredwg_example_r12", "libredwg_example_2018", "ezdxf_multi_insert_with_attribs", "ezdxf_caret_encoding"]
)
def test_a_drawing_says_the_same_in_ascii_and_in_binary(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data("dxf_samples") / f"{name}.dxf"
    text = io.StringIO()
    ezdxf.readfile(path).write(text)
    ascii_, said = decode(text.getvalue().encode()), decode(binary(path))
    measured = {"x", "y", "z", "x2", "y2", "z2", "rotation"}
    for column in set(said.columns) - measured - {"key"}:
        assert said[column].equals(ascii_[column], null_equal=True), column
    for column in measured:
        assert numbers(said[column], 9) == numbers(ascii_[column], 9)


def test_values_of_every_width_are_read_wherever_a_piece_ends(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = binary(shared_data("dxf_samples") / "libredwg_sample_2007.dxf")
    whole = decode(octets)
    monkeypatch.setattr(dxf_tags, "BLOCK_BYTES", 4_099)
    assert decode(octets).equals(whole)


@pytest.fixture(scope="module")
def of_three_lines(shared_data: Callable[[str], Path]) -> bytes:
    return (shared_data("dxf_samples") / "ezdxf_binary_r13.dxf").read_bytes()


@given(st.data())
def test_a_binary_drawing_cut_or_spoilt_anywhere_is_records_or_a_refusal(
    of_three_lines: bytes, data: st.DataObject
) -> None:
    at, value = data.draw(st.integers(0, len(of_three_lines) - 1)), data.draw(st.integers(0, 255))
    assert read_or_refused(of_three_lines[:at] + bytes([value]) + of_three_lines[at + 1 :])
    assert refusal(of_three_lines[: min(at, len(of_three_lines) - 6)])[0].startswith("decode.")


@pytest.mark.parametrize(
    ("value", "code"),
    [(b"a\nb\0", "decode.not_readable"), (b"x" * (1 << 21), "decode.too_large"), (b"a", "decode.not_readable")],
    ids=["line", "long", "open"],
)
def test_a_binary_text_that_is_none_is_refused(value: bytes, code: str) -> None:
    octets = dxf_binary.MARK + b"\0\0SECTION\0\2\0ENTITIES\0\0\0TEXT\0\1\0" + value
    assert refusal(octets)[0] == code


# Pieces


def test_a_long_drawing_comes_in_frames_wherever_its_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities = "".join(f"0\nTEXT\n5\n{n:X}\n8\n管线{n % 7}\n10\n{n}.5\n20\n2\n1\n井{n}\n" for n in range(1, 50_003))
    octets = drawing(entities).encode("gbk")
    path = tmp_path / "segment"
    path.write_bytes(b"before" + octets + b"after: another bureau's bytes")
    content = Content(len(octets), Digest("SHA-256", bytes(32)), None, path, 6)
    monkeypatch.setattr(dxf_tags, "BLOCK_BYTES", 100_003)
    frames = [batch.frame for batch in dxf.decode([content], {})]
    assert [frame.height for frame in frames] == [RECORDS_PER_BATCH, 2]
    whole = pl.concat(frames)
    assert whole[RECORD].to_list() == list(range(50_002))
    assert whole.select(last=pl.col("text").last(), keys=pl.col("key").n_unique()).row(0) == ("井50002", 50_002)


@pytest.mark.parametrize("size", range(20, 120, 7))
def test_a_block_may_end_anywhere(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = "0\nPOLYLINE\n8\n0\n66\n1\n0\nVERTEX\n8\n0\n10\n1\n20\n2\n0\nVERTEX\n8\n0\n10\n3\n20\n4\n0\nSEQEND\n"
    whole = decode(drawing(POINT + parts + POINT, "AC1021").encode("utf-8"))
    monkeypatch.setattr(dxf_tags, "BLOCK_BYTES", size)
    monkeypatch.setattr(dxf_tags, "_said", lambda head: "utf-8")  # the header is longer than such a block
    assert decode(drawing(POINT + parts + POINT, "AC1021").encode("utf-8")).equals(whole)


WHOLE = drawing(
    POINT + "0\nINSERT\n8\n0\n66\n1\n2\nB\n10\n1\n20\n1\n0\nATTRIB\n1\nx\n2\nT\n0\nSEQEND\n" + POINT
).encode("gbk")


@given(st.integers(0, len(WHOLE) - 5))
def test_a_drawing_cut_anywhere_is_refused(end: int) -> None:
    assert refusal(WHOLE[:end])[0] in {"decode.not_readable", "decode.encoding_wrong", "decode.encoding_unknown"}


def read_or_refused(octets: bytes) -> bool:
    """Whether each record has its key, or the refusal is one of decoding; anything else is raised."""
    try:
        return decode(octets)["key"].null_count() == 0
    except Refusal as refused:
        return refused.code.startswith("decode.")


LINES = [
    "0", "SECTION", "ENDSEC", "EOF", "ENTITIES", "2", "INSERT", "ATTRIB", "SEQEND", "POLYLINE", "VERTEX", "MTEXT", "3",
    "1", "8", "10", "20", "66", "67", "70", "230", "-1", "1001", "SOUTH", "1000", "nan", "1e400", "\\U+D800", "", " 0",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=60), st.binary(max_size=8))
def test_any_lines_and_bytes_are_records_or_a_refusal(lines: list[str], octets: bytes) -> None:
    entities = "".join(f"{line}\n" for line in lines)
    for content in (drawing(entities).encode("gbk"), octets + drawing(POINT).encode("gbk"), octets * 9):
        assert read_or_refused(content)


@given(st.data())
def test_a_spoilt_byte_is_records_or_a_refusal(data: st.DataObject) -> None:
    at, value = data.draw(st.integers(0, len(WHOLE) - 1)), data.draw(st.integers(0, 255))
    octets = WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :]
    assert read_or_refused(octets)


# Other readers

SAMPLES = (
    "R12_trash_beyond_EOF", "caret_encoding", "duplicate_handles", "dxf_unicode", "georeferenced", "minimal_R10",
    "minimal_R12", "minimal_R2007",
)  # fmt: skip
VERSIONS = ("r14", "2000", "2004", "2007", "2010", "2013", "2018")
SURVEYS = ("pipe_map_R12_ansi936", "pipe_map_R2004_ansi936")
SPATIAL = {"INSERT": "insert", "POINT": "location", "TEXT": "insert", "MTEXT": "insert", "LINE": "start"}


def read(path: Path) -> pl.DataFrame:
    return pl.concat(batch.frame for batch in dxf.decode([file_content(path)], {}))


def numbers(texts: Iterable[str | None], digits: int = 6) -> list[float | None]:
    return [None if text is None else round(float(text), digits) + 0.0 for text in texts]


def compare_with_ezdxf(path: Path) -> pl.DataFrame:
    """Assert the same kinds and layers, and place and text of the plain ones; in the drawing's order."""
    ours, theirs = read(path), list(ezdxf.readfile(path).modelspace())
    assert ours["entity"].to_list() == [entity.dxftype() for entity in theirs]
    known = [
        index for index, entity in enumerate(theirs) if entity.dxftype() != "ACAD_TABLE"
    ]  # it keeps no layer of it
    assert ours["layer"][known].fill_null("0").to_list() == [theirs[index].dxf.layer for index in known]
    for row, entity in zip(ours.iter_rows(named=True), theirs, strict=True):
        if (attribute := SPATIAL.get(row["entity"])) is None:
            continue
        place = getattr(entity.dxf, attribute)
        world = place if row["entity"] in ("POINT", "LINE", "MTEXT") else entity.ocs().to_wcs(place)
        assert numbers([row["x"], row["y"]]) == numbers([str(world.x), str(world.y)])
        if row["entity"] == "TEXT":
            assert row["text"] == entity.dxf.text
        if row["entity"] == "INSERT":
            assert row["block"] == entity.dxf.name
            code = entity.get_xdata("SOUTH") if entity.has_xdata("SOUTH") else []
            assert row["code"] == next((tag.value for tag in code if tag.code == 1000), None)
    return ours


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_what_ezdxf_reads(name: str, shared_data: Callable[[str], Path]) -> None:
    compare_with_ezdxf(shared_data("dxf_samples") / f"ezdxf_{name}.dxf")


@pytest.mark.parametrize("name", ["example_2018", "example_r12", "r12_Leader", *(f"sample_{v}" for v in VERSIONS)])
def test_drawings_of_every_version_are_what_ezdxf_reads(name: str, shared_data: Callable[[str], Path]) -> None:
    compare_with_ezdxf(shared_data("dxf_samples") / f"libredwg_{name}.dxf")


def test_one_drawing_in_seven_versions_is_the_same_but_for_the_layer_s_name_in_r14(
    shared_data: Callable[[str], Path],
) -> None:
    frames = [read(shared_data("dxf_samples") / f"libredwg_sample_{version}.dxf") for version in VERSIONS]
    said = [
        frame.select(
            "entity",
            pl.col("layer").str.to_uppercase().str.replace(" ", "_"),
            "text",
            "vertices",
            *(pl.col(a).cast(pl.Float64).round(9) for a in ("x", "y")),
        )
        for frame in frames
    ]
    assert said[0].height == 6
    for other in said[1:]:
        assert Counter(other.rows()) == Counter(said[0].rows())


def test_doubled_handles_are_keys_once(shared_data: Callable[[str], Path]) -> None:
    frame = read(shared_data("dxf_samples") / "ezdxf_duplicate_handles.dxf")
    assert frame.height == frame["key"].n_unique() == 145
    assert frame["key"].str.contains(":").any() == (frame["handle"].n_unique() < 145)


def test_a_minsert_is_what_ezdxf_makes_of_it(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("dxf_samples") / "ezdxf_multi_insert_with_attribs.dxf"
    [array] = ezdxf.readfile(path).modelspace()
    theirs = [(round(each.dxf.insert.x, 6), round(each.dxf.insert.y, 6)) for each in array.multi_insert()]
    ours = list(zip(numbers(read(path)["x"]), numbers(read(path)["y"]), strict=True))
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 25


@pytest.mark.parametrize("name", SURVEYS)
def test_the_street_s_survey_is_what_ezdxf_reads(name: str, shared_data: Callable[[str], Path]) -> None:
    frame = compare_with_ezdxf(shared_data("pipe_survey") / f"{name}.dxf")
    kinds = dict(frame["entity"].value_counts().rows())
    assert (kinds["INSERT"], kinds["POINT"], kinds["LINE"]) == (1048, 910, 873)
    assert kinds["TEXT"] + kinds.get("MTEXT", 0) == 1521
    assert kinds.get("LWPOLYLINE", 0) + kinds.get("POLYLINE", 0) == 17
    assert frame["key"].n_unique() == frame.height == 4369


def gdal(path: Path) -> list[dict[str, object]]:
    """GDAL's features of model space, with their group codes as they stand in the file."""
    pyogrio.set_gdal_config_options({"DXF_INCLUDE_RAW_CODE_VALUES": "YES", "DXF_INLINE_BLOCKS": "FALSE"})
    meta, _, geometry, columns = pyogrio.raw.read(path, layer="entities")
    rows = [dict(zip(meta["fields"], row, strict=True)) for row in zip(*columns, strict=True)]
    return [{**row, "wkb": wkb} for row, wkb in zip(rows, geometry, strict=True) if row["PaperSpace"] != 1]


def raw(feature: dict[str, object]) -> list[tuple[int, str]]:
    tags = [str(tag).strip().partition(" ") for tag in feature["RawCodeValues"]]  # type: ignore[attr-defined]
    return [(int(code), value) for code, _, value in tags]


@pytest.mark.parametrize("name", SURVEYS)
def test_the_street_s_survey_is_what_gdal_reads(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data("pipe_survey") / f"{name}.dxf"
    ours, theirs = read(path), gdal(path)
    assert len(theirs) == ours.height
    assert Counter(ours["layer"]) == Counter(feature["Layer"] for feature in theirs)
    texts = Counter(ours.filter(entity="TEXT")["text"])
    assert texts == Counter(f["Text"] for f in theirs if f["SubClasses"] in (None, "AcDbEntity:AcDbText:AcDbText")
                            and f["Text"] is not None and f["BlockName"] is None)  # fmt: skip
    placed = ours.filter(pl.col("entity").is_in(["INSERT", "POINT"]))
    places = Counter(zip(placed["layer"], numbers(placed["x"], 4), numbers(placed["y"], 4), strict=True))
    points = [(f["Layer"], shapely.from_wkb(f["wkb"])) for f in theirs if f["Text"] is None]
    points = [(layer, round(p.x, 4), round(p.y, 4)) for layer, p in points if p.geom_type == "Point"]
    assert places == Counter(points)
    assert Counter(ours.filter(entity="INSERT")["block"]) == Counter(f["BlockName"] for f in theirs if f["BlockName"])


def test_symbols_with_xdata_and_attributes_are_what_gdal_reads(tmp_path: Path) -> None:
    drawn = Drawing()
    for number in range(50):
        place = (649_000 + number * 1.37, 3_307_000 - number * 2.11, 3.5)
        code = f"17{number:04}" if number % 3 else ""
        drawn.insert("管线" if number % 2 else "GXYZ", "gc1", place, code=code, mirrored=number % 7 == 0)
    path = tmp_path / "sheet.dxf"
    path.write_bytes(drawn.octets())
    ours = compare_with_ezdxf(path)
    for row, feature in zip(ours.iter_rows(named=True), gdal(path), strict=True):
        tags = raw(feature)
        south = list(itertools.dropwhile(lambda tag: tag != (1001, "SOUTH"), tags))
        assert row["code"] == (south[1][1] if south else None)
        assert (row["layer"], row["block"], row["handle"]) == (
            feature["Layer"], feature["BlockName"], feature["EntityHandle"],
        )  # fmt: skip
        place = shapely.from_wkb(feature["wkb"])
        assert numbers([row["x"], row["y"]]) == numbers([str(place.x), str(place.y)])
