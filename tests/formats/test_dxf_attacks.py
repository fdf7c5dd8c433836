"""What is made to break a reader of drawings: cut anywhere, without end, nested, crowded, garbled, telling untruths."""

import io
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from connectors.formats import dxf, dxf_binary, dxf_entities, dxf_tags
from mappings.functions import metres
from mappings.garbled import garbled
from security.errors import Refusal
from security.message import Content, Digest, in_memory
from tests.formats.test_dxf import POINT, decode, drawing, records, refusal

NO_DIGEST = Digest("SHA-256", bytes(32))
LONG = "YONGTONG_FUZZ_EXAMPLES" in os.environ  # `make soak`
GREATEST_S = 20.0  # of processor for any of these: hundreds of times less is usual

# Cut anywhere


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ezdxf_R12_trash_beyond_EOF", 1),
        ("ezdxf_minimal_R10", 1),
        ("ezdxf_minimal_R2007", 1),
        ("ezdxf_multi_insert_with_attribs", 1 if LONG else 97),
        ("ezdxf_binary_r13", 1 if LONG else 97),
        ("libredwg_sample_2018", 97 if LONG else 997),
        ("libredwg_example_r12", 9_973),
    ],
)
def test_a_prefix_of_a_sample_is_all_of_it_or_refused_by_name(
    name: str, step: int, shared_data: Callable[[str], Path]
) -> None:
    octets = (shared_data("dxf_samples") / f"{name}.dxf").read_bytes()
    whole = decode(octets)
    end_of_file = octets.find(b"EOF") + len("EOF")
    for size in range(0, len(octets), step):
        read = read_or_code(octets[:size])
        if isinstance(read, str):
            assert read == "decode.not_readable"
        else:
            assert size >= end_of_file
            assert read.equals(whole)


def read_or_code(octets: bytes) -> pl.DataFrame | str:
    try:
        return decode(octets)
    except Refusal as refused:
        return refused.code


# Without end


class Endless(io.RawIOBase):
    """A stream of one octet after a beginning, which counts what is read of it and may be opened again."""

    def __init__(self, begin: bytes) -> None:
        self.begin, self.taken, self.at = begin, 0, 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """It stays."""

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        given = (self.begin[self.at :] + b"x" * size)[:size]
        self.at += size
        self.taken += size
        return given


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        drawing("0\nTEXT\n8\n0\n1\n").encode("gbk").partition(b"0\nENDSEC\n0\nEOF")[0],
        drawing(POINT).encode("gbk").partition(b"0\nENDSEC\n0\nEOF")[0],
        dxf_binary.MARK + b"\0\0SECTION\0\2\0ENTITIES\0\0\0TEXT\0\1\0",
    ],
    ids=["nothing-else", "text", "code", "binary"],
)
def test_a_line_of_4_gb_is_refused_after_a_few_megabytes(begin: bytes) -> None:
    stream = Endless(begin)
    with pytest.raises(Refusal) as refused:
        list(dxf.decode([Content(4 << 30, NO_DIGEST, source=lambda: stream)], {}))  # type: ignore[arg-type]
    assert refused.value.code in ("decode.too_large", "decode.not_readable")
    assert stream.taken <= 3 * dxf_tags.BLOCK_BYTES


def test_a_file_shorter_than_it_was_is_refused() -> None:
    octets = drawing(POINT).encode("gbk")
    shorter = Content(len(octets), NO_DIGEST, source=lambda: io.BytesIO(octets[:-10]))
    with pytest.raises(Refusal, match="shorter"):
        list(dxf.decode([shorter], {}))


# Nested and crowded


def test_blocks_nested_to_a_thousand_million_are_one_record() -> None:
    insert = "0\nINSERT\n8\n0\n2\nB{}\n10\n0\n20\n0\n"
    blocks = "".join(f"0\nBLOCK\n2\nB{n}\n{insert.format(n - 1) * 10 if n else POINT}0\nENDBLK\n" for n in range(10))
    octets = f"0\nSECTION\n2\nBLOCKS\n{blocks}0\nENDSEC\n{drawing(insert.format(9))}".encode("gbk")
    began_s = time.process_time()
    assert decode(octets, encoding="gbk").select("entity", "block").rows() == [("INSERT", "B9")]
    assert time.process_time() - began_s < GREATEST_S


def test_arrays_in_arrays_stop_at_the_limit_of_records_before_they_are_made() -> None:
    array = "0\nINSERT\n8\n0\n2\nB\n10\n1\n20\n2\n70\n100\n71\n100\n44\n1\n45\n1\n"
    began_s = time.process_time()
    assert refusal(drawing(array * (dxf.RECORDS // dxf.INSTANCES + 1)).encode("gbk"))[0] == "decode.too_large"
    assert time.process_time() - began_s < GREATEST_S


def test_a_flat_polyline_of_a_million_corners_is_one_record() -> None:
    corners = "10\n1\n20\n2\n" * 1_000_000
    [said] = records(f"0\nLWPOLYLINE\n8\n0\n90\n1000000\n70\n0\n{corners}").select("vertices", "x2", "y2").rows()
    assert said == ("1000000", "1", "2")


def test_a_polyline_of_a_million_vertices_is_refused() -> None:
    vertices = "0\nVERTEX\n8\n0\n10\n1\n20\n2\n" * 1_000_000
    code, detail = refusal(drawing(f"0\nPOLYLINE\n8\n0\n66\n1\n{vertices}0\nSEQEND\n").encode("gbk"))
    assert (code, str(dxf_entities.VERTICES) in detail) == ("decode.too_large", True)


def test_an_insert_of_a_million_attributes_is_refused() -> None:
    attributes = "0\nATTRIB\n8\n0\n1\nx\n2\nT\n" * (dxf_entities.VERTICES + 1)
    octets = drawing(f"0\nINSERT\n8\n0\n66\n1\n2\nB\n{attributes}0\nSEQEND\n").encode("gbk")
    assert refusal(octets, {"attributes": ["T"]})[0] == "decode.too_large"


def test_a_hundred_thousand_sections_take_no_longer_than_as_many_entities() -> None:
    sections = "0\nSECTION\n2\nENTITIES\n0\nPOINT\n8\n0\n0\nENDSEC\n" * 100_000
    began_s = time.process_time()
    assert decode(f"{sections}0\nEOF\n".encode("gbk")).height == 100_000
    assert time.process_time() - began_s < GREATEST_S


# Untruths


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300", "-1e300", "1e400", "", "x", "0x10", "1_000"])
def test_a_coordinate_that_is_none_stays_as_it_is_spelled_for_the_mapping_to_refuse(value: str) -> None:
    said = records(POINT.replace("1.50", value))["x"]
    assert said.to_list() == [value]
    read = said.to_frame().select(metres(pl.col("x"))).to_series()[0]
    assert read is None or abs(read) == 1e300  # which no feed's area holds


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "x"])
@pytest.mark.parametrize("axis", ["10", "20", "210", "230"])
def test_what_must_be_computed_from_no_number_refuses_the_drawing(axis: str, value: str) -> None:
    groups = {"10": "1", "20": "2", "30": "3", "210": "0.6", "220": "0", "230": "0.8"} | {axis: value}
    text = "0\nTEXT\n8\n0\n1\nT\n" + "".join(f"{code}\n{said}\n" for code, said in groups.items())
    assert refusal(drawing(text).encode("gbk"))[0] == "decode.not_readable"


def test_an_extrusion_of_any_length_is_a_direction_and_a_place_beyond_all_numbers_is_refused() -> None:
    text = "0\nTEXT\n8\n0\n1\nT\n10\n{}\n20\n{}\n30\n3\n210\n{}\n220\n0\n230\n{}\n"
    usual = records(text.format(1, 2, 0.6, 0.8)).select(pl.col("x", "y", "z").cast(pl.Float64)).row(0)
    for scale in (1e-300, 1e300):
        said = records(text.format(1, 2, 0.6 * scale, 0.8 * scale)).select(pl.col("x", "y", "z").cast(pl.Float64))
        assert said.row(0) == pytest.approx(usual)
    octets = drawing(text.format(1e308, 1.7e308, 0.6, 0.8).replace("30\n3\n", "30\n1.7e308\n")).encode("gbk")
    assert refusal(octets)[0] == "decode.not_readable"


@pytest.mark.parametrize("version", ["", "AC", "AC10", "AC10155", "banana", "AC1015\x1f", "ac1021", "AC-999"])
def test_a_version_that_is_none_leaves_the_code_page_to_say(version: str) -> None:
    assert decode(drawing(POINT, version).encode("gbk"))["layer"].to_list() == ["管线"]


def test_a_version_that_is_untrue_is_refused_where_the_text_shows_it() -> None:
    assert refusal(drawing(POINT, "AC9999").encode("gbk"))[0] == "decode.encoding_wrong"
    assert decode(drawing(POINT, "AC9999").encode("utf-8"))["layer"].to_list() == ["管线"]


def test_a_handle_on_every_record_is_a_key_once_however_many_blocks_lie_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dxf_tags, "BLOCK_BYTES", 5_000)
    monkeypatch.setattr(dxf, "_RUN", 64)
    doubled = "".join(f"0\nPOINT\n5\n{n % 700:X}\n8\n0\n10\n{n % 900}\n20\n0\n" for n in range(2_000))
    keys = records(doubled)["key"]
    assert keys.n_unique() == 2_000
    assert keys[:700].to_list() == [f"{n:X}" for n in range(700)]
    places = [f"POINT:0::{n % 900}:0" for n in range(700, 2_000)]
    seen: dict[str, itertools.count[int]] = {}
    numbered = [(place, next(seen.setdefault(place, itertools.count(1)))) for place in places]
    assert keys[700:].to_list() == [place if number == 1 else f"{place}#{number}" for place, number in numbered]


def test_memory_is_bounded_by_the_block_and_not_by_the_drawing() -> None:
    # Two drawings, one ten times the other: what the scanner and the grouping hold at once is the same.
    def held(count: int) -> int:
        content = in_memory(drawing(POINT * count).encode("gbk"))
        sizes = [whole.heads.estimated_size() for whole in dxf_entities.entities(dxf_tags.scan(content, None))]
        return max(int(size) for size in sizes)

    assert held(600_000) <= held(60_000) * 1.5


# Garbled

LAYERS = ("给水管线", "雨水箅子", "消火栓位", "电力电缆", "燃气管道", "绿化范围", "行政边界", "控制点位")
TABLES = "".join(f"0\nPOINT\n8\n{layer}\n10\n1\n20\n2\n" for layer in LAYERS)


def as_read(layers: str, wrote: str, read: str) -> str:
    """What is left of text that was written in one encoding and read in another."""
    return layers.encode(wrote).decode(read)


@pytest.mark.parametrize(
    ("octets", "code", "detail"),
    [
        (drawing(TABLES, page="ANSI_1252").encode("gbk"), "decode.encoding_wrong", "cp1252 declared, GBK found"),
        (drawing(TABLES, page="ISO8859-1").encode("gbk"), "decode.encoding_wrong", "iso8859-1 declared, GBK found"),
        (drawing(TABLES, page="dos850").encode("gbk"), "decode.encoding_wrong", "cp850 declared, GBK found"),
        (drawing(TABLES).encode("utf-8"), "decode.encoding_wrong", "gb18030 declared, UTF-8 found"),
        (drawing(as_read(TABLES, "gbk", "latin-1"), "AC1021").encode("utf-8"), "decode.text_garbled",
         "GBK read as ISO 8859-1"),
        (drawing(as_read(TABLES, "utf-8", "gbk"), "AC1021").encode("utf-8"), "decode.text_garbled",
         "UTF-8 read as GBK"),
    ],
    ids=["gbk-as-1252", "gbk-as-8859", "gbk-as-850", "utf-8-as-gbk", "latin-mojibake", "gbk-mojibake"],
)  # fmt: skip
def test_a_drawing_whose_text_is_of_another_encoding_is_refused_as_a_whole(
    octets: bytes, code: str, detail: str
) -> None:
    assert refusal(octets) == (code, detail)


def test_a_feed_that_says_the_encoding_is_believed_against_the_drawing() -> None:
    octets = drawing(TABLES, page="ANSI_1252").encode("gbk")
    assert decode(octets, encoding="gbk")["layer"].to_list()[0] == LAYERS[0]


@pytest.mark.parametrize(
    ("words", "version", "page", "encoding"),
    [
        ("Éclairage public à l'intérieur, ÇÀÉÈÙÔÎÏÄËÖÜ ÀÇ ÊËÌÍ", "AC1015", "ANSI_1252", "cp1252"),
        ("Граница участка Основной Здание Дорога Колодец", "AC1015", "ANSI_1251", "cp1251"),
        ("DN300×2° ±0.000 φ·², 管线 上水检修井消火栓位置图", "AC1015", "ANSI_936", "gb18030"),
        ("DN300×2° ±0.000 φ·², Éclairage ÇÀ 管线 上水检修井消火栓位置图", "AC1021", "ANSI_936", "utf-8"),
        ("上水检修井 雨水箅子 通讯线缆 消火栓位 联通 䶮溪", "AC1021", "ANSI_936", "utf-8"),
    ],
    ids=["french", "russian", "gbk", "mixed", "utf-8"],
)
def test_what_is_right_in_its_encoding_is_taken_for_nothing_else(
    words: str, version: str, page: str, encoding: str
) -> None:
    texts = "".join(f"0\nTEXT\n8\n0\n1\n{word}\n" for word in words.split())
    assert decode(drawing(texts, version, page).encode(encoding))["text"].to_list() == words.split()


def test_a_word_or_two_that_is_spoilt_stays_for_the_record_s_own_check() -> None:
    spoilt = as_read("管线", "gbk", "latin-1")
    texts = "".join(f"0\nTEXT\n8\n0\n1\n{word}\n" for word in (spoilt, "\ufffd", "????"))
    said = decode(drawing(texts, "AC1021").encode("utf-8"))["text"]
    assert said.to_list() == [spoilt, "\ufffd", "????"]
    assert said.to_frame().select(garbled(pl.col("text"))).to_series().all()


@pytest.mark.parametrize("text", ["管线", "DN300×2", "±0.000", "m²·s", "?", "位置??号", "É", "", "Ø 25.4 °C", "P?12"])
def test_what_is_only_odd_is_not_garbled(text: str) -> None:
    assert not pl.select(garbled(pl.lit(text))).item()
